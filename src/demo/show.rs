//! The steps of a demo, in order.

use std::time::Duration;

use anyhow::Context as _;
use serde_json::{Value, json};

use super::{
    Failure, Options,
    client::Client,
    ground::Ground,
    ledger::Ledger,
    node::Node,
    proof::{Counts, Proof},
    recount,
    screen::{Screen, thousands},
    stop::Stop,
};

/// How often the agents are asked how far they are.
const POLL: Duration = Duration::from_millis(50);
/// What the agent that panics has counted before.
const TOTAL: i64 = 42;
const PROBE: &str = "counter/demo";

/// Runs it; true: the agents were right.
pub(super) fn run(options: &Options, screen: &Screen) -> Result<bool, Failure> {
    let stop = Stop::on_signals()?;
    let ground = Ground::choose(options)?;
    let mut show = Show::open(options, ground, screen, stop)?;
    let played = show.play();
    screen.clear();
    let proved = match played {
        Ok(proved) => proved,
        Err(failure @ Failure::Interrupted) => {
            show.close();
            return Err(failure);
        }
        // What broke stays there to be looked at.
        Err(failure) => return Err(failure),
    };
    if !options.once {
        show.linger()?;
    }
    show.close();
    Ok(proved)
}

struct Show<'a> {
    ground: Ground,
    screen: &'a Screen,
    stop: Stop,
    node: Node,
    /// How many files there are to read.
    all: u64,
    /// When it is to be killed, and when an agent is to panic: at so many files, last first.
    kills: Vec<u64>,
    panic: Option<u64>,
}

impl<'a> Show<'a> {
    fn open(options: &Options, ground: Ground, screen: &'a Screen, stop: Stop) -> Result<Self, Failure> {
        let all = recount::candidates(&ground.dir, ground.limit).len() as u64;
        if all == 0 {
            return Err(Failure::Usage(format!("{} holds no file to read", ground.dir.display())));
        }
        screen.line(&format!("{} files below {}", thousands(all), ground.dir.display()));
        screen.line(&format!("data in {}", ground.data.display()));
        if ground.found_again {
            screen.line("an earlier demo was cut short here: going on");
        }
        let node = Node::start(&ground, &stop)?;
        screen.line(&format!("node {} at {}, log in {}", node.pid(), node.client.url, node.log().display()));
        let (kills, panic) =
            plan(all, options.kills.saturating_sub(ground.past.kills), ground.past.panics == 0);
        Ok(Self { ground, screen, stop, node, all, kills, panic })
    }

    fn librarian(&self) -> String {
        format!("librarian/{}", self.ground.collection())
    }

    fn play(&mut self) -> Result<bool, Failure> {
        self.ingest()?;
        let added = self.node.client.send(PROBE, "Add", &json!({ "n": TOTAL }), "demo-add", "ask")?;
        added.ok().context("the probe")?;
        let ledger = Ledger::open(self.node.client.clone(), &self.ground.data)?;
        self.until_read()?;
        let balance = ledger.close(&self.node.client)?;
        let report = self.node.client.query(&self.librarian(), "Report", &Value::Null)?;
        let total = self.node.client.query(PROBE, "Get", &Value::Null)?;
        self.screen.clear();
        let proof = Proof {
            agents: Counts::of(&report),
            recount: recount::recount(&self.ground.dir, self.ground.limit),
            balance,
            kills: self.ground.past.kills,
            panics: self.ground.past.panics,
            restored: total.get("total").and_then(Value::as_i64) == Some(TOTAL),
        };
        self.screen.line("");
        self.screen.proof(&proof.table());
        if let Some(problem) = report.get("problem").and_then(Value::as_str) {
            self.screen.line(&format!("the last failure: {problem}"));
        }
        let found = self.search()?;
        Ok(proof.holds() && found)
    }

    fn ingest(&self) -> Result<(), Failure> {
        let body = json!({ "path": self.ground.dir, "limit": self.ground.limit });
        let answer = self.node.client.send(&self.librarian(), "Ingest", &body, "demo-ingest", "ask")?;
        // A demo that goes on after a day finds its key forgotten and its tree taken.
        if answer.code() != "refused" {
            answer.ok().context("Ingest")?;
        }
        Ok(())
    }

