//! `logs`: the last records, and new ones.

use std::time::Duration;

use clap::Args;
use jiff::Timestamp;
use serde::Deserialize;
use serde_json::Value;

use super::{
    Session,
    client::{Client, query},
    exit::{Exit, Failure},
    input,
    out::{self, Paint},
};
use crate::{
    log::Record,
    model::{event::Level, units::print_duration},
};

/// How long one request waits for news.
const WAIT: Duration = Duration::from_secs(20);
/// How long to wait before a node that has gone is asked again.
const PAUSE: Duration = Duration::from_secs(1);

#[derive(Debug, Args)]
pub(super) struct LogsArgs {
    /// Follow new records, also across restarts of the node
    #[arg(short = 'f', long)]
    pub follow: bool,
    /// The last N records [default: 100; with --since all that are kept]
    #[arg(short = 'n', long = "tail", value_name = "N")]
    pub tail: Option<usize>,
    /// This level and above
    #[arg(long, value_name = "LEVEL")]
    pub level: Option<Level>,
    /// Only about this subject (KIND/KEY, tool:NAME, task:ID)
    #[arg(long, value_name = "SUBJECT")]
    pub subject: Option<String>,
    /// Only records from within this time
    #[arg(long, value_name = "TIME", value_parser = input::duration)]
    pub since: Option<Duration>,
    /// One JSON document per line
    #[arg(long)]
    pub jsonl: bool,
}

/// How many are shown where nothing says so.
const TAIL: usize = 100;

#[derive(Debug, Deserialize)]
struct Found {
    items: Vec<Value>,
    /// Absent at an older node, whose numbers stand alone.
    boot: Option<String>,
    last: u64,
}

impl Found {
    /// Where to go on. Numbers begin anew with each boot.
    fn place(&self) -> String {
        let boot = self.boot.as_ref().map(|boot| format!("{boot}:"));
        format!("{}{}", boot.unwrap_or_default(), self.last)
    }
}

pub(super) fn logs(session: &Session<'_>, args: &LogsArgs) -> Result<(), Failure> {
    let client = session.client()?;
    let filter = [("level", args.level.map(|level| level.to_string())), ("subject", args.subject.clone())];
    // How many of them are young enough is seen when they are here.
    let asked = if args.since.is_some() { usize::MAX } else { args.tail.unwrap_or(TAIL) };
    let first = query(&[&filter[..], &[("tail", Some(asked.to_string()))]].concat());
    let reply = client.get(&format!("/api/v1/logs{first}"))?;
    let mut found: Found = reply.read()?;
    let youngest = args.since.map(|since| {
        let millis = i64::try_from(since.as_millis()).unwrap_or(i64::MAX);
        Timestamp::now().as_millisecond().saturating_sub(millis)
    });
    found.items.retain(|item| {
        youngest.is_none_or(|youngest| item.get("ts").and_then(Value::as_i64).unwrap_or_default() >= youngest)
    });
    let surplus = found.items.len().saturating_sub(args.tail.unwrap_or(usize::MAX));
    found.items.drain(..surplus);
    if session.json() && !args.follow && !args.jsonl {
        let mut document: Value = reply.read()?;
        if let Some(items) = document.get_mut("items") {
            *items = found.items.into();
        }
        return Ok(out::json(document.to_string().as_bytes())?);
    }
    let as_json = args.jsonl || session.json();
    print(&found.items, as_json)?;
    if args.follow { follow(session, &client, &filter, found.place(), as_json) } else { Ok(()) }
}

/// Goes on for ever, also when the node has been started again.
fn follow(
    session: &Session<'_>,
    client: &Client,
    filter: &[(&str, Option<String>)],
    mut place: String,
    as_json: bool,
) -> Result<(), Failure> {
    let mut gone = false;
    loop {
        let news = [("after", Some(place.clone())), ("wait", Some(print_duration(WAIT)))];
        let next = query(&[filter, &news].concat());
        match client.get_within(&format!("/api/v1/logs{next}"), WAIT * 2) {
            Ok(reply) => {
                gone = false;
                let found: Found = reply.read()?;
                print(&found.items, as_json)?;
                place = found.place();
            }
            Err(failure) if matches!(failure.exit, Exit::Unreachable | Exit::TimedOut | Exit::Busy) => {
                if !gone {
                    let program = session.program;
                    out::note(&format!(
                        "the node does not answer; waiting until `{program} run` brings it back"
                    ));
                }
                gone = true;
                std::thread::sleep(PAUSE);
            }
            Err(failure) => return Err(failure),
        }
    }
}

fn print(items: &[Value], as_json: bool) -> Result<(), Failure> {
    let colour = Paint::of_stdout().is_on();
    for item in items {
        if as_json {
            out::line(&item.to_string())?;
        } else {
            let mut record = Record::from_json(item);
            record.fields.remove("seq");
            out::line(&record.console(colour))?;
        }
    }
    Ok(())
}
