//! `events`: the last events, and new ones.

use std::{
    io::BufReader,
    sync::mpsc::{self, Receiver},
    time::Duration,
};

use clap::Args;
use jiff::Timestamp;
use serde_json::Value;

use super::{
    Session,
    client::{Client, query},
    exit::{Exit, Failure},
    input,
    limit::Rest,
    out::{self, Paint},
    sse::{Frame, Frames},
};
use crate::log::Record;

/// A stream that says nothing for so long, not even that it is there, has broken off.
const SILENCE: Duration = Duration::from_secs(45);
/// How long to wait before a node that has gone is asked again.
const PAUSE: Duration = Duration::from_secs(1);
/// How many of the last events come before those that follow.
const TAIL: usize = 10;

#[derive(Debug, Args)]
pub(super) struct EventsArgs {
    /// Follow new events, also across restarts of the node
    #[arg(short = 'f', long)]
    pub follow: bool,
    /// The last N events [default: all that are kept; with --follow 10]
    #[arg(short = 'n', long = "tail", value_name = "N")]
    pub tail: Option<usize>,
    /// Only about this subject (KIND/KEY, tool:NAME, task:ID; a trailing `*` matches a prefix)
    #[arg(long, value_name = "SUBJECT")]
    pub subject: Option<String>,
    /// Only these events (`agent.crashed,task.*`)
    #[arg(long, value_name = "EVENT")]
    pub event: Option<String>,
    /// Only events from within this time
    #[arg(long, value_name = "TIME", value_parser = input::duration)]
    pub since: Option<Duration>,
    /// One JSON document per line
    #[arg(long)]
    pub jsonl: bool,
}

pub(super) fn events(session: &Session<'_>, args: &EventsArgs) -> Result<(), Failure> {
    let client = session.client()?;
    let youngest = args.since.map(|since| {
        let millis = i64::try_from(since.as_millis()).unwrap_or(i64::MAX);
        Timestamp::now().as_millisecond().saturating_sub(millis)
    });
    let tail = match (args.tail, args.since, args.follow) {
        (Some(tail), ..) => Some(tail),
        (None, None, true) => Some(TAIL),
        // All of them; `since` says which.
        (None, Some(_), true) => Some(usize::MAX),
        (None, _, false) => None,
    };
    let path = |follow: bool| {
        let pairs = [
            ("event", args.event.clone()),
            ("subject", args.subject.clone()),
            ("tail", tail.map(|tail| tail.to_string())),
            ("follow", (!follow).then(|| "false".to_owned())),
        ];
        format!("/api/v1/events{}", query(&pairs))
    };
    let is_young = |event: &Value| {
        let at = event.get("ts").and_then(Value::as_i64).unwrap_or_default();
        youngest.is_none_or(|youngest| at >= youngest)
    };
    let shown = Shown { as_json: args.jsonl || session.json(), colour: Paint::of_stdout().is_on() };
    if args.follow {
        return follow(session, &client, &path(true), &|event| {
            if is_young(event) { shown.event(event) } else { Ok(()) }
        });
    }
    let mut kept = Vec::new();
    for frame in Frames::new(BufReader::new(client.stream(&path(false), None)?)) {
        let frame = frame.map_err(|error| client.broke_off(&error))?;
        kept.extend(event(&frame).filter(is_young));
    }
    if session.json() && !args.jsonl {
        return Ok(Rest::Nothing.json(&kept)?);
    }
    if kept.is_empty() {
        out::note("no such events are kept: -f waits for the next");
    }
    kept.iter().try_for_each(|event| shown.event(event))
}

/// Goes on for ever, also when the node has been started again.
fn follow(
    session: &Session<'_>,
    client: &Client,
    path: &str,
    show: &dyn Fn(&Value) -> Result<(), Failure>,
) -> Result<(), Failure> {
    let (mut seen, mut gone) = (None, false);
    loop {
        match client.stream(path, seen.as_deref()) {
            Ok(stream) => {
                let frames = read(stream);
                // A stream that has ended or is silent is asked for anew.
                while let Some(frame) = next(&frames) {
                    gone = false;
                    if frame.event == "gap" {
                        out::note("some events were missed");
                    } else if let Some(event) = event(&frame) {
                        show(&event)?;
                    }
                    seen = Some(frame.id).filter(|id| !id.is_empty());
                }
            }
            Err(failure) if matches!(failure.exit, Exit::Unreachable | Exit::TimedOut | Exit::Busy) => {
                if !gone {
                    let program = session.program;
                    out::note(&format!(
                        "the node does not answer; waiting until `{program} run` brings it back"
                    ));
                }
                gone = true;
            }
            Err(failure) => return Err(failure),
        }
        std::thread::sleep(PAUSE);
    }
}

/// Reads a stream on a thread of its own, so that silence is noticed.
fn read(stream: impl std::io::Read + Send + 'static) -> Receiver<Frame> {
    let (tell, frames) = mpsc::sync_channel(64);
    std::thread::spawn(move || {
        for frame in Frames::new(BufReader::new(stream)).map_while(Result::ok) {
            if tell.send(frame).is_err() {
                return;
            }
        }
    });
    frames
}

fn next(frames: &Receiver<Frame>) -> Option<Frame> {
    frames.recv_timeout(SILENCE).ok()
}

/// The event of a frame that has one.
fn event(frame: &Frame) -> Option<Value> {
    if frame.event == "gap" { None } else { serde_json::from_str(&frame.data).ok() }
}

struct Shown {
    as_json: bool,
    colour: bool,
}

impl Shown {
    fn event(&self, event: &Value) -> Result<(), Failure> {
        let text =
            if self.as_json { event.to_string() } else { Record::from_json(event).console(self.colour) };
        Ok(out::line(&text)?)
    }
}
