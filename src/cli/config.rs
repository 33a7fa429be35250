//! `config`: what is in force on this machine, and whether it is valid.

use clap::Subcommand;
use serde_json::{Value, json};

use super::{
    Session,
    exit::Failure,
    out::{self, Paint},
};

#[derive(Debug, Subcommand)]
pub(super) enum Config {
    /// Show every key with its value; secrets as ***
    #[command(alias = "ls", alias = "list", alias = "get")]
    Show {
        /// Say where each value came from
        #[arg(long)]
        origin: bool,
    },
    /// Check it; exit 9 and every error where it is not valid
    Check,
}

pub(super) fn run(session: &Session<'_>, command: Config) -> Result<(), Failure> {
    let settings = session.settings()?;
    let shown = settings.show();
    match command {
        Config::Show { .. } if session.json() => {
            Ok(out::json(json!({"items": shown, "next_cursor": null}).to_string().as_bytes())?)
        }
        Config::Show { origin } => {
            let paint = Paint::of_stdout();
            let line = |key: &str, value: &Value, from: String| {
                let from = if origin { paint.dim(&format!("  # {from}")) } else { String::new() };
                format!("{key} = {value}{from}")
            };
            let lines: Vec<String> =
                shown.iter().map(|one| line(&one.key, &one.value, one.origin.to_string())).collect();
            Ok(out::line(&lines.join("\n"))?)
        }
        Config::Check if session.json() => {
            Ok(out::line(&json!({"valid": true, "keys": shown.len()}).to_string())?)
        }
        Config::Check => {
            out::note(&format!("the configuration is valid: {} keys", shown.len()));
            Ok(())
        }
    }
}
