//! `schema`: the wire interface of this program, and whether it has breaking changes.

use std::{fs, path::PathBuf};

use clap::Args;
use serde_json::json;

use super::{
    Session,
    exit::{Exit, Failure},
    out,
};
use crate::model::wire::{Break, Wire};

#[derive(Debug, Args)]
pub(super) struct SchemaArgs {
    /// Compare with the output of an earlier version; exit 1 on a breaking change
    #[arg(long, value_name = "FILE")]
    check: Option<PathBuf>,
}

pub(super) fn run(session: &Session<'_>, args: &SchemaArgs) -> Result<(), Failure> {
    let now = (session.wire)(&session.settings()?);
    let Some(file) = &args.check else {
        let document = serde_json::to_value(&now).map_err(Failure::usage)?;
        return Ok(out::value_pretty(&document)?);
    };
    let shown = file.display();
    let text = fs::read(file).map_err(|error| Failure::usage(format!("cannot read {shown}: {error}")))?;
    let earlier: Wire = serde_json::from_slice(&text).map_err(|error| {
        Failure::usage(format!("{shown} is not what `{} schema` prints: {error}", session.program))
    })?;
    let broken = earlier.broken_by(&now);
    if session.json() {
        out::line(&json!({"breaks": broken}).to_string())?;
    }
    match broken.len() {
        0 if session.json() => Ok(()),
        0 => {
            out::note(&format!("this program keeps all that is in {shown}"));
            Ok(())
        }
        _ if session.json() => Err(Failure::silent(Exit::Failed)),
        n => Err(told(&broken, &format!("{n} of what is in {shown} would break"))),
    }
}

fn told(broken: &[Break], message: &str) -> Failure {
    let failure = Failure::new(Exit::Failed, message);
    let failure = broken.iter().fold(failure, |failure, one| failure.detail(one.to_string()));
    failure.hint("keep the name and add another one, or have a field be left out; then print the schema anew")
}
