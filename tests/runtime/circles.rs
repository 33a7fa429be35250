//! Circles of those who wait for each other, with tools among them: they are refused at once, with who waits for whom.

use greenroom::{Call, Effect, Limits, Tool, prelude::*};

use crate::support::{World, outcome, soon};

/// Goes through these, in their order: `a` and `b` are agents, `one` and `two` tools.
#[derive(Clone, Serialize, Deserialize, JsonSchema)]
struct Go {
    through: Vec<String>,
}
message!(Go -> ());

macro_rules! hop {
    ($door:expr, $go:expr) => {{
        let mut through = $go.through;
        if through.is_empty() {
            return Ok(());
        }
        let next = through.remove(0);
        let go = Go { through };
        match &*next {
            "one" => $door.call_tool::<One>(go).await?,
            "two" => $door.call_tool::<Two>(go).await?,
            key => $door.agent::<Hopper>(key).ask(go).await?,
        }
        Ok(())
    }};
}

/// A turn and a call say it differently.
trait Door {
    fn call_tool<T: Tool<Input = Go>>(&self, go: Go) -> impl Future<Output = Result<()>> + Send;
}
impl Door for Turn<Hopper> {
    async fn call_tool<T: Tool<Input = Go>>(&self, go: Go) -> Result<()> {
        Ok(self.tool::<T>().call(go).await?)
    }
}
impl Door for Call {
    async fn call_tool<T: Tool<Input = Go>>(&self, go: Go) -> Result<()> {
        Ok(self.call::<T>(go).await?)
    }
}

#[derive(Default, Serialize, Deserialize)]
struct Hopper {}
impl Agent for Hopper {
    const KIND: &'static str = "hopper";
    type Messages = Go;
}
impl Handler<Go> for Hopper {
    async fn handle(&mut self, go: Go, turn: &Turn<Self>) -> Result<()> {
        hop!(turn, go)
    }
}

macro_rules! tool {
    ($Tool:ident, $name:literal, $concurrency:literal) => {
        struct $Tool;
        impl Tool for $Tool {
            const NAME: &'static str = $name;
            const EFFECT: Effect = Effect::Idempotent;
            type Input = Go;
            fn limits(&self) -> Limits {
                Limits { concurrency: Some($concurrency), ..Limits::default() }
            }
            async fn run(&self, go: Go, call: &Call) -> Result<()> {
                hop!(call, go)
            }
        }
    };
}
tool!(One, "one", 1);
tool!(Two, "two", 2);

fn go(through: &str) -> Go {
    Go { through: through.split_whitespace().map(str::to_owned).collect() }
}

async fn world() -> World {
    World::start(Runtime::builder().agent::<Hopper>().tool(One).tool(Two)).await
}

/// Each waited until its deadline.
#[tokio::test(flavor = "multi_thread")]
async fn a_circle_through_a_tool_is_refused_at_once_and_shown() {
    let world = world().await;
    let handle = world.handle();
    for (through, circle) in [
        ("one one", "tool:one asks tool:one"),
        ("one a one", "tool:one asks hopper/a asks tool:one"),
        ("one two one", "tool:one asks tool:two asks tool:one"),
        ("two two two", "tool:two asks tool:two asks tool:two"),
    ] {
        let error = soon(handle.agent::<Hopper>("b").ask(go(through))).await.unwrap_err();
        assert!(error.to_string().contains(&format!("ask cycle: hopper/b asks {circle}")), "{error}");
        let task = soon(handle.tool::<Two>().submit(go(through)).max_attempts(1)).await.unwrap();
        let ended = outcome::<Go>(&handle, task).await;
        let Outcome::Failed(fault) = ended else { panic!("{through}: {ended:?}") };
        assert!(fault.message.contains("ask cycle: tool:two asks "), "{fault}");
    }
    let error = soon(handle.agent::<Hopper>("a").ask(go("one a"))).await.unwrap_err();
    assert!(error.to_string().contains("ask cycle: hopper/a asks tool:one asks hopper/a"), "{error}");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_tool_with_a_place_left_may_come_back_to_itself() {
    let world = world().await;
    let handle = world.handle();
    for through in ["two two", "two a two", "one", "two one"] {
        assert_eq!(soon(handle.agent::<Hopper>("b").ask(go(through))).await, Ok(()));
    }
    let task = soon(handle.tool::<Two>().submit(go("a two one"))).await.unwrap();
    assert_eq!(outcome::<Go>(&handle, task).await, Outcome::Succeeded(()));
}
