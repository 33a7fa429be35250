//! Many tasks from one turn: each outcome comes back as `Done`, the end of all of them as `Joined`.
//! The second message makes several calls out of one turn at the same time.
//!
//! ```text
//! cargo run --example fanout -- run
//! cargo run --example fanout -- agents send crew/a Start '{"paths":["Cargo.toml","README.md"]}'
//! cargo run --example fanout -- tasks ls
//! ```

use greenroom::prelude::*;

#[derive(Clone, Serialize, Deserialize, JsonSchema)]
struct Start {
    paths: Vec<String>,
}

#[derive(Clone, Serialize, Deserialize, JsonSchema)]
struct Read {
    path: String,
}

message! { Start -> (); Read -> u64 }

#[derive(Default, Serialize, Deserialize)]
struct Crew {
    words: u64,
    pending: u64,
}

impl Agent for Crew {
    const KIND: &'static str = "crew";
    type Messages = (Start, Probe, Done<Read>, Joined<Read>);
}

impl Handler<Start> for Crew {
    async fn handle(&mut self, s: Start, turn: &Turn<Self>) -> Result<()> {
        turn.tool::<Reader>()
            .submit_all(s.paths.into_iter().map(|path| Read { path }))
            .max_attempts(3)
            .notify_each()
            .notify_joined();
        Ok(())
    }
}

impl Handler<Done<Read>> for Crew {
    async fn handle(&mut self, d: Done<Read>, _: &Turn<Self>) -> Result<()> {
        if let Outcome::Succeeded(n) = d.outcome {
            self.words += n
        }
        Ok(())
    }
}

impl Handler<Joined<Read>> for Crew {
    async fn handle(&mut self, j: Joined<Read>, _: &Turn<Self>) -> Result<()> {
        println!("{} read, {} failed", j.succeeded, j.failed);
        Ok(())
    }
}

#[derive(Clone, Serialize, Deserialize, JsonSchema)]
struct Probe {
    hosts: Vec<String>,
}

message!(Probe -> u64);
// `Turn` takes `&self`: several calls of one turn may be awaited together.
impl Handler<Probe> for Crew {
    async fn handle(&mut self, p: Probe, turn: &Turn<Self>) -> Result<u64> {
        let all = futures_util::future::join_all(
            p.hosts.iter().map(|h| turn.tool::<Reader>().call(Read { path: h.clone() })),
        )
        .await;
        let (a, b) = tokio::join!(
            turn.tool::<Reader>().call(Read { path: "a".into() }),
            turn.agent::<Crew>("b").ask(Probe { hosts: vec![] })
        );
        self.pending += all.len() as u64;
        Ok(a? + b?)
    }
}

struct Reader;

impl Tool for Reader {
    const NAME: &'static str = "read";
    const EFFECT: Effect = Effect::Pure;
    type Input = Read;
    async fn run(&self, r: Read, _: &Call) -> Result<u64> {
        Ok(tokio::fs::read_to_string(r.path).await.context("read")?.split_whitespace().count() as u64)
    }
}

fn main() -> ExitCode {
    Runtime::builder().agent::<Crew>().tool(Reader).main()
}
