//! Idempotency keys of tasks that a turn submits, on the kit's own store; and a fan-out there.

use greenroom::{prelude::*, runtime::views::TaskRequest, testkit};
use serde_json::json;

#[derive(Clone, Serialize, Deserialize, JsonSchema)]
struct Send {
    n: u64,
    key: String,
}
#[derive(Clone, Serialize, Deserialize, JsonSchema)]
struct Add {
    n: u64,
}
#[derive(Clone, Serialize, Deserialize, JsonSchema)]
struct Spread {
    over: u64,
}
message! { Send -> (); Add -> u64; Spread -> u64 }

#[derive(Default, Serialize, Deserialize)]
struct Desk {
    turns: u64,
}
impl Agent for Desk {
    const KIND: &'static str = "desk";
    type Messages = Send;
}
impl Handler<Send> for Desk {
    async fn handle(&mut self, send: Send, turn: &Turn<Self>) -> Result<()> {
        self.turns += 1;
        turn.agent::<Sum>("a").submit(Add { n: send.n }).idempotency_key(send.key);
        Ok(())
    }
}

#[derive(Default, Serialize, Deserialize)]
struct Sum {
    n: u64,
}
impl Agent for Sum {
    const KIND: &'static str = "sum";
    type Messages = Add;
}
impl Handler<Add> for Sum {
    async fn handle(&mut self, add: Add, _: &Turn<Self>) -> Result<u64> {
        self.n += add.n;
        Ok(self.n)
    }
}

async fn spread(input: Spread, call: Call) -> Result<u64> {
    let parts = call.agent::<Sum>("b").submit_all((1..=input.over).map(|n| Add { n })).await?;
    Ok(call.join(&parts).await?.succeeded)
}

fn program() -> greenroom::Builder {
    Runtime::builder().agent::<Desk>().agent::<Sum>().tool_fn("spread", Effect::Idempotent, spread)
}

#[test]
fn a_turn_submits_under_a_key_once_and_fails_where_it_stands_for_another_request() -> Result<()> {
    testkit::run(program(), async |kit| {
        let desk = kit.agent::<Desk>("d");
        let send = |n: u64| Send { n, key: "k".into() };
        desk.ask(send(5)).await?;
        desk.ask(send(5)).await?;
        assert!(desk.ask(send(6)).await.is_err());
        kit.settle().await;
        assert_eq!((kit.state::<Desk>("d")?.turns, kit.state::<Sum>("a")?.n), (2, 5));
        Ok(())
    })
}

#[test]
fn a_function_fans_out_and_joins() -> Result<()> {
    testkit::run(program(), async |kit| {
        let input = Some(json!({"over": 10}));
        let request = TaskRequest { target: "tool:spread".into(), input, ..TaskRequest::default() };
        let id = kit.handle().operator().submit(request).await?.0.id;
        assert_eq!(kit.handle().wait::<Spread>(id).await?, Outcome::Succeeded(10));
        assert_eq!(kit.state::<Sum>("b")?.n, 55);
        Ok(())
    })
}
