//! The durable agent: a conversation's worth of state in 512 bytes, or in as many as one likes.

use greenroom::prelude::*;

#[derive(Clone, Serialize, Deserialize)]
struct Line {
    id: String,
    role: String,
    n: u32,
    text: String,
}

/// A document of 512 bytes of JSON.
#[derive(Clone, Serialize, Deserialize)]
pub struct Doc {
    pub turns: u64,
    status: String,
    lines: Vec<Line>,
    rest: String,
}

const BYTES: usize = 512;

impl Default for Doc {
    fn default() -> Self {
        let line = |n: u32| Line {
            id: format!("{:016x}", n * 77_777),
            role: "assistant".to_owned(),
            n: n * 1_000,
            text: "the agent calls a tool, and the user waits for a summary".to_owned(),
        };
        let mut doc = Self {
            turns: 0,
            status: "running".to_owned(),
            lines: (0..3).map(line).collect(),
            rest: String::new(),
        };
        doc.rest = "x".repeat(BYTES.saturating_sub(doc.json().len()));
        doc
    }
}

impl Doc {
    /// The work of a turn.
    pub fn bump(&mut self) -> u64 {
        self.turns += 1;
        let n = self.lines.len().max(1);
        if let Some(line) = self.lines.get_mut(self.turns as usize % n) {
            line.n = self.turns as u32;
        }
        self.turns
    }

    /// Becomes a document of so many bytes, of words and numbers as conversations have them.
    fn grow(&mut self, bytes: usize) {
        let mut dice = fastrand::Rng::with_seed(bytes as u64);
        self.lines.clear();
        self.rest.clear();
        loop {
            let n = self.lines.len() as u32;
            let words = dice.usize(6..24);
            let role = if n.is_multiple_of(2) { "user" } else { "assistant" };
            let id = format!("{:016x}", dice.u64(..));
            self.lines.push(Line {
                id,
                role: role.to_owned(),
                n: dice.u32(..50_000),
                text: words_of(&mut dice, words),
            });
            if self.json().len() > bytes {
                self.lines.pop();
                break;
            }
        }
        let left = bytes.saturating_sub(self.json().len());
        let mut rest = words_of(&mut dice, left / 2);
        rest.truncate(left);
        self.rest = rest;
    }

    pub fn json(&self) -> Vec<u8> {
        serde_json::to_vec(self).unwrap_or_default()
    }
}

/// What people and agents talk about.
const WORDS: &str = "the a of to and in for on with is are was be it this that you we they what which when how \
    file order invoice customer report weather budget meeting calendar search result answer question tool call \
    error retry summary draft email reply account price total delivery Berlin Tuesday March please thanks could \
    would should check find write send open close compare explain again before after because however found \
    missing updated approved rejected pending next last three seven twelve 2026 10:45 https://example.org/docs";

fn words_of(dice: &mut fastrand::Rng, n: usize) -> String {
    let all: Vec<&str> = WORDS.split_whitespace().collect();
    (0..n).map(|_| all[dice.usize(..all.len())]).collect::<Vec<_>>().join(" ")
}

#[derive(Clone, Serialize, Deserialize, JsonSchema)]
pub struct Bump {}

/// Makes the document as large as that.
#[derive(Clone, Serialize, Deserialize, JsonSchema)]
pub struct Grow {
    pub bytes: usize,
}

/// Reads; nothing is committed.
#[derive(Clone, Serialize, Deserialize, JsonSchema)]
pub struct Turns {}
message!(Bump -> u64; Turns -> u64; Grow -> ());

impl Agent for Doc {
    const KIND: &'static str = "doc";
    type Messages = (Bump, Turns, Grow);
    fn policy() -> Policy {
        Policy::default().idle_timeout(Duration::from_secs(3_600)).mailbox(1_024)
    }
}

impl Handler<Bump> for Doc {
    async fn handle(&mut self, _: Bump, _: &Turn<Self>) -> Result<u64> {
        Ok(self.bump())
    }
}

impl Handler<Grow> for Doc {
    async fn handle(&mut self, grow: Grow, _: &Turn<Self>) -> Result<()> {
        self.grow(grow.bytes);
        Ok(())
    }
}

impl Query<Turns> for Doc {
    async fn query(&self, _: Turns, _: &Turn<Self>) -> Result<u64> {
        Ok(self.turns)
    }
}
