//! `greenroom demo`: the library crew at work, killed again and again, and proved right.
//!
//! A child process is the node. This process kills it, starts it again on the same data directory,
//! and compares what the agents say in the end with a plain recount that shares no code with them.

mod client;
mod ground;
mod ledger;
mod node;
mod proof;
mod recount;
mod screen;
mod show;
mod stop;

use std::path::PathBuf;

/// What the command line says.
#[derive(Debug, Clone)]
pub struct Options {
    /// The directory to read; without one, a suitable one is found.
    pub dir: Option<PathBuf>,
    /// How often the node is killed.
    pub kills: u32,
    /// Whether to end after the proof.
    pub once: bool,
    /// Where the node keeps its data; without one, a place that is found again for the same
    /// directory.
    pub data_dir: Option<PathBuf>,
    /// At most so many files are read.
    pub limit: u64,
}

impl Default for Options {
    fn default() -> Self {
        Self { dir: None, kills: 2, once: false, data_dir: None, limit: 5_000 }
    }
}

/// Why a demo did not come to its end.
#[derive(Debug, thiserror::Error)]
enum Failure {
    /// Somebody asked for the end.
    #[error("interrupted")]
    Interrupted,
    /// The options do not go together, or a directory is not there.
    #[error("{0}")]
    Usage(String),
    /// Another demo is at work there.
    #[error("{0}")]
    InUse(String),
    /// Anything else.
    #[error("{0:#}")]
    Broken(#[from] anyhow::Error),
}

/// Runs the demo. 0: the agents were right; 1: they were not, or something broke; 2: the options
/// are wrong; 4: another demo works there.
pub fn run(options: &Options) -> u8 {
    let screen = screen::Screen::new();
    match show::run(options, &screen) {
        Ok(true) | Err(Failure::Interrupted) => 0,
        Ok(false) => 1,
        Err(failure) => {
            screen.line(&format!("greenroom demo: {failure}"));
            match failure {
                Failure::Usage(_) => 2,
                Failure::InUse(_) => 4,
                Failure::Interrupted | Failure::Broken(_) => 1,
            }
        }
    }
}
