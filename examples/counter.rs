//! The smallest agent: one field of state, one message.
//!
//! ```text
//! cargo run --example counter -- run
//! cargo run --example counter -- agents send tally/me Add '{"text":"one two"}'
//! ```
//!
//! Kill the first process with `kill -9`, start it again, ask again: the count goes on.

use greenroom::prelude::*;

/// Counts the words it is sent, and never loses one.
#[derive(Default, Serialize, Deserialize)]
struct Tally {
    words: u64,
}

#[derive(Clone, Serialize, Deserialize, JsonSchema)]
struct Add {
    text: String,
}

message!(Add -> u64);

impl Agent for Tally {
    const KIND: &'static str = "tally";
    type Messages = Add;
}

impl Handler<Add> for Tally {
    async fn handle(&mut self, add: Add, _: &Turn<Self>) -> Result<u64> {
        self.words += add.text.split_whitespace().count() as u64;
        Ok(self.words)
    }
}

fn main() -> ExitCode {
    Runtime::builder().agent::<Tally>().main()
}
