//! A topic: desks follow the prices of a pair, and a feed publishes them without knowing who follows.
//!
//! ```text
//! cargo run --example pubsub -- run
//! cargo run --example pubsub -- agents send desk/other Follow '{"pair":"EURUSD"}'
//! ```
//!
//! At its start it follows and publishes by itself, and checks that the price has arrived. Subscriptions are
//! kept: stop it and start it again, and `desk/other` hears the new price.

use greenroom::prelude::*;

#[derive(Clone, Serialize, Deserialize, JsonSchema)]
struct Price {
    pair: String,
    cents: i64,
}

#[derive(Clone, Serialize, Deserialize, JsonSchema)]
struct Follow {
    pair: String,
}

#[derive(Clone, Serialize, Deserialize, JsonSchema)]
struct Last {}

message! { Price -> (); Follow -> (); Last -> Option<i64> }

static PRICES: Topic<Price> = Topic::new("prices");

#[derive(Default, Serialize, Deserialize)]
struct Desk {
    last: Option<i64>,
}

impl Agent for Desk {
    const KIND: &'static str = "desk";
    type Messages = (Price, Follow, Last);
}

impl Handler<Follow> for Desk {
    async fn handle(&mut self, f: Follow, turn: &Turn<Self>) -> Result<()> {
        turn.subscribe(&PRICES.keyed(f.pair)); // kept with this turn's commit
        Ok(())
    }
}

impl Handler<Price> for Desk {
    async fn handle(&mut self, p: Price, turn: &Turn<Self>) -> Result<()> {
        println!("desk/{}: {} at {}", turn.key(), p.pair, p.cents);
        self.last = Some(p.cents);
        Ok(())
    }
}

impl Query<Last> for Desk {
    async fn query(&self, _: Last, _: &Turn<Self>) -> Result<Option<i64>> {
        Ok(self.last)
    }
}

async fn feed(handle: Handle) -> Result<()> {
    let desk = handle.agent::<Desk>("first");
    desk.ask(Follow { pair: "EURUSD".into() }).await?;
    let cents = desk.ask(Last {}).await?.map_or(108, |last| last + 1);
    handle.publish(&PRICES.keyed("EURUSD"), Price { pair: "EURUSD".into(), cents }).await?;
    // The price stood in the desk's mailbox before this question.
    let last = desk.ask(Last {}).await?;
    ensure!(last == Some(cents), "desk/first has heard {last:?}, not {cents}");
    Ok(())
}

fn main() -> ExitCode {
    Runtime::builder().agent::<Desk>().on_ready(feed).main()
}