    /// Watches until everything is read, and disturbs.
    fn until_read(&mut self) -> Result<(), Failure> {
        loop {
            let counts = Counts::of(&self.node.client.query(&self.librarian(), "Report", &Value::Null)?);
            let done = counts.done + counts.failed;
            self.screen.progress(done, self.all, "");
            let over = counts.pending == 0;
            if self.panic.is_some_and(|at| over || done >= at) {
                self.panic = None;
                self.make_panic()?;
            } else if self.kills.last().is_some_and(|at| over || done >= *at) {
                self.kills.pop();
                self.kill(done)?;
            } else if over {
                return Ok(());
            }
            if self.stop.wait(POLL) {
                return Err(Failure::Interrupted);
            }
            self.revive()?;
        }
    }

    fn kill(&mut self, done: u64) -> Result<(), Failure> {
        std::thread::sleep(Duration::from_millis(fastrand::u64(0..200)));
        let pid = self.node.pid();
        self.ground.past.kills += 1;
        self.ground.remember()?;
        self.node.kill();
        self.screen.progress(done, self.all, "(node killed)");
        self.screen.line(&format!("kill -9 {pid}, at {} of {} files", thousands(done), thousands(self.all)));
        self.start_again()
    }

    fn start_again(&mut self) -> Result<(), Failure> {
        let took = self.node.start_again()?;
        let ms = took.as_millis();
        self.screen.line(&format!("node {} on the same data, ready in {ms} ms", self.node.pid()));
        Ok(())
    }

    /// If somebody else killed the node, starts it again; says whether it did.
    fn revive(&mut self) -> Result<bool, Failure> {
        if !self.node.has_ended() {
            return Ok(false);
        }
        self.screen.line(&format!("node {} is gone", self.node.pid()));
        self.ground.past.kills += 1;
        self.ground.remember()?;
        self.start_again()?;
        Ok(true)
    }

    fn make_panic(&mut self) -> Result<(), Failure> {
        self.node.news(); // only what comes now is its report
        let body = json!({ "message": "the demo asked for a panic" });
        let key = format!("demo-crash-{}", fastrand::u64(..));
        let answer = self.node.client.send(PROBE, "Crash", &body, &key, "ask")?;
        if answer.code() != "handler_crashed" {
            return Err(anyhow::anyhow!("the panic was answered {} {}", answer.status, answer.body).into());
        }
        self.ground.past.panics += 1;
        self.ground.remember()?;
        self.screen.line(&format!("{PROBE} panicked; the log says:"));
        // The next answer comes from the restarted agent, so the report is complete then.
        self.node.client.query(PROBE, "Get", &Value::Null)?;
        std::thread::sleep(POLL * 4); // it is written by a thread of its own
        for line in about(PROBE, self.node.news()) {
            self.screen.line(&format!("  {line}"));
        }
        Ok(())
    }

    /// Searches for what stands in a random file; true if it is found.
    fn search(&self) -> Result<bool, Failure> {
        let mut files = recount::candidates(&self.ground.dir, self.ground.limit);
        fastrand::shuffle(&mut files);
        let Some(phrase) = files.iter().take(200).filter_map(|f| recount::text(f)).find_map(|t| telling(&t))
        else {
            return Ok(true); // nothing in there is worth a search
        };
        let body = json!({ "query": phrase, "limit": 3 });
        let found = self.node.client.query(&self.librarian(), "Search", &body)?;
        let hits = found.get("hits").and_then(Value::as_array).map_or(&[] as &[Value], Vec::as_slice);
        self.screen.line(&format!("\nsearch \"{phrase}\""));
        let mut is_there = false;
        for hit in hits {
            let text = |name| hit.get(name).and_then(Value::as_str).unwrap_or_default();
            let line = hit.get("line").and_then(Value::as_u64).unwrap_or(0);
            let path = text("path").strip_prefix(&*self.ground.dir.to_string_lossy()).unwrap_or(text("path"));
            self.screen.line(&format!("  {}:{line}: {}", path.trim_start_matches('/'), text("excerpt")));
            is_there |= text("excerpt").contains(&phrase);
        }
        if !is_there {
            self.screen.line("  NOT FOUND, although it is there");
        }
        Ok(is_there)
    }

