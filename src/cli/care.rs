//! `--yes` and `--dry-run`: care before something is lost.
//!
//! A person at a terminal is asked. Where there is none, nothing is ever asked: a command that names what it is
//! about does it, as scripts rely on; one that means many, or destroys what nothing brings back, wants `--yes`.

use std::io::{self, BufRead as _, IsTerminal as _, Write as _};

use clap::Args;

use super::exit::{Exit, Failure};

/// How careful a command is.
#[derive(Debug, Clone, Default, Args)]
pub(super) struct Care {
    /// Only show what would be done
    #[arg(long)]
    pub dry_run: bool,
    /// Do not ask for confirmation
    #[arg(short, long)]
    pub yes: bool,
}

impl Care {
    /// Asks the person at the terminal, if there is one and nothing says that it is meant.
    pub fn confirm(&self, question: &str) -> Result<(), Failure> {
        if self.yes || !somebody_is_there() || ask(question)? {
            return Ok(());
        }
        Err(Failure::new(Exit::Failed, "nothing was done"))
    }
}

/// Whether there is a person who can be asked.
pub(super) fn somebody_is_there() -> bool {
    io::stdin().is_terminal() && io::stderr().is_terminal()
}

/// Asks the person at the terminal.
pub(super) fn ask(question: &str) -> Result<bool, Failure> {
    Ok(matches!(&*answer(&format!("{question} [y/N]"))?, "y" | "Y" | "yes"))
}

/// What the person at the terminal writes upon this.
pub(super) fn answer(question: &str) -> Result<String, Failure> {
    let (mut stderr, mut answer) = (io::stderr(), String::new());
    write!(stderr, "{question} ")?;
    stderr.flush()?;
    io::stdin().lock().read_line(&mut answer)?;
    Ok(answer.trim().to_owned())
}
