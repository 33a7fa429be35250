//! What an agent needs and does not remember: a resource of the whole program, and a file of its
//! own that `on_start` opens after every restore.
//!
//! ```text
//! cargo run --example resource -- run
//! cargo run --example resource -- agents send journal/notes.txt Line '{"text":"hello"}'
//! ```

use greenroom::prelude::*;
use std::{fs::File, io::Write};

#[derive(Clone, Serialize, Deserialize, JsonSchema)]
struct Line {
    text: String,
}

message!(Line -> u64);

struct Db(String);

#[derive(Default, Serialize, Deserialize)]
struct Journal {
    lines: u64,
    #[serde(skip)]
    file: Option<File>,
}

impl Agent for Journal {
    const KIND: &'static str = "journal";
    type Messages = Line;
    async fn on_start(&mut self, turn: &Turn<Self>) -> Result<()> {
        self.file = Some(File::options().append(true).create(true).open(turn.key())?);
        Ok(())
    }
}

impl Handler<Line> for Journal {
    async fn handle(&mut self, l: Line, turn: &Turn<Self>) -> Result<u64> {
        writeln!(self.file.as_mut().context("on_start opens it")?, "{} {}", turn.resource::<Db>().0, l.text)?;
        self.lines += 1;
        Ok(self.lines)
    }
}

fn main() -> ExitCode {
    Runtime::builder().resource(Db("x".into())).agent::<Journal>().main()
}