    /// Leaves the stage to the person, until interrupted.
    fn linger(&mut self) -> Result<(), Failure> {
        self.invite();
        loop {
            if self.stop.wait(POLL) {
                return Ok(());
            }
            let outcome = self.revive().and_then(|did| if did { self.tell_again() } else { Ok(()) });
            match outcome {
                Err(Failure::Interrupted) => return Ok(()),
                other => other?,
            }
        }
    }

    fn tell_again(&self) -> Result<(), Failure> {
        let counts = Counts::of(&self.node.client.query(&self.librarian(), "Report", &Value::Null)?);
        let (files, words) = (thousands(counts.files), thousands(counts.words));
        self.screen.line(&format!("the agents still say {files} files, {words} words"));
        self.invite();
        Ok(())
    }

    fn invite(&self) {
        let Client { url, token, .. } = &self.node.client;
        let (librarian, link) = (self.librarian(), self.node.client.login_link());
        self.screen.line(&format!(
            "\nnow you:\n  kill -9 {}\n  export GREENROOM_URL={url} GREENROOM_TOKEN={token}\n  \
             greenroom agents send {librarian} Search '{{\"query\":\"…\"}}'\n  {link}\nCtrl-C ends it",
            self.node.pid()
        ));
    }

    /// The orderly end.
    fn close(mut self) {
        self.node.end();
        self.ground.leave();
    }
}

/// At how many files the node is to be killed, last first, and an agent to panic: anywhere, but
/// spread over the first three quarters, so that there is work left to be disturbed.
fn plan(all: u64, kills: u32, panic: bool) -> (Vec<u64>, Option<u64>) {
    let end = all - all / 4;
    let within = |n: u64, of: u64| fastrand::u64(end * n / of..=end * (n + 1) / of);
    let kills = (0..u64::from(kills)).rev().map(|n| within(n, kills.into())).collect();
    (kills, panic.then(|| within(0, 2)))
}

/// The lines of a log that tell of `subject`, and those that go on telling below them.
fn about(subject: &str, log: Vec<String>) -> Vec<String> {
    let mut within = false;
    log.into_iter()
        .filter(|line| {
            if !line.starts_with(char::is_whitespace) {
                within = line.split_whitespace().any(|word| word == subject);
            }
            within
        })
        .collect()
}

/// A line of a text that is worth a search: words, and not too common.
fn telling(text: &str) -> Option<String> {
    let lines = text.lines().map(str::trim).filter(|line| {
        let words = line.split(|c: char| !c.is_alphanumeric()).filter(|w| w.len() > 2).count();
        (24..=80).contains(&line.len()) && words >= 4 && !line.chars().any(char::is_control)
    });
    fastrand::choice(lines.collect::<Vec<_>>()).map(str::to_owned)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn disturbances_come_while_there_is_work() {
        for all in [1, 2, 19, 5_000] {
            let (kills, panic) = plan(all, 3, true);
            assert!(kills.is_sorted_by(|a, b| a >= b) && kills.len() == 3);
            assert!(kills.iter().chain(&panic).all(|at| *at <= all));
        }
        assert_eq!(plan(10, 0, false), (vec![], None));
    }

    #[test]
    fn a_report_is_cut_out_of_the_log() {
        let log = "1 ERRO agent.crashed counter/demo  boom\n   on    Crash\n2 INFO task.done x\n   more\n3 INFO state.restored counter/demo";
        let lines = about("counter/demo", log.lines().map(str::to_owned).collect());
        assert_eq!(lines.len(), 3);
        assert!(lines[1].contains("on    Crash"));
    }

    #[test]
    fn a_telling_line_has_words() {
        assert_eq!(telling("}\n  use std::fmt;\n-------------------------------\n"), None);
        let line = "A line that has several words in it.";
        assert_eq!(telling(&format!("x\n   {line}\n")).as_deref(), Some(line));
    }
}
