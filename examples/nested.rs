//! Messages in groups, a query, asks between agents, and code that is generic over whoever takes a
//! message.
//!
//! ```text
//! cargo run --example nested -- run
//! cargo run --example nested -- agents send x/one A
//! ```

use greenroom::prelude::*;

#[derive(Clone, Serialize, Deserialize, JsonSchema)]
struct A {}
#[derive(Clone, Serialize, Deserialize, JsonSchema)]
struct B {}
#[derive(Clone, Serialize, Deserialize, JsonSchema)]
struct C {}
message! { A -> u8; B -> u8; C -> u8 }

#[derive(Default, Serialize, Deserialize)]
struct X {}
impl Agent for X {
    const KIND: &'static str = "x";
    type Messages = ((A, B), (C,));
}

impl Handler<A> for X {
    async fn handle(&mut self, _: A, t: &Turn<Self>) -> Result<u8> {
        let there = t.agent::<X>("y").ask(C {}).await?;
        // A turn that waits for its own agent would wait for ever: it is refused at once.
        match t.at(&t.me()).ask(B {}).await {
            Err(AskError::Cycle(_)) => Ok(there),
            other => Ok(there + other?),
        }
    }
}

impl Handler<B> for X {
    async fn handle(&mut self, _: B, _: &Turn<Self>) -> Result<u8> {
        Ok(1)
    }
}

impl Query<C> for X {
    async fn query(&self, _: C, _: &Turn<Self>) -> Result<u8> {
        Ok(1)
    }
}

/// Asks any kind of agent that takes `A`.
async fn ask_any<G: greenroom::Accepts<A, I>, I>(h: Handle) -> Result<u8> {
    Ok(h.agent::<G>("k").ask(A {}).await?)
}

fn main() -> ExitCode {
    Runtime::builder()
        .agent::<X>()
        .on_ready(|handle| async move {
            println!("{}", ask_any::<X, _>(handle).await?);
            Ok(())
        })
        .main()
}
