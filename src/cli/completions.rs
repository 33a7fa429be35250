//! `completions`: shell completion scripts.

use std::io;

use clap::Args;
use clap_complete::{Shell, generate};

use super::exit::Failure;

#[derive(Debug, Args)]
pub(super) struct CompletionsArgs {
    /// The shell
    shell: Shell,
}

/// Writes the script to stdout.
pub(super) fn run(mut tree: clap::Command, program: &str, args: &CompletionsArgs) -> Result<(), Failure> {
    let mut script = Vec::new();
    generate(args.shell, &mut tree, program, &mut script);
    Ok(io::Write::write_all(&mut io::stdout().lock(), &script)?)
}
