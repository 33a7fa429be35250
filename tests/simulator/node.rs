//! A process: a boot of a machine, with its lease, its agents, its writer and its dispatcher. What it
//! decides it asks the same functions for as the runtime does; what the runtime does around them is done
//! here by hand.

use std::{
    collections::BTreeMap,
    sync::{Arc, LazyLock},
    time::Duration,
};

use greenroom::{
    model::{
        id::{AgentId, PARTITIONS, TaskId},
        journal::JournalWrite,
        lease::Tenure,
        schedule::Schedule,
        task::{ClaimId, Claimed},
    },
    store::{Member, Ownership, StoreError},
};
use uuid::Uuid;

use crate::{
    cell::Cell,
    dispatcher::Dispatcher,
    function::{Next, Runs},
    op::{Answer, Op, Said},
    schedules::Looking,
    work::{KEYS, KIND, MAX_LOST, Work},
    world::{Event, Pid, Sender, World},
    writer::Writer,
};

/// How long a lease is.
pub const LEASE: Duration = Duration::from_secs(3);
/// How long a fenced agent waits for the truth about its partition.
const TRUTH: Duration = Duration::from_secs(5);

/// What a process waits for the store to say.
#[derive(Debug, Clone)]
pub enum Then {
    /// It has joined for the first time.
    Born {
        asked: Duration,
    },
    /// What it owns.
    Owned {
        asked: Duration,
    },
    /// What became of the units under way.
    Committed,
    Loaded {
        key: &'static str,
        serial: u64,
        tries: u32,
    },
    /// Whether it has happened before.
    Known(Work),
    Claimed {
        alone: bool,
    },
    Promoted,
    Doomed,
    GivenBack(Arc<Claimed>),
    Running,
    StraysBack,
    Suspects {
        at_birth: bool,
    },
    Stopped {
        key: &'static str,
        serial: u64,
    },
    Opened {
        key: &'static str,
        serial: u64,
    },
    Parked {
        key: &'static str,
        park: bool,
    },
    /// What is recorded of the task of a run.
    Journal(ClaimId),
    /// What a cancellation met.
    Cancel(TaskId),
    /// What a signal met.
    Signal(Uuid),
    /// Something may be ready.
    Woken,
    Schedule {
        held: bool,
    },
    Held,
    Due,
    Last(Arc<Schedule>, TaskId),
}

/// What a process wakes for.
#[derive(Debug, Clone)]
pub enum Timer {
    /// Of the last time that it was waited for.
    Lease(u64),
    Poll,
    Due,
    Promote,
    Reconcile {
        again: bool,
    },
    Resend,
    Suspects,
    Turn {
        key: &'static str,
        serial: u64,
    },
    Restarted {
        key: &'static str,
        serial: u64,
    },
    Load {
        key: &'static str,
        serial: u64,
        tries: u32,
    },
    Truth {
        key: &'static str,
        serial: u64,
    },
    TurnedAway(Arc<Claimed>),
    Paid(Arc<Claimed>),
    Record(Arc<Claimed>, Box<greenroom::store::FinishOutcome>),
    Stop {
        key: &'static str,
        serial: u64,
    },
    Open {
        key: &'static str,
        serial: u64,
    },
    Park {
        key: &'static str,
        park: bool,
    },
    /// A rate lets the next task begin.
    Paced,
    /// Of the last time that it was to look for schedules.
    Look(u64),
    ReadJournal(ClaimId),
    WriteJournal(ClaimId, Box<JournalWrite>, Next),
    /// A call of a run has come to its end.
    Stepped(ClaimId),
    /// A run makes its call again.
    GoOn(ClaimId),
    /// An agent has answered a run.
    Replied(ClaimId, u32),
    /// It has not, for too long.
    Unanswered(ClaimId, u32),
    /// A run has had its time after it was cancelled.
    Dropped(ClaimId),
}

/// A monotonic clock: it may run slow or fast, and stands still while the machine sleeps.
pub struct Monotonic {
    began: Duration,
    /// In hundredths.
    rate: u32,
    slept: Duration,
}

