//! What a turn costs, with the peers in the same run: actix, kameo and ractor in memory, bare SQLite on
//! disk.
//!
//! ```text
//! cargo bench                          # every row, some minutes
//! cargo bench -- --quick               # fewer and shorter rounds
//! cargo bench -- tell "hot agent"      # the rows whose names hold one of these
//! ```
//!
//! Each row is the median of rounds that alternate between Greenroom and its peers, and its ratios the
//! medians of the rounds' own ratios: what disturbs the machine disturbs all. Cross-thread figures
//! scatter by a third all the same. Durable rows run with SQLite's `synchronous = FULL` on the disk
//! that holds `target/`.

mod support;

use std::{process::ExitCode, time::Duration};

use metrics_exporter_prometheus::PrometheusBuilder;
use support::{
    crashes, crowd, durable, herd, http, idle, measure::Plan, million, neighbour, phase::Phase, postgres,
    strain, talk, tasks, volatile,
};

// As in the program; the peers in this process have it too, and `benches/queues` has its own.
#[cfg(all(feature = "jemalloc", not(target_env = "msvc")))]
#[global_allocator]
static ALLOCATOR: greenroom::Jemalloc = greenroom::Jemalloc;

fn main() -> ExitCode {
    if let Err(error) = gather() {
        return finish(Err(error));
    }
    let mut arguments = std::env::args().skip(1).peekable();
    if let Some(phase) = Phase::asked_for(&mut arguments) {
        return finish(phase.run(arguments));
    }
    let mut plan = Plan::of(arguments);
    finish(measure(&mut plan))
}

fn measure(plan: &mut Plan) -> anyhow::Result<()> {
    volatile::measure(plan)?;
    crowd::measure(plan)?;
    neighbour::measure(plan)?;
    crashes::measure(plan)?;
    idle::measure(plan)?;
    durable::measure(plan)?;
    talk::measure(plan)?;
    tasks::measure(plan)?;
    http::measure(plan)?;
    strain::measure(plan)?;
    herd::measure(plan)?;
    million::measure(plan)?;
    postgres::measure(plan)?;
    plan.table();
    Ok(())
}

/// Has the metrics gathered, as a program does.
fn gather() -> anyhow::Result<()> {
    let recorder =
        PrometheusBuilder::new().set_buckets(&[0.000_1, 0.001, 0.01, 0.1, 1.0])?.install_recorder()?;
    std::thread::spawn(move || {
        loop {
            std::thread::sleep(Duration::from_secs(5));
            recorder.run_upkeep();
        }
    });
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
