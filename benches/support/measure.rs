//! Rounds, medians and the table.

use std::{
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
    Mebibytes,
}

impl Unit {
    fn write(self, figure: f64) -> String {
        match self {
            Self::MillionsPerSecond => format!("{:.2} M/s", figure / 1e6),
            Self::PerSecond => format!("{}/s", grouped(figure)),
            Self::Micros => format!("{figure:.1} µs"),
            Self::Millis if figure < 10.0 => format!("{figure:.1} ms"),
            Self::Millis => format!("{figure:.0} ms"),
            Self::Bytes => format!("{} B", grouped(figure)),
            Self::Mebibytes => format!("{} MiB", grouped(figure / f64::from(1 << 20))),
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

/// Whom we are measured against.
pub struct Peer {
    pub name: &'static str,
    /// By round, as ours.
    pub figures: Vec<f64>,
    /// The ratio to it that we should reach.
    pub goal: Option<f64>,
}

/// A row of the table: figures by round, the peers' beside ours.
pub struct Row {
    pub name: String,
    pub unit: Unit,
    pub better: Better,
    pub peers: Vec<Peer>,
    pub ours: Vec<f64>,
    /// The figure that it should reach, whatever the peers do.
    pub goal: Option<f64>,
    /// Commits and bytes, or whatever else there is to say.
    pub note: String,
}

impl Peer {
    pub fn new(name: &'static str, figures: Vec<f64>, goal: Option<f64>) -> Self {
        Self { name, figures, goal }
    }

    /// The median of the rounds' own ratios: above 1 we are ahead where more is better.
    fn ratio(&self, ours: &[f64]) -> f64 {
        median(ours.iter().zip(&self.figures).map(|(ours, theirs)| ours / theirs).collect())
    }
}

impl Row {
    /// A goal, and whether `figure` reaches it.
    fn judge(&self, goal: f64, figure: f64, written: &str) -> String {
        let (sign, holds) = match self.better {
            Better::More => ('≥', figure >= goal),
            Better::Less => ('≤', figure <= goal),
        };
        format!("{sign} {written} {}", if holds { '✓' } else { '✗' })
    }

    fn write(&self) -> String {
        let ours = median(self.ours.clone());
        let (mut theirs, mut ratios, mut goals) = (Vec::new(), Vec::new(), Vec::new());
        goals.extend(self.goal.map(|goal| self.judge(goal, ours, &self.unit.write(goal))));
        for peer in &self.peers {
            let ratio = peer.ratio(&self.ours);
            theirs.push(format!("{}: {}", peer.name, self.unit.write(median(peer.figures.clone()))));
            ratios.push(format!("{ratio:.2}×"));
            goals.extend(peer.goal.map(|goal| self.judge(goal, ratio, &format!("{goal}×"))));
        }
        let [theirs, ratios, goals] = [theirs, ratios, goals].map(|cell| cell.join(", "));
        let ours = self.unit.write(ours);
        format!("| {} | {ours} | {theirs} | {ratios} | {goals} | {} |", self.name, self.note)
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
        println!("| | Greenroom | peers | ratio | goal | |\n|---|---|---|---|---|---|");
        for row in &self.rows {
            println!("{}", row.write());
        }
    }
}

pub fn median(mut figures: Vec<f64>) -> f64 {
    figures.sort_by(f64::total_cmp);
    figures.get(figures.len() / 2).copied().unwrap_or(f64::NAN)
}

/// Runs both sides in turn: their figures by round, as [`rounds_among`].
pub fn rounds(
    n: usize,
    mut theirs: impl FnMut() -> anyhow::Result<f64>,
    mut ours: impl FnMut() -> anyhow::Result<f64>,
) -> anyhow::Result<(Vec<f64>, Vec<f64>)> {
    let [theirs, ours] = rounds_among(n, [&mut theirs, &mut ours])?;
    Ok((theirs, ours))
}

/// One of those who are measured in turn.
pub type Side<'a> = &'a mut dyn FnMut() -> anyhow::Result<f64>;

/// Runs all sides in turn, after one round that does not count: their figures by round.
pub fn rounds_among<const N: usize>(n: usize, mut sides: [Side<'_>; N]) -> anyhow::Result<[Vec<f64>; N]> {
    let mut figures = [const { Vec::new() }; N];
    in_turn(n, &mut sides, &mut figures)?;
    Ok(figures)
}

fn in_turn(n: usize, sides: &mut [Side<'_>], figures: &mut [Vec<f64>]) -> anyhow::Result<()> {
    for side in &mut *sides {
        side()?;
    }
    for round in 0..n {
        // whoever comes second finds the caches of the first
        for turn in 0..sides.len() {
            let at = (round + turn) % sides.len();
            figures[at].push(sides[at]()?);
        }
    }
    Ok(())
}

/// A peer that is yet to be measured.
pub struct Rival<'a> {
    pub name: &'static str,
    /// As [`Peer::goal`].
    pub goal: Option<f64>,
    pub side: Box<dyn FnMut() -> anyhow::Result<f64> + 'a>,
}

/// Runs our side and as many peers as there are in turn, as [`rounds_among`].
pub fn rounds_beside(
    n: usize,
    mut rivals: Vec<Rival<'_>>,
    mut ours: impl FnMut() -> anyhow::Result<f64>,
) -> anyhow::Result<(Vec<Peer>, Vec<f64>)> {
    let mut figures = vec![Vec::new(); rivals.len() + 1];
    let mut sides: Vec<Side<'_>> = rivals.iter_mut().map(|rival| &mut *rival.side as Side<'_>).collect();
    sides.push(&mut ours);
    in_turn(n, &mut sides, &mut figures)?;
    drop(sides);
    let ours = figures.pop().unwrap_or_default();
    let peers = rivals.iter().zip(figures).map(|(rival, theirs)| Peer::new(rival.name, theirs, rival.goal));
    Ok((peers.collect(), ours))
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