impl Monotonic {
    fn at(&self, now: Duration) -> Duration {
        now.saturating_sub(self.began + self.slept) * self.rate / 100
    }

    /// How long it truly is until so much has passed by this clock.
    fn truly(&self, wait: Duration) -> Duration {
        wait * 100 / self.rate + Duration::from_micros(1)
    }
}

/// A boot of a machine.
pub struct Process {
    pub me: Sender,
    member: Member,
    pub clock: Monotonic,
    /// How far its wall clock is off, in milliseconds.
    pub wall_off: i64,
    pub is_paused: bool,
    asleep_since: Option<Duration>,
    /// What reached it while it was paused.
    pub stash: Vec<Event>,
    /// It is over, and its machine is to start another.
    pub is_over: bool,
    tenure: Option<Tenure>,
    pub epochs: Vec<i64>,
    is_asking: bool,
    waits: u64,
    pub cells: BTreeMap<&'static str, Cell>,
    pub writer: Writer,
    pub dispatcher: Dispatcher,
    /// Task functions that run.
    pub runs: Runs,
    pub looking: Looking,
}

impl Process {
    /// A machine boots: the process joins.
    pub fn boot(world: &mut World, pid: Pid, instance: Uuid, wall_off: i64) -> Self {
        let boot = world.draw();
        let rate = *[100, 100, 75, 130].get(world.rng.usize(0..4)).unwrap_or(&100);
        let member =
            Member { boot, instance, name: format!("p{pid}"), url: None, lease: LEASE, max_lost: MAX_LOST };
        let process = Self {
            me: Sender { pid, boot },
            member,
            clock: Monotonic { began: world.now, rate, slept: Duration::ZERO },
            wall_off,
            is_paused: false,
            asleep_since: None,
            stash: Vec::new(),
            is_over: false,
            tenure: None,
            epochs: vec![0; usize::try_from(PARTITIONS).unwrap_or(0)],
            is_asking: false,
            waits: 0,
            cells: BTreeMap::new(),
            writer: Writer::default(),
            dispatcher: Dispatcher::new(&world.bounds),
            runs: Runs::new(),
            looking: Looking::default(),
        };
        let asked = process.now(world);
        process.call(world, Op::Join(process.member.clone()), Then::Born { asked });
        process
    }

    pub fn now(&self, world: &World) -> Duration {
        self.clock.at(world.now)
    }

    pub fn call(&self, world: &mut World, op: Op, then: Then) {
        world.call(self.me, op, then);
    }

    /// Wakes the process after so long by its own clock.
    pub fn wake(&self, world: &mut World, wait: Duration, timer: Timer) {
        world.after(self.clock.truly(wait), Event::Timer { to: self.me.pid, timer });
    }

    /// Whether no turn may be started and nothing claimed.
    pub fn in_doubt(&self, world: &World) -> bool {
        self.tenure.is_none_or(|tenure| tenure.in_doubt(self.now(world)))
    }

    /// The epoch under which it owns an agent; 0 where it does not.
    pub fn epoch(&self, key: &str) -> i64 {
        self.epochs.get(partition(key)).copied().unwrap_or(0)
    }

    /// The machine falls asleep.
    pub fn sleep(&mut self, world: &mut World) {
        self.is_paused = true;
        self.asleep_since = Some(world.now);
        world.ledger.dozes(self.me.pid);
    }

    /// It goes on; what reached it meanwhile is next. Nothing of the time that it slept has passed by its
    /// clock.
    pub fn resume(&mut self, world: &World) -> Vec<Event> {
        self.is_paused = false;
        let slept = self.asleep_since.take().map_or(Duration::ZERO, |since| world.now - since);
        self.clock.slept += slept;
        std::mem::take(&mut self.stash)
    }

    pub fn handle(&mut self, world: &mut World, event: Event) {
        match event {
            Event::Reply { then, answer, .. } => self.answered(world, then, answer),
            Event::Timer { timer, .. } => self.woken(world, timer),
            Event::Asked { work, .. } if work.asked_under().is_some() => self.look_up(world, work),
            Event::Asked { work, .. } => self.deliver(world, work),
            Event::Sent { errand, .. } => self.run(world, errand),
            Event::Arrive { .. } | Event::Routed(_) | Event::Fate(_) => {}
        }
    }

