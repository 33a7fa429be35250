//! A state that has changed its shape twice: `migrate` reads what earlier programs wrote, step by step.
//!
//! ```text
//! CART=1 cargo run --example migrate -- run          # the program as it was; stop it with Ctrl-C
//! cargo run --example migrate -- db verify           # today's reads all of those states, and writes nothing
//! cargo run --example migrate -- run                 # it goes on with them
//! ```
//!
//! A node that starts tries a few of the old states as `db verify` tries all, and warns of those that it
//! cannot read (`state.unreadable`). An agent's state is written in the new shape when it next changes.

use greenroom::prelude::*;
use std::collections::BTreeMap;

/// Puts one more of it into the cart; how many of it there are now.
#[derive(Clone, Serialize, Deserialize, JsonSchema)]
struct Put {
    sku: String,
}

#[derive(Clone, Serialize, Deserialize, JsonSchema)]
struct Show {}

message! { Put -> u32; Show -> BTreeMap<String, u32> }

/// The first version, which is still a program here to make carts for the third.
#[derive(Default, Serialize, Deserialize)]
struct CartV1 {
    items: Vec<String>,
}

impl Agent for CartV1 {
    const KIND: &'static str = "cart";
    type Messages = Put;
}

impl Handler<Put> for CartV1 {
    async fn handle(&mut self, p: Put, _: &Turn<Self>) -> Result<u32> {
        self.items.push(p.sku.clone());
        Ok(self.items.iter().filter(|sku| **sku == p.sku).count() as u32)
    }
}

/// The second counted, in lines. All that is left of it is its shape.
#[derive(Deserialize)]
struct CartV2 {
    lines: Vec<Line>,
}

#[derive(Deserialize)]
struct Line {
    sku: String,
    n: u32,
}

impl From<CartV1> for CartV2 {
    fn from(v1: CartV1) -> Self {
        Self { lines: v1.items.into_iter().map(|sku| Line { sku, n: 1 }).collect() }
    }
}

/// The third has one line for each.
#[derive(Default, Serialize, Deserialize)]
struct Cart {
    lines: BTreeMap<String, u32>,
}

impl From<CartV2> for Cart {
    fn from(v2: CartV2) -> Self {
        let mut cart = Self::default();
        for line in v2.lines {
            *cart.lines.entry(line.sku).or_default() += line.n;
        }
        cart
    }
}

impl Agent for Cart {
    const KIND: &'static str = "cart";
    type Messages = (Put, Show);
    const VERSION: u32 = 3;
    fn migrate(old: Stored) -> Result<Self> {
        match old.version() {
            1 => Ok(CartV2::from(old.parse::<CartV1>()?).into()),
            2 => Ok(old.parse::<CartV2>()?.into()),
            _ => old.refuse(),
        }
    }
}

impl Handler<Put> for Cart {
    async fn handle(&mut self, p: Put, _: &Turn<Self>) -> Result<u32> {
        let n = self.lines.entry(p.sku).or_default();
        *n += 1;
        Ok(*n)
    }
}

impl Query<Show> for Cart {
    async fn query(&self, _: Show, _: &Turn<Self>) -> Result<BTreeMap<String, u32>> {
        Ok(self.lines.clone())
    }
}

async fn fill(handle: Handle) -> Result<()> {
    for sku in ["tea", "cup", "tea"] {
        handle.agent::<CartV1>("a").ask(Put { sku: sku.into() }).await?;
    }
    println!("cart/a is filled, in the first shape");
    Ok(())
}

async fn show(handle: Handle) -> Result<()> {
    println!("cart/a holds {:?}", handle.agent::<Cart>("a").ask(Show {}).await?);
    Ok(())
}

fn main() -> ExitCode {
    match std::env::var("CART").as_deref() {
        Ok("1") => Runtime::builder().agent::<CartV1>().on_ready(fill).main(),
        _ => Runtime::builder().agent::<Cart>().on_ready(show).main(),
    }
}

/// `cargo test --example migrate`
#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test(flavor = "multi_thread")]
    async fn a_cart_of_the_first_shape_is_read_by_the_third_program() -> Result<()> {
        let dir = tempfile::tempdir()?;
        let on = |program: greenroom::Builder| {
            program.set("node.data_dir", &dir.path().to_string_lossy()).set("log.level", "critical")
        };
        let old = on(Runtime::builder().agent::<CartV1>()).start().await?;
        fill(old.handle()).await?;
        old.shutdown().await?;

        let new = on(Runtime::builder().agent::<Cart>()).start().await?;
        let cart = new.handle().agent::<Cart>("a");
        let shown = cart.ask(Show {}).await?;
        assert_eq!(shown, BTreeMap::from([("cup".into(), 1), ("tea".into(), 2)]));
        assert_eq!(cart.ask(Put { sku: "tea".into() }).await?, 3);
        let written = new.handle().operator().state("cart", "a", None).await?;
        assert_eq!(written.schema_version, 3);
        new.shutdown().await
    }
}
