//! The world: the true time, what happens when, the store, and how its calls fare.

use std::{
    collections::{BTreeMap, VecDeque},
    sync::{
        Arc,
        atomic::{AtomicU64, Ordering},
    },
    time::Duration,
};

use fastrand::Rng;
use greenroom::{
    model::task::{Bounds, Rate},
    store::{MemoryStore, StoreError, StoreOptions},
};
use jiff::Timestamp;
use uuid::Uuid;

use crate::{
    errand::Errand,
    ledger::Ledger,
    node::{Then, Timer},
    op::{Answer, Op, brief},
    work::{FLOW, KIND, TOOL, Work},
};

/// How much of what happened is told with a failure.
const TOLD: usize = 60;

/// One process: a boot of a machine.
pub type Pid = u32;

/// What happens at a moment.
pub enum Event {
    /// A request reaches the store; its reply sets out, if there is to be one.
    Arrive { from: Sender, op: Op, reply: Option<(Duration, Then)> },
    /// An answer reaches a process.
    Reply { to: Pid, then: Then, answer: Answer },
    /// A process wakes.
    Timer { to: Pid, timer: Timer },
    /// A client's message reaches a process.
    Asked { to: Pid, work: Work },
    /// A task function's message looks for the process of its agent.
    Routed(Work),
    /// A client or a person wants something of a process.
    Sent { to: Pid, errand: Errand },
    /// Something befalls a machine, or a client has an idea.
    Fate(Fate),
}

