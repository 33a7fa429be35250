//! A pantry that orders jars when it runs low: an agent, a tool whose effect happens once, and the
//! order's outcome brought back as a message.
//!
//! ```text
//! cargo run --example readme -- run
//! cargo run --example readme -- agents send pantry/home Take '{"jars":10}'
//! cargo run --example readme -- tasks ls
//! ```

use greenroom::prelude::*;

/// What the agent remembers. One for each pantry; saved at every turn.
#[derive(Serialize, Deserialize)]
struct Pantry {
    jars: u32,
    ordered: bool,
}

impl Default for Pantry {
    fn default() -> Self {
        Self { jars: 12, ordered: false }
    }
}

#[derive(Clone, Serialize, Deserialize, JsonSchema)]
struct Take {
    jars: u32,
}

#[derive(Clone, Serialize, Deserialize, JsonSchema)]
struct Order {
    jars: u32,
}

#[derive(Clone, Debug, Serialize, Deserialize, JsonSchema, thiserror::Error)]
#[error("only {left} left")]
struct Short {
    left: u32,
}

message! { Take -> u32 | Short; Order -> u32 }

impl Agent for Pantry {
    const KIND: &'static str = "pantry";
    type Messages = (Take, Done<Order>);
}

impl Handler<Take> for Pantry {
    fn check(&self, take: &Take) -> Result<(), Short> {
        if take.jars > self.jars { Err(Short { left: self.jars }) } else { Ok(()) }
    }
    async fn handle(&mut self, take: Take, turn: &Turn<Self>) -> Result<u32> {
        self.jars -= take.jars;
        if self.jars < 3 && !self.ordered {
            self.ordered = true;
            turn.tool::<Supplier>().submit(Order { jars: 12 }).max_attempts(5).notify();
        }
        Ok(self.jars) // state, order and reply commit here, together, or not at all
    }
}

impl Handler<Done<Order>> for Pantry {
    async fn handle(&mut self, done: Done<Order>, _: &Turn<Self>) -> Result<()> {
        self.ordered = false;
        if let Outcome::Succeeded(jars) = done.outcome {
            self.jars += jars
        }
        Ok(())
    }
}

struct Supplier;

impl Tool for Supplier {
    const NAME: &'static str = "supplier.order";
    const EFFECT: Effect = Effect::Once; // interrupted? a person decides; it never runs twice by itself
    type Input = Order;
    async fn run(&self, order: Order, _: &Call) -> Result<u32> {
        Ok(order.jars)
    }
}

fn main() -> ExitCode {
    Runtime::builder().agent::<Pantry>().tool(Supplier).main()
}
