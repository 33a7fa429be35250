//! What is measured once in a process (memory above all) is measured in a process of its own.

use std::{
    collections::HashMap,
    iter::Peekable,
    path::{Path, PathBuf},
    process::Command,
    time::Instant,
};

use anyhow::Context as _;

use super::{crashes, ground::Ground, herd, idle, million};

/// The argument by which the program calls itself.
pub const PHASE: &str = "--phase";

/// What a process of its own measures.
#[derive(Clone, Copy, PartialEq, Eq)]
pub enum Phase {
    /// Starts a node, activates some agents one by one.
    Activate,
    /// Starts a node, asks all agents a query.
    Restore,
    /// Starts agents that are not kept, and leaves them alone.
    Idle,
    /// Starts agents that are not kept, and has each leave memory.
    Left,
    /// Crashes an agent again and again.
    Crash,
    /// Starts a node on a million agents, and works until it is killed.
    Start,
}

impl Phase {
    const ALL: [Self; 6] = [Self::Activate, Self::Restore, Self::Idle, Self::Left, Self::Crash, Self::Start];

    pub fn name(self) -> &'static str {
        match self {
            Self::Activate => "activate",
            Self::Restore => "restore",
            Self::Idle => "idle",
            Self::Left => "left",
            Self::Crash => "crash",
            Self::Start => "start",
        }
    }

    /// The phase that this process is to measure, if it is one of its own.
    pub fn asked_for(arguments: &mut Peekable<impl Iterator<Item = String>>) -> Option<Self> {
        arguments.next_if(|a| a == PHASE)?;
        let name = arguments.next()?;
        Self::ALL.into_iter().find(|phase| phase.name() == name)
    }

    /// Measures, and prints what came out.
    pub fn run(self, mut arguments: impl Iterator<Item = String>) -> anyhow::Result<()> {
        let data = PathBuf::from(arguments.next().context("no data directory")?);
        if self == Self::Start {
            return million::start(&data, arguments.next());
        }
        let n = arguments.next().context("no number")?.parse()?;
        let begun = Instant::now();
        let ground = Ground::new(&data)?;
        println!("start_ms {}", begun.elapsed().as_secs_f64() * 1e3);
        match self {
            Self::Activate => herd::activate(&ground, &data)?,
            Self::Restore => herd::restore(&ground, &data)?,
            Self::Idle => idle::rest(&ground, n)?,
            Self::Left => idle::leave(&ground, n)?,
            Self::Crash => crashes::crash(&ground, n)?,
            Self::Start => {}
        }
        ground.end()
    }

    /// The figures of a process of its own, with `n` of what it measures.
    pub fn figures(self, data: &Path, n: usize) -> anyhow::Result<Figures> {
        let output = Command::new(std::env::current_exe()?)
            .args([PHASE, self.name()])
            .arg(data)
            .arg(n.to_string())
            .output()?;
        let (out, err) = (String::from_utf8_lossy(&output.stdout), String::from_utf8_lossy(&output.stderr));
        anyhow::ensure!(output.status.success(), "{}: {err}", self.name());
        let figure = |line: &str| {
            let (name, figure) = line.split_once(' ')?;
            Some((name.to_owned(), figure.parse().ok()?))
        };
        Ok(Figures(out.lines().filter_map(figure).collect()))
    }
}

/// What a process of its own has printed.
pub struct Figures(HashMap<String, f64>);

impl Figures {
    pub fn of(&self, name: &str) -> f64 {
        self.0.get(name).copied().unwrap_or(f64::NAN)
    }
}

/// The processor time of this process, in microseconds: what else the machine does disturbs it less than
/// the clock.
pub fn processor_us() -> anyhow::Result<f64> {
    let stat = std::fs::read_to_string("/proc/self/stat").context("times are read from /proc")?;
    let (_, rest) = stat.rsplit_once(") ").context("no name in stat")?;
    let ticks = rest.split(' ').skip(11).take(2).map(str::parse::<f64>);
    // a tick is a hundredth of a second wherever Linux runs
    Ok(ticks.sum::<Result<f64, _>>()? * 10_000.0)
}

/// Memory of this process that is its own: the file pages that SQLite maps are not.
pub fn resident() -> anyhow::Result<f64> {
    let status = std::fs::read_to_string("/proc/self/status").context("memory is read from /proc")?;
    let line = status.lines().find_map(|l| l.strip_prefix("RssAnon:")).context("no RssAnon")?;
    let kib: f64 = line.trim().trim_end_matches("kB").trim().parse()?;
    Ok(kib * 1024.0)
}