/// What befalls machines, and what clients do.
#[derive(Debug, Clone, Copy)]
pub enum Fate {
    Kill(usize),
    Boot(usize),
    Pause(usize),
    Resume(usize),
    /// The whole machine slept: its monotonic clock stood still.
    Sleep(usize, Duration),
    /// Somebody set its wall clock.
    SetClock(usize, i64),
    StoreDown,
    StoreUp,
    Ask,
    /// The client of this effect asks again, unless it has heard.
    AskAgain(&'static str, u32),
    Submit,
    Operate,
    /// Somebody cancels one of the tasks.
    Cancel,
    /// Somebody brings a dead letter back.
    Retry,
    /// Somebody sends a task function one of the signals that it waits for.
    Signal,
    /// The client of this signal sends it again, unless it has heard.
    SignalAgain(usize),
    /// Somebody pauses this kind or tool, or lets it go on.
    Queue(&'static str, bool),
    /// Somebody holds this schedule up, or lets it go on.
    Hold(&'static str, bool),
}

/// Who sent a request.
#[derive(Clone, Copy)]
pub struct Sender {
    pub pid: Pid,
    pub boot: Uuid,
}

/// Everything but the processes.
pub struct World {
    pub rng: Rng,
    pub now: Duration,
    pub store: Arc<MemoryStore>,
    pub ledger: Ledger,
    /// Nothing fails any more.
    pub is_healed: bool,
    /// The store answers nobody.
    pub is_down: bool,
    /// How often a call fares badly, in thousandths.
    trouble: u64,
    /// What bounds the tasks of each kind and tool, on each node.
    pub bounds: BTreeMap<&'static str, Bounds>,
    store_clock: Arc<AtomicU64>,
    queue: BTreeMap<(Duration, u64), Event>,
    drawn: u64,
    /// What happened last; `None`: nobody wants to know.
    trace: Option<VecDeque<String>>,
}

/// The first moment of every world.
pub fn dawn() -> Timestamp {
    Timestamp::from_second(1_790_000_000).expect("a moment")
}

impl World {
    /// `told`: what happens is to be noted.
    pub fn new(seed: u64, told: bool) -> Self {
        let store_clock = Arc::new(AtomicU64::new(0));
        let clock = store_clock.clone();
        let now = move || dawn() + Duration::from_micros(clock.load(Ordering::Relaxed));
        let mut rng = Rng::with_seed(seed);
        let trouble = *[0, 20, 60, 150].get(rng.usize(0..4)).unwrap_or(&0);
        let mut bound = |concurrency: &[usize], rate: bool| Bounds {
            concurrency: concurrency.get(rng.usize(0..4)).copied(),
            rate: (rate && rng.bool()).then_some(Rate { n: 3, within: Duration::from_millis(700) }),
        };
        let bounds =
            [(KIND, bound(&[3, 5], true)), (TOOL, bound(&[1, 1, 2], true)), (FLOW, bound(&[2, 3], false))];
        Self {
            rng,
            now: Duration::ZERO,
            store: Arc::new(MemoryStore::shared_by_clock(&StoreOptions::default(), now)),
            ledger: Ledger::default(),
            is_healed: false,
            is_down: false,
            trouble,
            bounds: bounds.into(),
            store_clock,
            queue: BTreeMap::new(),
            drawn: 0,
            trace: told.then(VecDeque::new),
        }
    }

    /// What a wall clock shows that is off by so many milliseconds.
    pub fn wall(&self, off_ms: i64) -> Timestamp {
        dawn() + self.now + jiff::SignedDuration::from_millis(off_ms)
    }

    /// How far a moment is away by that clock.
    pub fn until(&self, at: Timestamp, off_ms: i64) -> Duration {
        Duration::try_from(self.wall(off_ms).duration_until(at)).unwrap_or_default()
    }

    /// An id that this world has not drawn before.
    pub fn draw(&mut self) -> Uuid {
        self.drawn += 1;
        Uuid::from_u128(0x7000_8000_0000_0000_0000 | u128::from(self.drawn))
    }

    pub fn chance(&mut self, thousandths: u64) -> bool {
        self.rng.u64(0..1_000) < thousandths
    }

    pub fn millis(&mut self, from: u64, to: u64) -> Duration {
        Duration::from_micros(self.rng.u64(from * 1_000..to * 1_000))
    }

    /// Notes what happens.
    pub fn tell(&mut self, what: impl FnOnce() -> String) {
        let Some(trace) = &mut self.trace else { return };
        if trace.len() == TOLD {
            trace.pop_front();
        }
        trace.push_back(format!("{:>9.3} s  {}", self.now.as_secs_f64(), what()));
    }

    pub fn told(&self) -> impl Iterator<Item = &String> {
        self.trace.iter().flatten()
    }

    pub fn after(&mut self, wait: Duration, event: Event) {
        self.drawn += 1;
        self.queue.insert((self.now + wait, self.drawn), event);
    }

    /// What happens next; the clocks go on to its moment.
    pub fn next(&mut self) -> Option<Event> {
        let ((at, _), event) = self.queue.pop_first()?;
        self.now = at.max(self.now);
        let micros = u64::try_from(self.now.as_micros()).unwrap_or(u64::MAX);
        self.store_clock.store(micros, Ordering::Relaxed);
        Some(event)
    }

    /// Sends a request on its way: it may be lost, or its reply; and one of which the sender has given up
    /// may still arrive.
    pub fn call(&mut self, from: Sender, op: Op, then: Then) {
        let (there, back) = (self.millis(1, 8), self.millis(1, 8));
        let lost = |why: &str| Err(StoreError::Unknown(why.to_owned()));
        let trouble = if self.is_healed { 0 } else { self.trouble };
        if self.is_down {
            let answer = Err(StoreError::NotDone("connection refused".to_owned()));
            return self.after(there, Event::Reply { to: from.pid, then, answer });
        }
        if !self.chance(trouble) {
            // now and then a slow one
            let there = if self.chance(trouble) { there + self.millis(0, 2_500) } else { there };
            return self.after(there, Event::Arrive { from, op, reply: Some((back, then)) });
        }
        let patience = self.millis(20, 1_500);
        match self.rng.u8(0..4) {
            0 => {
                let answer = Err(StoreError::NotDone("deadlock detected".to_owned()));
                self.after(there + back, Event::Reply { to: from.pid, then, answer });
            }
            1 => {
                let answer = lost("the request was lost");
                self.after(patience, Event::Reply { to: from.pid, then, answer });
            }
            2 => {
                let answer = lost("the reply was lost");
                self.after(there, Event::Arrive { from, op, reply: None });
                self.after(there + patience, Event::Reply { to: from.pid, then, answer });
            }
            _ => {
                let answer = lost("it took too long");
                let late = patience + self.millis(0, 2_000);
                self.after(patience, Event::Reply { to: from.pid, then, answer });
                self.after(late, Event::Arrive { from, op, reply: None });
            }
        }
    }

    /// A request has reached the store.
    pub fn arrive(&mut self, from: Sender, op: Op, reply: Option<(Duration, Then)>) {
        if self.is_down {
            // it was on its way when the store went
            let Some((back, then)) = reply else { return };
            let answer = Err(StoreError::Unknown("connection reset".to_owned()));
            return self.after(back, Event::Reply { to: from.pid, then, answer });
        }
        let before = self.ledger.before(&self.store, &op);
        let answer = op.carry_out(&self.store, from.boot);
        self.tell(|| format!("store   p{} {op} -> {}", from.pid, brief(&answer)));
        self.look_at(from, &op, &answer, before);
        if let Some((back, then)) = reply {
            self.after(back, Event::Reply { to: from.pid, then, answer });
        }
    }
}
