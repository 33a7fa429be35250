//! What reaches a running cell besides messages: outcomes of commits, and control.

use std::{
    any::Any,
    sync::atomic::{AtomicBool, AtomicI64, AtomicU8, AtomicU32, Ordering},
};

use futures_util::task::AtomicWaker;
use parking_lot::Mutex;

use tokio::time::Instant;

use super::{persistence::Outcome, restart_order::Part};
use crate::agent::turn::Activation;

/// What a cell is at.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[repr(u8)]
pub(crate) enum Phase {
    Starting = 0,
    Active = 1,
    Idle = 2,
    Restarting = 3,
    Stopping = 4,
}

impl Phase {
    pub(crate) fn name(self) -> &'static str {
        match self {
            Self::Starting => "starting",
            Self::Active => "active",
            Self::Idle => "idle",
            Self::Restarting => "restarting",
            Self::Stopping => "stopping",
        }
    }

    fn from(code: u8) -> Self {
        match code {
            1 => Self::Active,
            2 => Self::Idle,
            3 => Self::Restarting,
            4 => Self::Stopping,
            _ => Self::Starting,
        }
    }
}

/// What a cell is told to do. A control of higher rank replaces a pending one of lower rank.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
#[repr(u8)]
pub(crate) enum Control {
    None = 0,
    /// Write what is relaxed.
    Flush = 1,
    /// Leave memory if there is nothing to do.
    Passivate = 2,
    /// Restart after what runs, with a fresh budget, in its place among others; a turn that does not end soon is cut
    /// short.
    Renew = 3,
    /// A test has it crash, once what ran is durable.
    Crash = 4,
    /// Leave memory after what runs; the lane stays as it is.
    Leave = 5,
    /// The node is going down: answer what waits, persist, end.
    Drain = 6,
    /// As [`Control::Leave`]; a turn that does not end soon is cut short.
    Cut = 7,
}

/// What a commit under way releases when it is durable: answers and tells, in the cell's own types.
pub(crate) trait Cargo: Send {
    /// The version that the commit makes.
    fn version(&self) -> i64;
    /// Sends what it holds, in its order.
    fn release(self: Box<Self>);
    /// Sends what it holds, but for the answers, of which nobody hears whether there were any.
    fn release_unanswered(self: Box<Self>);
    /// Itself, for the cell that takes it back.
    fn into_any(self: Box<Self>) -> Box<dyn Any>;
}

/// One activation's letterbox.
pub(crate) struct Inbox {
    pub held: Mutex<Held>,
    has_outcome: AtomicBool,
    control: AtomicU8,
    /// What the cell has taken from its lane and not begun is to be cleared when it leaves.
    pub clears: AtomicBool,
    pub waker: AtomicWaker,
    /// A test looks at each step of its turns.
    pub is_probed: bool,
    /// As which cell of the node it came into memory.
    pub started: u64,
    phase: AtomicU8,
    /// The node's tick at the last turn.
    pub active_at: AtomicU32,
    /// How many cells had come into memory by its last use: who is to leave is told by this, where only so
    /// many may stay.
    pub used_at: AtomicU32,
    pub version: AtomicI64,
    pub restarts: AtomicU32,
}

/// What an agent at rest has nothing of: under one lock, since it has an inbox too.
#[derive(Default)]
pub(crate) struct Held {
    /// Of an outcome that has come: what it is, unless it is durable.
    trouble: Option<Box<Outcome>>,
    /// What the commit under way holds back.
    cargo: Option<Box<dyn Cargo>>,
    /// Its part in a restart of several, until it comes to it.
    pub part: Option<Box<Part>>,
    /// What a turn that waits is at.
    pub current: Option<Box<Current>>,
}

/// A turn that waits for something.
pub(crate) struct Current {
    pub message: &'static str,
    pub since: Instant,
}

impl Activation for Inbox {
    fn is_leaving(&self) -> bool {
        self.control() >= Control::Leave
    }
}

impl Inbox {
    pub(crate) fn new(started: u64, is_probed: bool) -> Self {
        Self {
            is_probed,
            started,
            held: Mutex::default(),
            has_outcome: AtomicBool::new(false),
            control: AtomicU8::new(0),
            clears: AtomicBool::new(false),
            waker: AtomicWaker::new(),
            phase: AtomicU8::new(0),
            active_at: AtomicU32::new(0),
            used_at: AtomicU32::new(started as u32),
            version: AtomicI64::new(0),
            restarts: AtomicU32::new(0),
        }
    }

    /// Puts down what the commit that is about to begin will release.
    pub(crate) fn load(&self, cargo: Box<dyn Cargo>) {
        self.held.lock().cargo = Some(cargo);
    }

    /// Takes it back, where nobody has released it.
    pub(crate) fn unload(&self) -> Option<Box<dyn Cargo>> {
        self.held.lock().cargo.take()
    }

    /// Releases what the commit holds back: it is durable.
    pub(crate) fn release(&self) {
        if let Some(cargo) = self.unload() {
            self.version.store(cargo.version(), Ordering::Relaxed);
            cargo.release();
        }
    }

    /// As [`Inbox::release`], where a test has the agent crash before it answers.
    pub(crate) fn crash_unanswered(&self) {
        if let Some(cargo) = self.unload() {
            self.version.store(cargo.version(), Ordering::Relaxed);
            cargo.release_unanswered();
        }
        self.tell(Control::Crash);
    }

    pub(crate) fn land(&self, outcome: Outcome) {
        let mut held = self.held.lock();
        held.trouble = Some(outcome).filter(|o| !matches!(o, Outcome::Durable)).map(Box::new);
        self.has_outcome.store(true, Ordering::Release);
        drop(held);
        self.waker.wake();
    }

    #[inline]
    pub(crate) fn has_outcome(&self) -> bool {
        self.has_outcome.load(Ordering::Acquire)
    }

    #[inline]
    pub(crate) fn take_outcome(&self) -> Option<Outcome> {
        if !self.has_outcome() {
            return None;
        }
        // Both or neither: what lands next must not be taken for durable because this was taken.
        let mut held = self.held.lock();
        self.has_outcome.store(false, Ordering::Relaxed);
        Some(held.trouble.take().map_or(Outcome::Durable, |trouble| *trouble))
    }

    pub(crate) fn tell(&self, control: Control) {
        self.control.fetch_max(control as u8, Ordering::AcqRel);
        self.waker.wake();
    }

    #[inline]
    pub(crate) fn control(&self) -> Control {
        match self.control.load(Ordering::Acquire) {
            0 => Control::None,
            1 => Control::Flush,
            2 => Control::Passivate,
            3 => Control::Renew,
            4 => Control::Crash,
            5 => Control::Leave,
            6 => Control::Drain,
            _ => Control::Cut,
        }
    }

    /// Takes back a wish that was fulfilled or cannot be.
    pub(crate) fn done(&self, control: Control) {
        let _ = self.control.compare_exchange(control as u8, 0, Ordering::AcqRel, Ordering::Acquire);
    }

    pub(crate) fn set_phase(&self, phase: Phase) {
        self.phase.store(phase as u8, Ordering::Relaxed);
    }

    pub(crate) fn phase(&self) -> Phase {
        Phase::from(self.phase.load(Ordering::Relaxed))
    }
}