    fn answered(&mut self, world: &mut World, then: Then, answer: Answer) {
        match then {
            Then::Born { asked } => self.born(world, asked, answer),
            Then::Owned { asked } => self.owned(world, asked, answer),
            Then::Committed => self.committed(world, answer),
            Then::Loaded { key, serial, tries } => self.loaded(world, key, serial, tries, answer),
            Then::Known(work) => self.looked_up(world, work, answer),
            Then::Claimed { alone } => self.claimed(world, alone, answer),
            Then::Promoted => self.promoted(world, answer),
            Then::Doomed => self.doomed(world, answer),
            Then::GivenBack(claim) => self.given_back(world, &claim, answer.is_ok()),
            Then::Running => self.found_running(world, answer),
            Then::StraysBack => self.strays_back(world, answer.is_ok()),
            Then::Suspects { at_birth } => self.suspects(world, at_birth, answer),
            Then::Stopped { key, serial } => self.stopped(world, key, serial, answer),
            Then::Opened { key, serial } => self.opened(world, key, serial, answer),
            Then::Parked { key, park } => self.parked(world, key, park, answer.is_ok()),
            Then::Journal(run) => self.journal_read(world, run, answer),
            Then::Cancel(task) => self.cancel_found(world, task, answer),
            Then::Signal(signal) => {
                if answer.is_ok() {
                    world.ledger.hears_of_signal(signal);
                }
                self.claim(world);
            }
            Then::Woken => self.claim(world),
            Then::Schedule { held } => self.hold(world, held, answer),
            Then::Held => self.look_at_once(world),
            Then::Due => self.due_schedules(world, answer),
            Then::Last(schedule, task) => self.last_is(world, &schedule, task, answer),
        }
    }

    fn woken(&mut self, world: &mut World, timer: Timer) {
        match timer {
            Timer::Lease(wait) => self.lease_is_due(world, wait),
            Timer::Poll => self.poll(world),
            Timer::Due => self.due(world),
            Timer::Promote => self.promote(world),
            Timer::Reconcile { again } => self.reconcile(world, again),
            Timer::Resend => self.resend(world),
            Timer::Suspects => self.call(world, Op::Suspects, Then::Suspects { at_birth: true }),
            Timer::Turn { key, serial } => self.turn_ended(world, key, serial),
            Timer::Restarted { key, serial } => self.restarted(world, key, serial),
            Timer::Load { key, serial, tries } => self.load(world, key, serial, tries),
            Timer::Truth { key, serial } => self.waited_for_the_truth(world, key, serial),
            Timer::TurnedAway(claim) => self.give_back(world, claim),
            Timer::Paid(claim) => self.paid(world, claim),
            Timer::Record(claim, outcome) => self.record(world, claim, *outcome),
            Timer::Stop { key, serial } => self.stop(world, key, serial),
            Timer::Open { key, serial } => self.open_again(world, key, serial),
            Timer::Park { key, park } => self.park(world, key, park),
            Timer::Paced => self.paced(world),
            Timer::Look(serial) => self.look(world, serial),
            Timer::ReadJournal(run) => self.read_journal(world, run),
            Timer::WriteJournal(run, write, next) => self.write_again(world, run, *write, next),
            Timer::Stepped(run) => self.stepped(world, run),
            Timer::GoOn(run) => self.go_on(world, run),
            Timer::Replied(run, effect) => self.replied(world, run, effect, true),
            Timer::Unanswered(run, effect) => self.replied(world, run, effect, false),
            Timer::Dropped(run) => drop(self.runs.remove(&run)),
        }
    }

    fn born(&mut self, world: &mut World, asked: Duration, answer: Answer) {
        let Ok(Said::Owned(owned)) = answer else {
            self.is_over = true;
            return;
        };
        let Some(ownership) = *owned else { return };
        self.tenure = Some(Tenure::begun(LEASE, asked));
        self.take(world, &ownership);
        self.wait_for_lease(world);
        self.call(world, Op::Suspects, Then::Suspects { at_birth: true });
        self.look_at_once(world);
    }

