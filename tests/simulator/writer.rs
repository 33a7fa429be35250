//! The writer of a process: while one commit is under way, the next batch gathers.

use std::{sync::Arc, time::Duration};

use greenroom::{
    model::task::Claimed,
    store::{FinishOutcome, Refusal, Tries, Unit, Verdict},
};

use crate::{
    node::{Process, Then, Timer},
    world::{Answer, Op, Said, World},
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
    Cell { key: &'static str, serial: u64 },
    Client { effect: u32 },
    Record(Arc<Claimed>, FinishOutcome),
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
            Ticket::Client { effect } => match outcome {
                Outcome::Durable => {
                    world.ledger.acknowledged(effect);
                    self.claim(world);
                }
                Outcome::Unknown => {}
                Outcome::Refused(_) | Outcome::Failed => world.ledger.denied(effect),
            },
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
