//! Rounds, medians and the table.

use std::{
    fmt::Write as _,
    fs::File,
    io::{Seek as _, SeekFrom, Write as _},
    path::Path,
    time::{Duration, Instant},
};

/// What is to be measured, how long, and what came out.
pub struct Plan {
    quick: bool,
    filters: Vec<String>,
    rows: Vec<Row>,
}

/// Which way is better.
#[derive(Clone, Copy, PartialEq, Eq)]
pub enum Better {
    /// A rate.
    More,
    /// A latency or a size.
    Less,
}

/// How a figure is written.
#[derive(Clone, Copy)]
pub enum Unit {
    MillionsPerSecond,
    PerSecond,
    Micros,
    Millis,
    Bytes,
}

impl Unit {
    fn write(self, figure: f64) -> String {
        match self {
            Self::MillionsPerSecond => format!("{:.2} M/s", figure / 1e6),
            Self::PerSecond => format!("{}/s", grouped(figure)),
            Self::Micros => format!("{figure:.1} µs"),
            Self::Millis => format!("{figure:.0} ms"),
            Self::Bytes => format!("{} B", grouped(figure)),
        }
    }
}

/// `12345` as `12,345`.
fn grouped(figure: f64) -> String {
    let digits = format!("{figure:.0}");
    let mut out = String::new();
    for (i, digit) in digits.chars().enumerate() {
        if i > 0 && (digits.len() - i).is_multiple_of(3) {
            out.push(',');
        }
        out.push(digit);
    }
    out
}

/// A row of the table: figures by round, the peer's beside ours.
pub struct Row {
    pub name: String,
    pub unit: Unit,
    pub better: Better,
    /// The peer's name and figures.
    pub peer: Option<(&'static str, Vec<f64>)>,
    pub ours: Vec<f64>,
    /// The ratio to the peer (or, without a peer, the figure) that it should reach.
    pub goal: Option<f64>,
    /// Commits and bytes, or whatever else there is to say.
    pub note: String,
}

impl Row {
    /// The median of the rounds' own ratios: above 1 we are ahead where more is better.
    fn ratio(&self) -> Option<f64> {
        let (_, theirs) = self.peer.as_ref()?;
        Some(median(self.ours.iter().zip(theirs).map(|(ours, theirs)| ours / theirs).collect()))
    }

    fn holds(&self) -> Option<bool> {
        let (goal, figure) = (self.goal?, self.ratio().unwrap_or_else(|| median(self.ours.clone())));
        Some(if self.better == Better::More { figure >= goal } else { figure <= goal })
    }

    fn write(&self) -> String {
        let mut line = format!("| {} | {} ", self.name, self.unit.write(median(self.ours.clone())));
        let _ = match &self.peer {
            Some((name, theirs)) => write!(line, "| {name}: {} ", self.unit.write(median(theirs.clone()))),
            None => write!(line, "| "),
        };
        let _ = match self.ratio() {
            Some(ratio) => write!(line, "| {ratio:.2}× "),
            None => write!(line, "| "),
        };
        let sign = if self.better == Better::More { '≥' } else { '≤' };
        let _ = match (self.goal, self.holds()) {
            (Some(goal), Some(holds)) => {
                let goal = if self.peer.is_some() { format!("{goal}×") } else { self.unit.write(goal) };
                write!(line, "| {sign} {goal} {} ", if holds { "✓" } else { "✗" })
            }
            _ => write!(line, "| "),
        };
        let _ = write!(line, "| {} |", self.note);
        line
    }
}

impl Plan {
    pub fn of(arguments: impl Iterator<Item = String>) -> Self {
        let (flags, filters): (Vec<_>, Vec<_>) = arguments.partition(|a| a.starts_with("--"));
        // `cargo bench` says so; whoever only builds and runs all targets gets the short form.
        let quick = flags.iter().any(|f| f == "--quick") || !flags.iter().any(|f| f == "--bench");
        Self { quick, filters, rows: Vec::new() }
    }

