//! Schedules in a process: it looks for what is due, decides, and moves each on with the task that it fires.

use std::{sync::Arc, time::Duration};

use greenroom::{
    model::{
        id::{Target, TaskId},
        schedule::{Definition, Last, Misfire, Origin, Overlap, Schedule, ScheduleMove, Spec, decide},
        task::{OnParentFailed, TaskTerms},
    },
    store::{Refusal, Unit},
};
use jiff::Timestamp;

use crate::{
    cell::agent,
    node::{Process, Then, Timer},
    op::{Answer, Op, Said},
    work::{FLOW, MAX_ATTEMPTS, Plan, SIGNALS, Step, input, tool},
    world::World,
    writer::{Outcome, Ticket},
};

/// How often it looks although nothing was due.
const POLL: Duration = Duration::from_secs(5);
/// Until a store that failed is asked again.
const AGAIN: Duration = Duration::from_millis(500);

/// The schedules of a world, those that it has.
pub const NAMES: [&str; 2] = ["short", "long"];

/// The schedule whose tasks take long.
pub const LONG: &str = NAMES[1];

/// What its tasks do.
pub fn long() -> Plan {
    let waits = Step::Waits(SIGNALS[0], Some(Duration::from_millis(1_200)));
    Plan { steps: vec![Step::Reads, waits], ..Plan::default() }
}

/// Whom the tasks of a schedule are for.
pub fn target(name: &str) -> Target {
    if name == LONG { tool(FLOW) } else { agent("a") }
}

/// Where a process stands that looks for what is due.
#[derive(Default)]
pub struct Looking {
    /// Of the last time that it was to look.
    serial: u64,
    /// How many are being moved on.
    pending: usize,
    moved: bool,
    failed: bool,
    next: Option<Timestamp>,
}

/// A schedule as a person makes it.
pub fn draw(world: &mut World, name: &'static str) -> Schedule {
    let specs = ["every 1s", "every 1s", "every 2s", "every 3s"];
    let n = world.rng.usize(0..specs.len());
    // it takes long to be read
    let spec = if world.chance(40) { "*/2 * * * * * Europe/Berlin" } else { specs[n] };
    let definition = Definition {
        spec: spec.to_owned(),
        target: target(name),
        message: "Add".to_owned(),
        input: input(0),
        priority: 0,
        max_attempts: None,
        timeout: None,
        tags: Vec::new(),
        overlap: [Overlap::Allow, Overlap::Skip, Overlap::QueueOne][world.rng.usize(0..3)],
        misfire: [Misfire::Once, Misfire::Skip, Misfire::All][world.rng.usize(0..3)],
    };
    let spec: Spec = spec.parse().expect("a specification");
    let new = Schedule::new(name.to_owned(), definition, &spec, Origin::Operator, world.wall(0));
    Schedule { revision: world.draw(), ..new }
}

impl Process {
    /// Looks again after so long, and not when it was to before.
    fn look_in(&mut self, world: &mut World, wait: Duration) {
        self.looking.serial += 1;
        self.wake(world, wait, Timer::Look(self.looking.serial));
    }

    pub fn look_at_once(&mut self, world: &mut World) {
        if self.looking.pending == 0 {
            self.look_in(world, Duration::ZERO);
        }
    }

    pub fn look(&mut self, world: &mut World, serial: u64) {
        if serial == self.looking.serial && self.looking.pending == 0 {
            // as long as it asks
            self.looking.pending = 1;
            self.call(world, Op::Due(world.wall(self.wall_off)), Then::Due);
        }
    }

    pub fn due_schedules(&mut self, world: &mut World, answer: Answer) {
        self.looking.pending = 0;
        let Ok(Said::Due(due, next)) = answer else { return self.look_in(world, AGAIN) };
        self.looking =
            Looking { serial: self.looking.serial, pending: due.len(), next, ..Looking::default() };
        if due.is_empty() {
            return self.looked(world);
        }
        for schedule in due.into_iter().map(Arc::new) {
            match schedule.last_task.filter(|_| schedule.definition.overlap != Overlap::Allow) {
                Some(last) => self.call(world, Op::State(last), Then::Last(schedule, last)),
                None => self.fire(world, &schedule, Last::Ended),
            }
        }
    }

    pub fn last_is(&mut self, world: &mut World, schedule: &Schedule, task: TaskId, answer: Answer) {
        match answer {
            Ok(Said::State(state)) => self.fire(world, schedule, Last::of(state.map(|state| (task, state)))),
            _ => self.moved(world, &Outcome::Failed),
        }
    }

    fn fire(&mut self, world: &mut World, schedule: &Schedule, last: Last) {
        let now = world.wall(self.wall_off);
        let d = &schedule.definition;
        let spec: Spec = d.spec.parse().expect("a specification");
        let decided = schedule
            .next_at
            .and_then(|nominal| Some((nominal, decide(&spec, nominal, now, (d.overlap, d.misfire), last)?)));
        let Some((from, firing)) = decided else { return self.moved(world, &Outcome::Failed) };
        let task = firing.fire.map(|at| {
            let mut task =
                schedule.task(at, &TaskTerms { max_attempts: MAX_ATTEMPTS, ..TaskTerms::default() });
            task.id = TaskId(world.draw());
            task.input = input(world.ledger.nominal(&schedule.name, at));
            task.after.extend(firing.behind);
            task.on_parent_failed = OnParentFailed::Run;
            (at, task)
        });
        let to = ScheduleMove {
            name: schedule.name.clone(),
            revision: schedule.revision,
            from,
            next_at: firing.next,
            fired: task.as_ref().map(|(at, task)| (*at, task.id)),
        };
        let accepted = task.into_iter().map(|(_, task)| task).collect();
        self.write(world, Unit { accepted, schedule: Some(to), ..Unit::default() }, Ticket::Move);
    }

    /// A schedule is moved on, or not.
    pub fn moved(&mut self, world: &mut World, outcome: &Outcome) {
        self.looking.pending = self.looking.pending.saturating_sub(1);
        match outcome {
            Outcome::Durable => {
                self.looking.moved = true;
                self.claim(world);
            }
            // another node was first, or a person has changed it
            Outcome::Refused(Refusal::ScheduleMoved(_) | Refusal::ParentUnknown(_)) | Outcome::Unknown => {
                self.looking.moved = true;
            }
            Outcome::Refused(_) | Outcome::Failed => self.looking.failed = true,
        }
        if self.looking.pending == 0 {
            self.looked(world);
        }
    }

    fn looked(&mut self, world: &mut World) {
        let until = self.looking.next.map_or(POLL, |next| world.until(next, self.wall_off));
        let pause = match (self.looking.failed, self.looking.moved) {
            (true, _) => AGAIN,
            (_, true) => Duration::ZERO,
            _ => until.clamp(Duration::from_millis(1), POLL),
        };
        self.look_in(world, pause);
    }
}
