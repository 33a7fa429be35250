//! An order that spans agents and a tool with an effect that happens once: reserve, charge, ship,
//! with compensation where a step is refused.
//!
//! ```text
//! cargo run --example saga -- run
//! cargo run --example saga -- agents send order/7 Place '{"sku":"lamp","n":1,"cents":900}'
//! cargo run --example saga -- agents send order/7 GetStage
//! ```

use greenroom::prelude::*;
use std::collections::BTreeMap;

#[derive(Clone, Debug, Serialize, Deserialize, JsonSchema)]
struct Reserve {
    order: String,
    sku: String,
    n: u32,
}

#[derive(Clone, Debug, Serialize, Deserialize, JsonSchema)]
struct Release {
    order: String,
}

#[derive(Clone, Debug, Serialize, Deserialize, JsonSchema)]
struct Charge {
    order: String,
    cents: u64,
}

#[derive(Clone, Debug, Serialize, Deserialize, JsonSchema)]
struct Receipt {
    id: String,
}

#[derive(Clone, Debug, Serialize, Deserialize, JsonSchema)]
struct Place {
    sku: String,
    n: u32,
    cents: u64,
}

#[derive(Clone, Debug, Serialize, Deserialize, JsonSchema)]
struct GetStage {}
#[derive(Clone, Debug, Serialize, Deserialize, JsonSchema)]
struct Ship {
    order: String,
}

#[derive(Clone, Debug, Serialize, Deserialize, JsonSchema, thiserror::Error)]
enum OutOf {
    #[error("only {left} left")]
    Stock { left: u32 },
}

#[derive(Clone, Debug, Serialize, Deserialize, JsonSchema, thiserror::Error)]
enum Declined {
    #[error("card declined: {0}")]
    Card(String),
}

#[derive(Clone, Debug, Serialize, Deserialize, JsonSchema, thiserror::Error)]
#[error("already placed")]
struct AlreadyPlaced;

message! {
    Reserve -> () | OutOf;
    Release -> ();
    Charge -> Receipt | Declined;
    Place -> () | AlreadyPlaced;
    GetStage -> Stage;
    Ship -> () as "ship_now";
}

#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize, JsonSchema)]
enum Stage {
    #[default]
    New,
    Reserving,
    Charging,
    Shipped,
    Failed(String),
    AskAHuman,
}

#[derive(Default, Serialize, Deserialize)]
struct Order {
    stage: Stage,
    placed: Option<Place>,
}

impl Agent for Order {
    const KIND: &'static str = "order";
    type Messages = (Place, GetStage, Done<Reserve>, Done<Charge>);
}

impl Handler<Place> for Order {
    fn check(&self, _: &Place) -> Result<(), AlreadyPlaced> {
        if self.stage != Stage::New {
            return Err(AlreadyPlaced);
        }
        Ok(())
    }
    async fn handle(&mut self, p: Place, turn: &Turn<Self>) -> Result<()> {
        turn.agent::<Stock>(&p.sku)
            .submit(Reserve { order: turn.key().into(), sku: p.sku.clone(), n: p.n })
            .notify();
        self.placed = Some(p);
        self.stage = Stage::Reserving;
        Ok(())
    }
}

impl Handler<Done<Reserve>> for Order {
    async fn handle(&mut self, done: Done<Reserve>, turn: &Turn<Self>) -> Result<()> {
        let cents = self.placed.as_ref().context("no order")?.cents;
        self.stage = match done.outcome {
            Outcome::Succeeded(()) => {
                turn.tool::<Payments>()
                    .submit(Charge { order: turn.key().into(), cents })
                    .max_attempts(5)
                    .notify();
                Stage::Charging
            }
            Outcome::Refused(OutOf::Stock { left }) => Stage::Failed(format!("{left} left")),
            other => Stage::Failed(format!("{other:?}")),
        };
        Ok(())
    }
}

impl Handler<Done<Charge>> for Order {
    async fn handle(&mut self, done: Done<Charge>, turn: &Turn<Self>) -> Result<()> {
        let sku = &self.placed.as_ref().context("no order")?.sku;
        self.stage = match done.outcome {
            Outcome::Succeeded(_) => {
                turn.agent::<Shipping>("main").submit(Ship { order: turn.key().into() });
                Stage::Shipped
            }
            Outcome::Unknown => Stage::AskAHuman,
            bad => {
                turn.agent::<Stock>(sku).submit(Release { order: turn.key().into() });
                Stage::Failed(format!("{bad:?}"))
            }
        };
        Ok(())
    }
}

impl Query<GetStage> for Order {
    async fn query(&self, _: GetStage, _: &Turn<Self>) -> Result<Stage> {
        Ok(self.stage.clone())
    }
}

#[derive(Serialize, Deserialize)]
struct Stock {
    left: u32,
    held: BTreeMap<String, u32>,
}

impl Default for Stock {
    fn default() -> Self {
        Self { left: 3, held: BTreeMap::new() }
    }
}

impl Agent for Stock {
    const KIND: &'static str = "stock";
    type Messages = (Reserve, Release);
}

impl Handler<Reserve> for Stock {
    fn check(&self, r: &Reserve) -> Result<(), OutOf> {
        if self.left < r.n {
            Err(OutOf::Stock { left: self.left })?
        }
        Ok(())
    }
    async fn handle(&mut self, r: Reserve, _: &Turn<Self>) -> Result<()> {
        self.left -= r.n;
        self.held.insert(r.order, r.n);
        Ok(())
    }
}

impl Handler<Release> for Stock {
    async fn handle(&mut self, r: Release, _: &Turn<Self>) -> Result<()> {
        self.left += self.held.remove(&r.order).unwrap_or(0);
        Ok(())
    }
}

#[derive(Default, Serialize, Deserialize)]
struct Shipping {
    queue: Vec<String>,
}

impl Agent for Shipping {
    const KIND: &'static str = "shipping";
    type Messages = Ship;
}

impl Handler<Ship> for Shipping {
    async fn handle(&mut self, s: Ship, _: &Turn<Self>) -> Result<()> {
        self.queue.push(s.order);
        Ok(())
    }
}

struct Payments {
    limit_cents: u64,
}

impl Tool for Payments {
    const NAME: &'static str = "payments.charge";
    const EFFECT: Effect = Effect::Once;
    type Input = Charge;
    async fn run(&self, c: Charge, call: &Call) -> Result<Receipt> {
        if c.cents > self.limit_cents {
            return Err(Charge::refuse(Declined::Card("over its limit".into())));
        }
        Ok(Receipt { id: call.idempotency_key().into() })
    }
}

async fn client(handle: Handle) -> Result<()> {
    match handle
        .agent::<Stock>("lamp")
        .ask(Reserve { order: "7".into(), sku: "lamp".into(), n: 1 })
        .timeout(Duration::from_secs(2))
        .await
    {
        Ok(()) => {}
        Err(AskError::Refused(OutOf::Stock { left })) => println!("{left} left"),
        Err(e) => return Err(e.into()),
    }
    let stage: Stage = handle.agent::<Order>("7").ask(GetStage {}).await?;
    println!("{stage:?}");
    Ok(())
}

fn main() -> ExitCode {
    Runtime::builder()
        .agent::<Order>()
        .agent::<Stock>()
        .agent::<Shipping>()
        .tool(Payments { limit_cents: 100_000 })
        .on_ready(client)
        .main()
}