    /// Whether a row is asked for.
    pub fn wants(&self, name: &str) -> bool {
        self.filters.is_empty() || self.filters.iter().any(|f| name.contains(f.as_str()))
    }

    pub fn rounds(&self) -> usize {
        if self.quick { 3 } else { 7 }
    }

    /// How long a round of a durable row lasts.
    pub fn stretch(&self) -> Duration {
        Duration::from_millis(if self.quick { 250 } else { 700 })
    }

    /// `full`, or a quarter of it.
    pub fn scaled(&self, full: usize) -> usize {
        if self.quick { full / 4 } else { full }
    }

    pub fn add(&mut self, row: Row) {
        eprintln!("{}", row.write());
        self.rows.push(row);
    }

    /// Prints the table.
    pub fn table(&self) {
        println!("| | Greenroom | peer | ratio | goal | |\n|---|---|---|---|---|---|");
        for row in &self.rows {
            println!("{}", row.write());
        }
    }
}

pub fn median(mut figures: Vec<f64>) -> f64 {
    figures.sort_by(f64::total_cmp);
    figures.get(figures.len() / 2).copied().unwrap_or(f64::NAN)
}

/// Runs both sides in turn, after one round that does not count: their figures by round.
pub fn rounds(
    n: usize,
    mut theirs: impl FnMut() -> anyhow::Result<f64>,
    mut ours: impl FnMut() -> anyhow::Result<f64>,
) -> anyhow::Result<(Vec<f64>, Vec<f64>)> {
    theirs()?;
    ours()?;
    let mut figures = (Vec::new(), Vec::new());
    for round in 0..n {
        // whoever comes second finds the caches of the first
        if round % 2 == 0 {
            figures.0.push(theirs()?);
            figures.1.push(ours()?);
        } else {
            figures.1.push(ours()?);
            figures.0.push(theirs()?);
        }
    }
    Ok(figures)
}

/// Runs one side after a probe of the disk: how long a sync took goes to `syncs`.
///
/// A disk changes its pace (a virtual one by twenty times, for seconds): a durable figure means
/// something only beside what a sync cost while it was taken.
pub fn probed<T>(disk: &mut Disk, side: impl FnOnce() -> anyhow::Result<T>) -> anyhow::Result<T> {
    disk.probe()?;
    side()
}

/// The disk under the data directories.
pub struct Disk {
    file: File,
    syncs: Vec<f64>,
}

/// A sync of the slowest round may take so many times that of the fastest.
const STEADY: f64 = 2.0;

impl Disk {
    pub fn new(directory: &Path) -> anyhow::Result<Self> {
        let mut file = File::create(directory.join("probe"))?;
        file.write_all(&[0; 1 << 16])?;
        file.sync_all()?;
        Ok(Self { file, syncs: Vec::new() })
    }

    fn probe(&mut self) -> anyhow::Result<()> {
        let mut took = Vec::new();
        for _ in 0..15 {
            self.file.seek(SeekFrom::Start(0))?;
            self.file.write_all(&[1; 4_096])?;
            let begun = Instant::now();
            self.file.sync_data()?;
            took.push(begun.elapsed());
        }
        self.syncs.push(p50(took));
        Ok(())
    }

    /// What syncs cost since the last call, and whether the disk kept its pace.
    pub fn note(&mut self) -> String {
        let syncs = std::mem::take(&mut self.syncs);
        let (least, most) = syncs.iter().fold((f64::MAX, 0.0_f64), |(a, b), s| (a.min(*s), b.max(*s)));
        let warning = if most > STEADY * least { ", UNSTEADY: do not quote" } else { "" };
        format!("sync p50 {:.0} µs ({least:.0}–{most:.0}{warning})", median(syncs))
    }
}

/// The median of durations, in microseconds.
pub fn p50(took: Vec<Duration>) -> f64 {
    median(took.into_iter().map(|d| d.as_secs_f64() * 1e6).collect())
}
