//! An order as one task function, from its top to its end: reserve, have it approved where it is dear, charge,
//! ship; and where something cannot be done, what was done is taken back. (`saga.rs` is the same order told by
//! agents that answer each other.)
//!
//! The process may be killed anywhere: the function runs again from its top, and each call that was made
//! before answers as it did then. While it waits for an approval it holds nothing but a row in the store.
//!
//! ```text
//! cargo run --example order -- run --data-dir /tmp/order &
//! cargo run --example order -- tasks submit tool:order '{"sku":"lamp","n":3,"cents":90000}' --data-dir /tmp/order
//! cargo run --example order -- tasks signal ID approved true --data-dir /tmp/order
//! cargo run --example order -- tasks watch ID --data-dir /tmp/order
//! ```

use greenroom::{AskError, Call, Effect, NoSignal, Tool, model::event::Level, prelude::*};
use std::collections::BTreeMap;

#[derive(Clone, Debug, Serialize, Deserialize, JsonSchema)]
struct Place {
    sku: String,
    n: u32,
    cents: u64,
}
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
enum Placed {
    Shipped { receipt: String },
    SoldOut { left: u32 },
    NotApproved,
    Declined(String),
}
#[derive(Clone, Serialize, Deserialize, JsonSchema)]
struct Reserve {
    order: String,
    n: u32,
}
#[derive(Clone, Serialize, Deserialize, JsonSchema)]
struct Release {
    order: String,
}
#[derive(Clone, Serialize, Deserialize, JsonSchema)]
struct Left {}
#[derive(Clone, Serialize, Deserialize, JsonSchema)]
struct Charge {
    cents: u64,
}
#[derive(Clone, Serialize, Deserialize, JsonSchema)]
struct Ship {
    order: String,
}

#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, JsonSchema, thiserror::Error)]
#[error("only {left} left")]
struct SoldOut {
    left: u32,
}
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, JsonSchema, thiserror::Error)]
#[error("declined: {why}")]
struct Declined {
    why: String,
}

message! {
    Place -> Placed;
    Reserve -> () | SoldOut;
    Release -> ();
    Left -> u32;
    Charge -> String | Declined;
    Ship -> ();
}

/// What there is of one thing, and for which orders it is kept.
#[derive(Serialize, Deserialize)]
struct Stock {
    left: u32,
    held: BTreeMap<String, u32>,
}
impl Default for Stock {
    fn default() -> Self {
        Self { left: 10, held: BTreeMap::new() }
    }
}
impl Agent for Stock {
    const KIND: &'static str = "stock";
    type Messages = (Reserve, Release, Left);
}
impl Handler<Reserve> for Stock {
    fn check(&self, reserve: &Reserve) -> Result<(), SoldOut> {
        if self.left < reserve.n { Err(SoldOut { left: self.left }) } else { Ok(()) }
    }
    async fn handle(&mut self, reserve: Reserve, _: &Turn<Self>) -> Result<()> {
        self.left -= reserve.n;
        self.held.insert(reserve.order, reserve.n);
        Ok(())
    }
}
impl Handler<Release> for Stock {
    async fn handle(&mut self, release: Release, _: &Turn<Self>) -> Result<()> {
        self.left += self.held.remove(&release.order).unwrap_or(0);
        Ok(())
    }
}
impl Query<Left> for Stock {
    async fn query(&self, _: Left, _: &Turn<Self>) -> Result<u32> {
        Ok(self.left)
    }
}

#[derive(Default, Serialize, Deserialize)]
struct Shipping {
    orders: Vec<String>,
}
impl Agent for Shipping {
    const KIND: &'static str = "shipping";
    type Messages = Ship;
}
impl Handler<Ship> for Shipping {
    async fn handle(&mut self, ship: Ship, _: &Turn<Self>) -> Result<()> {
        self.orders.push(ship.order);
        Ok(())
    }
}

