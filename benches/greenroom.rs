//! What a turn costs, with the peer in the same run: actix in memory, bare SQLite on disk.
//!
//! ```text
//! cargo bench                          # every row, some minutes
//! cargo bench -- --quick               # fewer and shorter rounds
//! cargo bench -- tell "hot agent"      # the rows whose names hold one of these
//! ```
//!
//! Each row is the median of rounds that alternate between Greenroom and its peer, and its ratio the
//! median of the rounds' own ratios: what disturbs the machine disturbs both. Cross-thread figures
//! scatter by a third all the same. Durable rows run with SQLite's `synchronous = FULL` on the disk
//! that holds `target/`.

mod support;

use std::process::ExitCode;

use support::{durable, herd, http, measure::Plan, million, postgres, talk, volatile};

fn main() -> ExitCode {
    let mut arguments = std::env::args().skip(1).peekable();
    if let Some(phase) = herd::Phase::asked_for(&mut arguments) {
        return finish(phase.run(arguments));
    }
    let mut plan = Plan::of(arguments);
    finish(measure(&mut plan))
}

fn measure(plan: &mut Plan) -> anyhow::Result<()> {
    volatile::measure(plan)?;
    durable::measure(plan)?;
    talk::measure(plan)?;
    http::measure(plan)?;
    herd::measure(plan)?;
    million::measure(plan)?;
    postgres::measure(plan)?;
    plan.table();
    Ok(())
}

fn finish(result: anyhow::Result<()>) -> ExitCode {
    match result {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("{error:#}");
            ExitCode::FAILURE
        }
    }
}
