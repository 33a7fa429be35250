//! What clients and persons want of a process, beside asking its agents.

use std::sync::Arc;

use greenroom::{
    model::{
        id::TaskId,
        journal::Signal,
        schedule::Spec,
        task::{NewTask, TaskState},
    },
    store::{CancelFound, Finish, FinishOutcome, Guard, Unit},
};

use crate::{
    dispatcher::error,
    node::{Process, Then},
    op::{Answer, Op, Said},
    work::effect_of,
    world::World,
    writer::{Outcome, Ticket},
};

#[derive(Debug, Clone)]
pub enum Errand {
    /// Tasks are submitted, all or none.
    Submit(Arc<Vec<NewTask>>),
    /// An agent is started again that was stopped.
    Open(&'static str),
    Cancel(TaskId),
    /// A dead letter, or what was interrupted, is tried again.
    Retry(TaskId),
    /// What was interrupted has happened, or not.
    Resolve(TaskId, bool),
    Signal(TaskId, Signal),
    /// A kind or tool is paused, or goes on.
    Queue(String, bool),
    /// A schedule is held up, or goes on.
    Hold(&'static str, bool),
}

impl Process {
    pub fn run(&mut self, world: &mut World, errand: Errand) {
        match errand {
            Errand::Submit(tasks) => {
                let effects = tasks.iter().map(|task| effect_of(&task.message, &task.input)).collect();
                let unit = Unit { accepted: tasks.to_vec(), ..Unit::default() };
                self.write(world, unit, Ticket::Client { effects });
            }
            Errand::Open(key) => self.open(world, key),
            Errand::Cancel(task) => self.call(world, Op::Cancel(task), Then::Cancel(task)),
            Errand::Retry(task) => self.call(world, Op::Retry(task), Then::Woken),
            Errand::Resolve(task, well) => {
                let outcome = match well {
                    true => FinishOutcome::Succeeded { result: b"null".to_vec() },
                    false => FinishOutcome::Failed { error: error("resolved") },
                };
                self.write(world, idle(task, outcome), Ticket::Doom);
            }
            Errand::Signal(task, signal) => {
                let then = Then::Signal(signal.id);
                self.call(world, Op::Signal(task, signal), then);
            }
            Errand::Queue(queue, paused) => {
                self.call(world, Op::Pause(queue, paused), Then::Woken);
            }
            Errand::Hold(name, held) => self.call(world, Op::Schedule(name), Then::Schedule { held }),
        }
    }

    /// What a cancellation met.
    pub fn cancel_found(&mut self, world: &mut World, task: TaskId, answer: Answer) {
        match answer {
            Ok(Said::Cancel(Some(CancelFound::Idle))) => {
                self.write(world, idle(task, FinishOutcome::Cancelled), Ticket::Cancel(task));
            }
            Ok(Said::Cancel(Some(CancelFound::Running))) => self.stop_task(world, task),
            Ok(Said::Cancel(Some(CancelFound::Final(TaskState::Cancelled)))) => {
                let world = &mut *world;
                world.ledger.hears_of_cancel(&world.store, task);
            }
            _ => {}
        }
    }

    /// The end of a task that was to be cancelled is written, or it has moved on meanwhile.
    pub fn cancel_written(&mut self, world: &mut World, task: TaskId, outcome: &Outcome) {
        match outcome {
            Outcome::Durable => world.ledger.hears_of_cancel(&world.store, task),
            Outcome::Refused(_) => self.call(world, Op::Cancel(task), Then::Cancel(task)),
            Outcome::Unknown | Outcome::Failed => {}
        }
    }

    /// A schedule as it is, to be held up or let go on.
    pub fn hold(&mut self, world: &mut World, held: bool, answer: Answer) {
        let Ok(Said::Schedule(found)) = answer else { return };
        let Some(old) = found.filter(|old| old.paused != held).map(Box::new) else { return };
        let spec: Spec = old.definition.spec.parse().expect("a specification");
        let mut new = old.paused(held, &spec, world.wall(self.wall_off));
        new.revision = world.draw();
        self.call(world, Op::PutSchedule(Box::new(new), old), Then::Held);
    }
}

/// The end of a task that nobody runs.
pub fn idle(task: TaskId, outcome: FinishOutcome) -> Unit {
    let finished = vec![Finish { task, guard: Guard::Idle, outcome, note: None }];
    Unit { finished, ..Unit::default() }
}
