//! Tasks that another node runs.

use greenroom::{Call, Effect, Limits, Tool, prelude::*};

use crate::{
    postgres::Database,
    support::{Gate, World, soon, task_in},
};

#[derive(Clone, Serialize, Deserialize, JsonSchema)]
struct Dig {}
message!(Dig -> ());

/// Waits at the gate.
struct Digger(Gate);
impl Tool for Digger {
    const NAME: &'static str = "dig";
    const EFFECT: Effect = Effect::Idempotent;
    type Input = Dig;
    fn limits(&self) -> Limits {
        // nothing but the cancellation ends it
        Limits { timeout: Some(Duration::from_secs(3_600)), ..Limits::default() }
    }
    async fn run(&self, _: Dig, _: &Call) -> Result<()> {
        self.0.wait().await;
        Ok(())
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_cancellation_reaches_the_node_that_runs_the_task() {
    let (database, gate) = (Database::new(), Gate::default());
    let node = || Runtime::builder().set("store.url", &database.url()).set("node.lease", "3s");
    let mut digs = World::start(node().tool(Digger(gate.clone()))).await;
    let mut asks =
        World::start(node().tool_fn("other", Effect::Pure, |_: Dig, _: Call| async { Ok(()) })).await;
    let dug = soon(digs.handle().tool::<Digger>().submit(Dig {})).await.unwrap();
    gate.arrival().await;
    soon(asks.handle().operator().cancel(dug)).await.unwrap();
    task_in(&asks.handle(), dug, "cancelled").await;
    asks.end().await;
    digs.end().await;
}
