//! The durable agent: a conversation's worth of state in 512 bytes.

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

    pub fn json(&self) -> Vec<u8> {
        serde_json::to_vec(self).unwrap_or_default()
    }
}

#[derive(Clone, Serialize, Deserialize, JsonSchema)]
pub struct Bump {}

/// Reads; nothing is committed.
#[derive(Clone, Serialize, Deserialize, JsonSchema)]
pub struct Turns {}
message!(Bump -> u64; Turns -> u64);

impl Agent for Doc {
    const KIND: &'static str = "doc";
    type Messages = (Bump, Turns);
    fn policy() -> Policy {
        Policy::default().idle_timeout(Duration::from_secs(3_600)).mailbox(1_024)
    }
}

impl Handler<Bump> for Doc {
    async fn handle(&mut self, _: Bump, _: &Turn<Self>) -> Result<u64> {
        Ok(self.bump())
    }
}

impl Query<Turns> for Doc {
    async fn query(&self, _: Turns, _: &Turn<Self>) -> Result<u64> {
        Ok(self.turns)
    }
}