    /// Waits until the store is to be asked again.
    fn wait_for_lease(&mut self, world: &mut World) {
        let Some(tenure) = self.tenure else { return };
        self.believe(world);
        let wait = tenure.due().saturating_sub(self.now(world));
        self.waits += 1;
        self.wake(world, wait, Timer::Lease(self.waits));
    }

    fn lease_is_due(&mut self, world: &mut World, wait: u64) {
        let Some(tenure) = self.tenure.filter(|_| !self.is_asking && wait == self.waits) else { return };
        match self.now(world) >= tenure.due() {
            true => self.ask(world),
            // the machine has slept
            false => self.wait_for_lease(world),
        }
    }

    fn ask(&mut self, world: &mut World) {
        let Some(tenure) = self.tenure.filter(|_| !self.is_asking) else { return };
        self.is_asking = true;
        let asked = self.now(world);
        let member = self.member.clone();
        let op = if tenure.joins() { Op::Join(member) } else { Op::Renew(member) };
        self.call(world, op, Then::Owned { asked });
    }

    fn owned(&mut self, world: &mut World, asked: Duration, answer: Answer) {
        self.is_asking = false;
        let now = self.now(world);
        let Some(tenure) = self.tenure.as_mut() else { return };
        match answer {
            Ok(Said::Owned(owned)) => match *owned {
                Some(ownership) => {
                    let doubted = tenure.in_doubt(now);
                    tenure.granted(asked);
                    self.take(world, &ownership);
                    if doubted && !self.in_doubt(world) {
                        self.promote(world);
                        self.claim(world);
                    }
                    self.hear_the_truth(world);
                    KEYS.into_iter().for_each(|key| self.pump(world, key));
                }
                None => {
                    tenure.ended();
                    self.ask(world);
                }
            },
            // a later boot of this very machine owns what this one owned
            Err(StoreError::Refused(_)) if tenure.joins() => self.is_over = true,
            _ => tenure.failed(now),
        }
        self.wait_for_lease(world);
    }

    /// Takes in what the store says of the partitions.
    fn take(&mut self, world: &mut World, ownership: &Ownership) {
        let before = std::mem::replace(&mut self.epochs, ownership.epochs.clone());
        for key in KEYS {
            let was = before.get(partition(key)).copied().unwrap_or(0);
            if was != 0 && was != self.epoch(key) {
                self.leave(world, key);
            }
        }
        let gained = self.epochs.iter().zip(&before).any(|(now, was)| now != was && *now != 0);
        if ownership.rescued > 0 {
            self.call(world, Op::Suspects, Then::Suspects { at_birth: false });
        }
        let news = gained || ownership.rescued > 0 || !ownership.poison.is_empty();
        if news && !self.in_doubt(world) {
            self.promote(world);
            self.claim(world);
        }
        self.believe(world);
    }

    /// Says what it believes to own, and until when.
    fn believe(&self, world: &mut World) {
        let Some(tenure) = self.tenure else { return };
        let now = self.now(world);
        let until = match tenure.turns_at(now).filter(|_| !tenure.in_doubt(now)) {
            Some(turn) => world.now + self.clock.truly(turn.saturating_sub(now)),
            None => Duration::ZERO,
        };
        world.ledger.believes(self.me.pid, &self.epochs, until);
    }

    /// An agent has been fenced: asks the store again, and waits for what it says; not for ever.
    pub fn ask_again(&mut self, world: &mut World, key: &'static str, serial: u64) {
        self.wake(world, TRUTH, Timer::Truth { key, serial });
        self.ask(world);
    }
}

/// The partition of an agent.
pub fn partition(key: &str) -> usize {
    // nothing is asked for as often
    static KNOWN: LazyLock<[(&str, usize); KEYS.len()]> = LazyLock::new(|| {
        KEYS.map(|key| (key, usize::try_from(AgentId::of(KIND, key).partition()).unwrap_or(0)))
    });
    KNOWN.iter().find(|(known, _)| *known == key).map_or(0, |(_, partition)| *partition)
}
