//! The agents and tools of these tests.

use greenroom::prelude::*;

/// Adds up, reminds itself, writes letters.
#[derive(Default, Serialize, Deserialize, Debug, PartialEq)]
pub struct Tally {
    pub words: u64,
    pub sent: u64,
}

#[derive(Clone, Serialize, Deserialize, JsonSchema)]
pub struct Add {
    pub n: u64,
}
/// Adds one an hour later.
#[derive(Clone, Serialize, Deserialize, JsonSchema)]
pub struct Remind {
    pub hours: u64,
}
#[derive(Clone, Serialize, Deserialize, JsonSchema)]
pub struct Write {}
#[derive(Clone, Debug, Serialize, Deserialize, JsonSchema)]
pub struct Sleep {
    pub seconds: u64,
}
#[derive(Clone, Serialize, Deserialize, JsonSchema)]
pub struct Now {}
#[derive(Clone, Serialize, Deserialize, JsonSchema)]
pub struct Panic {}
/// Works for so long, and then asks another one.
#[derive(Clone, Serialize, Deserialize, JsonSchema)]
pub struct Pass {
    pub seconds: u64,
}
/// How many seconds it has.
#[derive(Clone, Serialize, Deserialize, JsonSchema)]
pub struct Left {}
message! { Pass -> u64; Left -> u64; Add -> u64; Remind -> (); Write -> (); Sleep -> (); Now -> i64; Panic -> () }

impl Agent for Tally {
    const KIND: &'static str = "tally";
    type Messages = (Add, Remind, Write, Sleep, Now, Panic, Done<Letter>, Pass, Left);
}

impl Handler<Add> for Tally {
    async fn handle(&mut self, add: Add, _: &Turn<Self>) -> Result<u64> {
        self.words += add.n;
        Ok(self.words)
    }
}
impl Handler<Remind> for Tally {
    async fn handle(&mut self, remind: Remind, turn: &Turn<Self>) -> Result<()> {
        let later = Duration::from_secs(3_600 * remind.hours);
        turn.agent::<Self>(turn.key()).submit(Add { n: 1 }).run_in(later);
        Ok(())
    }
}
impl Handler<Write> for Tally {
    async fn handle(&mut self, _: Write, turn: &Turn<Self>) -> Result<()> {
        turn.tool::<Post>().submit(Letter { to: turn.key().into() }).notify();
        Ok(())
    }
}
impl Handler<Done<Letter>> for Tally {
    async fn handle(&mut self, done: Done<Letter>, _: &Turn<Self>) -> Result<()> {
        if let Outcome::Succeeded(letters) = done.outcome {
            self.sent += letters;
        }
        Ok(())
    }
}
impl Handler<Sleep> for Tally {
    async fn handle(&mut self, sleep: Sleep, _: &Turn<Self>) -> Result<()> {
        tokio::time::sleep(Duration::from_secs(sleep.seconds)).await;
        self.words += 1;
        Ok(())
    }
}
impl Handler<Pass> for Tally {
    async fn handle(&mut self, pass: Pass, turn: &Turn<Self>) -> Result<u64> {
        tokio::time::sleep(Duration::from_secs(pass.seconds)).await;
        Ok(turn.agent::<Tally>("other").ask(Left {}).await?)
    }
}
impl Handler<Left> for Tally {
    async fn handle(&mut self, _: Left, turn: &Turn<Self>) -> Result<u64> {
        Ok(turn.deadline().map_or(u64::MAX, |left| left.as_secs()))
    }
}
impl Handler<Now> for Tally {
    async fn handle(&mut self, _: Now, turn: &Turn<Self>) -> Result<i64> {
        Ok(turn.now().as_second())
    }
}
impl Handler<Panic> for Tally {
    async fn handle(&mut self, _: Panic, _: &Turn<Self>) -> Result<()> {
        panic!("as it was told");
    }
}

/// A tool that must not be reached in a test.
pub struct Post;

#[derive(Clone, Serialize, Deserialize, JsonSchema)]
pub struct Letter {
    pub to: String,
}
message!(Letter -> u64);

impl Tool for Post {
    const NAME: &'static str = "post.send";
    const EFFECT: Effect = Effect::Idempotent;
    type Input = Letter;
    async fn run(&self, _: Letter, _: &Call) -> Result<u64> {
        bail!("the real post is shut")
    }
}

/// Forgets what it promised: its state is written under a name that is not read.
#[derive(Default, Serialize, Deserialize)]
pub struct Vague {
    #[serde(default, rename(serialize = "total"))]
    pub sum: u64,
}
impl Agent for Vague {
    const KIND: &'static str = "vague";
    type Messages = Add;
}
impl Handler<Add> for Vague {
    async fn handle(&mut self, add: Add, _: &Turn<Self>) -> Result<u64> {
        self.sum += add.n;
        Ok(self.sum)
    }
}

pub fn program() -> greenroom::Builder {
    Runtime::builder().agent::<Tally>().agent::<Vague>().tool(Post)
}