/// The bank: what it does cannot be taken back by doing it again.
struct Bank;
impl Tool for Bank {
    const NAME: &'static str = "bank.charge";
    const EFFECT: Effect = Effect::Once;
    type Input = Charge;
    async fn run(&self, charge: Charge, call: &Call) -> Result<String> {
        if charge.cents > 200_000 {
            return Err(Charge::refuse(Declined { why: "over the limit".into() }));
        }
        Ok(format!("receipt of {}", call.idempotency_key()))
    }
}

/// Orders dearer than this are approved by a person.
const DEAR: u64 = 50_000;

async fn order(place: Place, call: Call) -> Result<Placed> {
    let order = call.idempotency_key().to_owned();
    let stock = call.agent::<Stock>(&place.sku);
    match stock.ask(Reserve { order: order.clone(), n: place.n }).await {
        Ok(()) => call.progress(0.25, "reserved"),
        Err(AskError::Refused(SoldOut { left })) => return Ok(Placed::SoldOut { left }),
        Err(e) => return Err(e.into()),
    }
    let end = charge_and_ship(&place, &order, &call).await?;
    if !matches!(end, Placed::Shipped { .. }) {
        call.log(Level::Info, format!("taken back: {end:?}"));
        stock.ask(Release { order }).await?;
    }
    Ok(end)
}

async fn charge_and_ship(place: &Place, order: &str, call: &Call) -> Result<Placed> {
    if place.cents > DEAR {
        call.progress(0.5, "waits for an approval");
        match call.wait_for::<bool>("approved").timeout(Duration::from_secs(3 * 24 * 3_600)).await {
            Ok(true) => {}
            Ok(false) => return Ok(Placed::NotApproved),
            Err(e) if e.is::<NoSignal>() => return Ok(Placed::NotApproved),
            Err(e) => return Err(e),
        }
    }
    let receipt = match call.call::<Bank>(Charge { cents: place.cents }).await {
        Ok(receipt) => receipt,
        Err(AskError::Refused(Declined { why })) => return Ok(Placed::Declined(why)),
        Err(e) => return Err(e.into()),
    };
    call.progress(0.75, "charged");
    call.agent::<Shipping>("main").submit(Ship { order: order.to_owned() }).await?;
    Ok(Placed::Shipped { receipt })
}

fn program() -> greenroom::Builder {
    Runtime::builder().agent::<Stock>().agent::<Shipping>().tool(Bank).tool_fn(
        "order",
        Effect::Idempotent,
        order,
    )
}

fn main() -> ExitCode {
    program().main()
}

#[cfg(test)]
mod tests {
    use super::*;
    use greenroom::runtime::views::TaskRequest;
    use serde_json::json;

    async fn places(handle: &greenroom::Handle, cents: u64, approved: Option<bool>) -> Result<Placed> {
        let input = Some(json!({"sku": "lamp", "n": 4, "cents": cents}));
        let request = TaskRequest { target: "tool:order".into(), input, ..TaskRequest::default() };
        let id = handle.operator().submit(request).await?.0.id;
        if let Some(approved) = approved {
            handle.operator().signal(id, "approved", json!(approved), None).await?;
        }
        match handle.wait::<Place>(id).await? {
            greenroom::Outcome::Succeeded(placed) => Ok(placed),
            other => bail!("{other:?}"),
        }
    }

    #[tokio::test(flavor = "multi_thread")]
    async fn what_cannot_be_done_is_taken_back() -> Result<()> {
        let dir = tempfile::tempdir()?;
        let program =
            program().set("node.data_dir", &dir.path().to_string_lossy()).set("log.level", "critical");
        let runtime = program.start().await?;
        let handle = runtime.handle();
        let stock = handle.agent::<Stock>("lamp");
        assert_eq!(places(&handle, 90_000, Some(false)).await?, Placed::NotApproved);
        assert_eq!(places(&handle, 900_000, Some(true)).await?, Placed::Declined("over the limit".into()));
        assert_eq!(stock.ask(Left {}).await?, 10);
        for left in [6, 2] {
            assert!(matches!(places(&handle, 100, None).await?, Placed::Shipped { .. }));
            assert_eq!(stock.ask(Left {}).await?, left);
        }
        assert_eq!(places(&handle, 100, None).await?, Placed::SoldOut { left: 2 });
        runtime.shutdown().await
    }
}
