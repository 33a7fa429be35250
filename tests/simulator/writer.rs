//! The writer of a process: while one commit is under way, the next batch gathers.

use std::{sync::Arc, time::Duration};

use greenroom::{
    model::{
        id::TaskId,
        journal::JournalWrite,
        task::{ClaimId, Claimed},
    },
    store::{FinishOutcome, Refusal, Tries, Unit, Verdict},
};

use crate::{
    function::Next,
    node::{Process, Then, Timer},
    op::{Answer, Op, Said},
    world::World,
};

/// What became of a unit.
#[derive(Debug, Clone)]
pub enum Outcome {
    Durable,
    Refused(Refusal),
    /// A try may have happened, and nobody can tell any more.
    Unknown,
    /// It did not happen, and will not.
    Failed,
}

/// Who is answered.
pub enum Ticket {
    Cell {
        key: &'static str,
        serial: u64,
    },
    Client {
        effects: Vec<u32>,
    },
    Record(Arc<Claimed>, FinishOutcome),
    /// A run of a task function, and what comes next.
    Journal(ClaimId, Box<JournalWrite>, Next),
    /// The same, of the task with this effect that it submits.
    Child(ClaimId, TaskId, u32),
    /// Whoever cancels a task.
    Cancel(TaskId),
    /// Whoever fires a schedule.
    Move,
    Doom,
}

#[derive(Default)]
pub struct Writer {
    waiting: Vec<(Unit, Ticket)>,
    under_way: Option<Batch>,
}

struct Batch {
    units: Arc<Vec<Unit>>,
    tickets: Vec<Ticket>,
    tries: Tries,
}

impl Process {
    pub fn write(&mut self, world: &mut World, unit: Unit, ticket: Ticket) {
        self.writer.waiting.push((unit, ticket));
        self.write_next(world);
    }

    fn write_next(&mut self, world: &mut World) {
        if self.writer.under_way.is_some() || self.writer.waiting.is_empty() {
            return;
        }
        let (units, tickets): (Vec<_>, Vec<_>) = self.writer.waiting.drain(..).unzip();
        self.writer.under_way = Some(Batch { units: Arc::new(units), tickets, tries: Tries::default() });
        self.resend(world);
    }

    pub fn resend(&mut self, world: &mut World) {
        let Some(batch) = &self.writer.under_way else { return };
        let op = Op::Commit(batch.units.clone());
        self.call(world, op, Then::Committed);
    }

    pub fn committed(&mut self, world: &mut World, answer: Answer) {
        let Some(mut batch) = self.writer.under_way.take() else { return };
        let known = match answer {
            Ok(Said::Verdicts(verdicts)) => verdicts.into_iter().map(|v| batch.tries.known(v)).collect(),
            Ok(_) => Vec::new(),
            Err(error) => {
                if let Some(pause) = batch.tries.again(&error) {
                    self.writer.under_way = Some(batch);
                    return self.wake(world, pause, Timer::Resend);
                }
                Vec::new()
            }
        };
        let mut known = known.into_iter();
        for ticket in batch.tickets {
            let outcome = match known.next() {
                Some(Some(Verdict::Durable | Verdict::Begun { .. })) => Outcome::Durable,
                Some(Some(Verdict::Refused(refusal))) => Outcome::Refused(refusal),
                Some(None) => Outcome::Unknown,
                None => Outcome::Failed,
            };
            self.written(world, ticket, outcome);
        }
        self.write_next(world);
    }

    fn written(&mut self, world: &mut World, ticket: Ticket, outcome: Outcome) {
        match ticket {
            Ticket::Cell { key, serial } => self.landed(world, key, serial, outcome),
            Ticket::Client { effects } => match outcome {
                Outcome::Durable => {
                    effects.into_iter().for_each(|effect| world.ledger.acknowledged(effect));
                    self.claim(world);
                }
                Outcome::Unknown => {}
                Outcome::Refused(_) | Outcome::Failed => {
                    effects.into_iter().for_each(|effect| world.ledger.denied(effect));
                }
            },
            Ticket::Journal(run, write, next) => self.journal_written(world, run, write, next, outcome),
            Ticket::Child(run, child, effect) => self.child_written(world, run, (child, effect), outcome),
            Ticket::Cancel(task) => self.cancel_written(world, task, &outcome),
            Ticket::Move => self.moved(world, &outcome),
            Ticket::Record(claim, outcome_of_it) => match outcome {
                Outcome::Failed => {
                    let again = Timer::Record(claim, Box::new(outcome_of_it));
                    self.wake(world, Duration::from_millis(500), again);
                }
                Outcome::Durable | Outcome::Refused(_) | Outcome::Unknown => {
                    self.recorded(world, claim, &outcome_of_it);
                }
            },
            Ticket::Doom => self.promote(world),
        }
    }
}
