//! The queues of others: a program of its own measures them (`benches/queues`), on the server of the benchmark.

use std::{cell::Cell, path::PathBuf, process::Command};

use anyhow::{Context as _, ensure};

use super::{
    measure::{Rival, median},
    postgres::Server,
};

/// Names the program, as it was built; without it there are no such peers.
const PROGRAM: &str = "GREENROOM_QUEUES";
/// What the program calls them, and what we do.
const QUEUES: [(&str, &str); 2] = [("graphile", "graphile_worker"), ("apalis", "apalis")];

/// The program and its server.
pub struct Queues<'s> {
    program: PathBuf,
    server: &'s Server,
    made: Cell<usize>,
}

impl<'s> Queues<'s> {
    pub fn on(server: &'s Server) -> Option<Self> {
        let program = PathBuf::from(std::env::var_os(PROGRAM)?);
        Some(Self { program, server, made: Cell::new(0) })
    }

    /// Each queue, asked for the same in each round: the median of what it prints, a figure a line.
    pub fn rivals<'a>(&'a self, what: &'a [String], goal: Option<f64>) -> Vec<Rival<'a>> {
        let rival = |(queue, name): &(&'static str, &'static str)| {
            let queue = *queue;
            Rival { name, goal, side: Box::new(move || self.ask(queue, what)) }
        };
        QUEUES.iter().map(rival).collect()
    }

    fn ask(&self, queue: &str, what: &[String]) -> anyhow::Result<f64> {
        self.made.set(self.made.get() + 1);
        let name = format!("queue_{}", self.made.get());
        self.server.psql(&format!("CREATE DATABASE {name}"));
        let url = format!("{}/{name}", self.server.url().trim_end_matches("/postgres"));
        let run = Command::new(&self.program).arg(queue).args(what).env("DATABASE_URL", url).output();
        let out = run.with_context(|| format!("{PROGRAM}={}", self.program.display()))?;
        let said = String::from_utf8_lossy(&out.stdout);
        ensure!(out.status.success(), "{queue} {what:?}: {}", String::from_utf8_lossy(&out.stderr));
        let figures = said.lines().map(str::parse).collect::<Result<Vec<f64>, _>>()?;
        ensure!(!figures.is_empty(), "{queue} {what:?} told nothing");
        self.server.psql(&format!("DROP DATABASE {name} WITH (FORCE)"));
        Ok(median(figures))
    }
}
