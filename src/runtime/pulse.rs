//! The pulse of a call of a tool: whether a step of it is under way on a thread of the multi-thread runtime.
//!
//! Nobody can tell from outside which call holds up which of those threads, for calls move between them. So each call
//! counts its own steps, which costs two stores each, and the watchdog looks whether one of them does not end.

use std::{
    future::Future,
    pin::Pin,
    sync::{
        Arc,
        atomic::{AtomicU64, Ordering},
    },
};

use super::since::Since;
use crate::model::id::TaskId;

/// What is known of a call while it runs.
pub(crate) struct Pulse {
    pub tool: &'static str,
    /// The wire name of its input.
    pub message: &'static str,
    /// The task that it is an attempt of.
    pub task: Option<TaskId>,
    /// Twice the number of its steps, less one while one is under way. The call alone writes it.
    steps: AtomicU64,
    /// Its step has taken too long, since then.
    pub stuck: Since,
}

impl Pulse {
    pub(crate) fn subject(&self) -> String {
        format!("tool:{}", self.tool)
    }

    /// Which step is under way, if one is.
    pub(crate) fn step(&self) -> Option<u64> {
        Some(self.steps.load(Ordering::Relaxed)).filter(|steps| steps % 2 == 1)
    }
}

/// A step that is under way, until this is dropped.
struct Step<'p>(&'p Pulse);

impl<'p> Step<'p> {
    fn of(pulse: &'p Pulse) -> Self {
        pulse.steps.store(pulse.steps.load(Ordering::Relaxed) + 1, Ordering::Relaxed);
        Self(pulse)
    }
}

impl Drop for Step<'_> {
    fn drop(&mut self) {
        let pulse = self.0;
        pulse.steps.store(pulse.steps.load(Ordering::Relaxed) + 1, Ordering::Relaxed);
    }
}

/// The calls that run.
#[derive(Default)]
pub(crate) struct Pulses {
    all: dashmap::DashMap<u64, Arc<Pulse>>,
    last: AtomicU64,
}

/// A call in there, as long as it runs.
struct Entry<'a>(&'a Pulses, u64);

impl Drop for Entry<'_> {
    fn drop(&mut self) {
        self.0.all.remove(&self.1);
    }
}

impl Pulses {
    /// Runs a call to its end, with its steps counted.
    pub(crate) async fn of<F: Future + Unpin>(
        &self,
        tool: &'static str,
        message: &'static str,
        task: Option<TaskId>,
        mut call: F,
    ) -> F::Output {
        let n = self.last.fetch_add(1, Ordering::Relaxed);
        let (steps, stuck) = (AtomicU64::new(0), Since::default());
        let pulse = Arc::new(Pulse { tool, message, task, steps, stuck });
        self.all.insert(n, pulse.clone());
        let _entry = Entry(self, n);
        std::future::poll_fn(|cx| {
            let _step = Step::of(&pulse);
            Pin::new(&mut call).poll(cx)
        })
        .await
    }

    /// Those that are at a step, each with what tells it from all others.
    pub(crate) fn at_work(&self) -> Vec<(u64, Arc<Pulse>)> {
        let at_work = self.all.iter().filter(|entry| entry.step().is_some());
        at_work.map(|entry| (*entry.key(), entry.value().clone())).collect()
    }
}

#[cfg(test)]
mod tests {
    use std::{
        pin::pin,
        task::{Context, Poll, Waker},
    };

    use super::*;

    #[test]
    fn a_step_is_seen_while_it_is_under_way_and_the_call_until_it_ends() {
        let pulses = Pulses::default();
        let seen = || pulses.at_work().iter().map(|(_, pulse)| pulse.step()).collect::<Vec<_>>();
        let (mut polls, mut during) = (0, Vec::new());
        {
            let mut call = pin!(pulses.of(
                "a",
                "b",
                None,
                std::future::poll_fn(|_| {
                    during.push(seen());
                    polls += 1;
                    if polls == 2 { Poll::Ready(()) } else { Poll::Pending }
                })
            ));
            let mut cx = Context::from_waker(Waker::noop());
            assert!(call.as_mut().poll(&mut cx).is_pending() && seen().is_empty());
            assert!(call.as_mut().poll(&mut cx).is_ready());
        }
        assert_eq!(during, [[Some(1)], [Some(3)]]);
        assert!(pulses.all.is_empty());
    }
}
