//! Whether a tool is in service: it backs off after a crash, and is stopped when it has crashed too often.

use std::{sync::Arc, time::Duration};

use jiff::Timestamp;
use parking_lot::Mutex;
use tokio::time::Instant;

use super::node::Node;
use crate::{
    agent::AskError,
    clock,
    model::{
        supervision::{Decision, RestartPolicy, restart_command},
        tool_life::{Judged, ToolLife},
    },
};

/// A longer back-off than this, which nobody would wait for, is cut.
const LONGEST: Duration = Duration::from_secs(86_400);

/// A tool's service. It outlives the tool's cell; a new node begins a new one.
#[derive(Default)]
pub(super) struct Service(Mutex<State>);

#[derive(Default)]
struct State {
    life: ToolLife,
    standing: Standing,
}

#[derive(Default)]
enum Standing {
    #[default]
    Open,
    /// It begins no call until then.
    BacksOff(Instant),
    Stopped(Arc<Stop>),
}

/// That a tool is stopped, until an operator resumes it.
#[derive(Debug)]
pub(crate) struct Stop {
    /// Why, and what to do.
    pub text: String,
    pub why: String,
    pub since: Timestamp,
}

impl Stop {
    /// What those are told whom it turns away. A task waits in the store, and is not to end.
    pub(super) fn error(&self, is_task: bool) -> AskError {
        match is_task {
            true => AskError::Unavailable(self.text.clone()),
            false => AskError::WrongState(self.text.clone()),
        }
    }
}

/// What a call finds that is to begin.
pub(super) enum Entry {
    /// It begins, in this life of the tool.
    Now(u64),
    /// Not before so long.
    After(Duration),
    /// It does not.
    Never(Arc<Stop>),
}

impl Service {
    pub(super) fn entry(&self, now: Instant) -> Entry {
        let mut state = self.0.lock();
        match &state.standing {
            Standing::Open => {}
            Standing::BacksOff(until) if now < *until => return Entry::After(*until - now),
            Standing::BacksOff(_) => state.standing = Standing::Open,
            Standing::Stopped(stop) => return Entry::Never(stop.clone()),
        }
        Entry::Now(state.life.nth())
    }

    pub(super) fn stopped(&self) -> Option<Arc<Stop>> {
        match &self.0.lock().standing {
            Standing::Stopped(stop) => Some(stop.clone()),
            Standing::Open | Standing::BacksOff(_) => None,
        }
    }

    pub(super) fn backs_off(&self, now: Instant) -> bool {
        matches!(self.0.lock().standing, Standing::BacksOff(until) if now < until)
    }

    /// A call has ended well.
    pub(super) fn works(&self) {
        self.0.lock().life.works();
    }

    /// A call that began in the life `of` has crashed. It is decided what follows, and done: where that crash has
    /// stopped the tool, how.
    pub(super) fn crashed(
        &self,
        of: u64,
        subject: &str,
        policy: &RestartPolicy,
        node: &Node,
    ) -> (Judged, Option<Arc<Stop>>) {
        let jitter = 0.5 + fastrand::f64() / 2.0;
        let mut state = self.0.lock();
        let judged = state.life.crashed(of, policy, node.uptime(), jitter);
        if !judged.counts {
            return (judged, None);
        }
        match judged.decision {
            Decision::Restart { delay, .. } => {
                state.standing = Standing::BacksOff(Instant::now() + delay.min(LONGEST));
                (judged, None)
            }
            Decision::Exceeded { attempts } => {
                let within = policy.within;
                let why = format!(
                    "it crashed more than {attempts} times within {within:?}, and no call ended well in between"
                );
                let command = restart_command(subject);
                let text = format!("{subject} is stopped: {why}; when the cause is mended: {command}");
                let stop = Arc::new(Stop { text, why, since: clock::now() });
                state.standing = Standing::Stopped(stop.clone());
                (judged, Some(stop))
            }
            Decision::Leave => (judged, None),
        }
    }

    /// An operator has it work again. `false`: it was not stopped.
    pub(super) fn resume(&self) -> bool {
        let mut state = self.0.lock();
        state.life.forgive();
        matches!(std::mem::take(&mut state.standing), Standing::Stopped(_))
    }
}
