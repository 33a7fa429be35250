//! The arguments of `demo`; what it does is the program's.

use std::path::PathBuf;

use clap::Args;

/// See it survive: the crew indexes DIR, is killed and started again, and its work is checked
#[derive(Debug, Clone, Args)]
#[command(about = "Watch agents survive being killed, and the proof that nothing was lost")]
pub struct DemoArgs {
    /// The directory to index [default: `.`, or sources on this machine where `.` holds little]
    pub dir: Option<PathBuf>,
    /// How often the node is killed; 0 leaves it alone
    #[arg(long, value_name = "N", default_value_t = 2)]
    pub kills: u32,
    /// End after the proof
    #[arg(long)]
    pub once: bool,
    /// Index this many files at most
    #[arg(long, value_name = "N", default_value_t = 5_000)]
    pub limit: usize,
    /// Where the demo's node keeps its files (`--data-dir`).
    #[arg(skip)]
    pub data_dir: Option<PathBuf>,
}
