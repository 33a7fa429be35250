//! The ledger: entries are sent to an agent while the node is being killed; acknowledged ones are recorded here,
//! and compared with the agent's list at the end.

use std::{
    collections::HashMap,
    fs::{self, File},
    io::Write as _,
    path::{Path, PathBuf},
    thread::JoinHandle,
    time::{Duration, Instant},
};

use anyhow::Context as _;
use serde_json::{Value, json};

use super::{Failure, client::Client, stop::Stop};

const AGENT: &str = "counter/ledger";
/// At most so many entries: the agent's list is its state.
const MAX_ENTRIES: usize = 2_000;
/// Between two entries.
const PAUSE: Duration = Duration::from_millis(15);

/// Entries under way.
pub(super) struct Ledger {
    file: PathBuf,
    stop: Stop,
    writer: JoinHandle<Result<(), Failure>>,
}

/// What the comparison says.
#[derive(Debug, Default, PartialEq, Eq)]
pub(super) struct Balance {
    /// Entries that were acknowledged.
    pub acknowledged: u64,
    /// Of those, the ones that the agent does not have.
    pub lost: u64,
    /// How many entries the agent has more than once, counting each surplus.
    pub twice: u64,
}

impl Ledger {
    /// Begins to send entries, each until it is acknowledged: every other one as an ask, whose
    /// turn has committed, the rest as durable tasks, which were accepted.
    pub fn open(client: Client, data: &Path) -> anyhow::Result<Self> {
        let file = data.join("demo-ledger");
        let mut out = File::options().create(true).append(true).open(&file).context("the ledger")?;
        let before = acknowledged(&file).len();
        let stop = Stop::default();
        let stopped = stop.clone();
        let writer = std::thread::Builder::new().name("ledger".into()).spawn(move || {
            for n in before..MAX_ENTRIES {
                let id = uuid::Uuid::now_v7().simple().to_string();
                let how = if n % 2 == 0 { "ask" } else { "submit" };
                client.send(AGENT, "Append", &json!({ "id": id }), &id, how)?.ok().context("the ledger")?;
                writeln!(out, "{id}").context("the ledger")?;
                if stopped.wait(PAUSE) {
                    break;
                }
            }
            Ok(())
        })?;
        Ok(Self { file, stop, writer })
    }

    /// Sends no further entry and compares.
    pub fn close(self, client: &Client) -> Result<Balance, Failure> {
        self.stop.raise();
        self.writer.join().map_err(|_| anyhow::anyhow!("the ledger's thread panicked"))??;
        let mine = acknowledged(&self.file);
        let start = Instant::now();
        loop {
            let theirs = client.query(AGENT, "List", &Value::Null)?;
            let balance =
                compare(&mine, theirs.get("ids").and_then(Value::as_array).map_or(&[], Vec::as_slice));
            // Accepted tasks may still be under way.
            if balance.lost == 0 || start.elapsed() > Duration::from_secs(30) {
                return Ok(balance);
            }
            std::thread::sleep(PAUSE);
        }
    }
}

fn acknowledged(file: &Path) -> Vec<String> {
    let text = fs::read_to_string(file).unwrap_or_default();
    // A line without its end was cut short when the demo was killed whole.
    text.split_inclusive('\n').filter_map(|line| line.strip_suffix('\n')).map(str::to_owned).collect()
}

fn compare(mine: &[String], theirs: &[Value]) -> Balance {
    let mut times: HashMap<&str, u64> = HashMap::new();
    for id in theirs.iter().filter_map(Value::as_str) {
        *times.entry(id).or_default() += 1;
    }
    Balance {
        acknowledged: mine.len() as u64,
        lost: mine.iter().filter(|id| !times.contains_key(id.as_str())).count() as u64,
        twice: times.values().map(|n| n - 1).sum(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_missing_and_what_is_there_twice_is_seen() {
        let mine = ["a", "b", "c"].map(str::to_owned);
        let theirs = [json!("c"), json!("a"), json!("never acknowledged"), json!("a"), json!("a")];
        assert_eq!(compare(&mine, &theirs), Balance { acknowledged: 3, lost: 1, twice: 2 });
    }
}
