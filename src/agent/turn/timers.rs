//! Timers: messages that an agent sends to itself later. They are volatile, and belong to one activation.

use std::{collections::HashMap, fmt, pin::Pin, sync::Arc, task::Context, time::Duration};

use futures_util::task::AtomicWaker;
use parking_lot::Mutex;
use tokio::time::{Instant, Sleep};

use super::Turn;
use crate::agent::{
    Agent,
    drops::Guarded,
    letter::{Letter, ReplyTo},
    message::Message,
    messages::{Accepts, EnvelopeOf},
};

/// The most pending timers of one agent.
const MAX_TIMERS: usize = 1_000;
/// The shortest period of a timer.
const MIN_PERIOD: Duration = Duration::from_millis(1);

/// Makes the letter that a timer brings. Clones a user's message.
pub(crate) type MakeLetter<A> = Arc<dyn Fn() -> Option<EnvelopeOf<A>> + Send + Sync>;

/// A change of the timers that a turn leaves behind. Called with `true`, it lets a timer be that is
/// pending already.
pub(crate) type Alarm = Box<dyn FnOnce(bool) + Send>;

/// A timer that a turn has set. It counts until it is pending, or its turn did not happen.
struct Coming<A: Agent> {
    timers: Arc<Timers<A>>,
    name: String,
}

impl<A: Agent> Drop for Coming<A> {
    fn drop(&mut self) {
        let mut coming = self.timers.coming.lock();
        if let Some(n) = coming.get_mut(&self.name) {
            *n -= 1;
            if *n == 0 {
                coming.remove(&self.name);
            }
        }
    }
}

struct Timer<A: Agent> {
    name: String,
    due: Instant,
    every: Option<Duration>,
    make: MakeLetter<A>,
}

/// The pending timers of one activation.
pub(crate) struct Timers<A: Agent> {
    pending: Mutex<Vec<Timer<A>>>,
    /// Those that turns have set whose commit is not durable yet: how often each.
    coming: Mutex<HashMap<String, usize>>,
    cell: AtomicWaker,
}

impl<A: Agent> Default for Timers<A> {
    fn default() -> Self {
        Self { pending: Mutex::default(), coming: Mutex::default(), cell: AtomicWaker::new() }
    }
}

impl<A: Agent> Timers<A> {
    pub(crate) fn is_empty(&self) -> bool {
        self.pending.lock().is_empty()
    }

    /// Counts one that a turn sets. `None`: it would be one too many.
    fn announce(self: &Arc<Self>, name: &str) -> Option<Coming<A>> {
        let mut coming = self.coming.lock();
        let pending = self.pending.lock();
        let is_pending = |name: &str| pending.iter().any(|timer| timer.name == name);
        if !coming.contains_key(name) && !is_pending(name) {
            // One that replaces another is counted once.
            let most = pending.len() + coming.len();
            if most >= MAX_TIMERS && most - coming.keys().filter(|n| is_pending(n)).count() >= MAX_TIMERS {
                return None;
            }
        }
        *coming.entry(name.to_owned()).or_default() += 1;
        Some(Coming { timers: self.clone(), name: name.to_owned() })
    }

    fn set(&self, timer: Timer<A>, only_new: bool) {
        let mut pending = self.pending.lock();
        let before = match pending.iter_mut().find(|t| t.name == timer.name) {
            Some(_) if only_new => Some(timer),
            Some(known) => Some(std::mem::replace(known, timer)),
            None => {
                pending.push(timer);
                None
            }
        };
        drop(pending);
        drop(before); // it holds a user's message
        self.cell.wake();
    }

    fn cancel(&self, name: &str) {
        let mut pending = self.pending.lock();
        let found = pending.iter().position(|t| t.name == name).map(|at| pending.swap_remove(at));
        drop(pending);
        drop(found);
    }

    /// For the cell: hands over what is due, and sets `alarm` to the next one.
    pub(crate) fn poll(
        &self,
        alarm: &mut Option<Pin<Box<Sleep>>>,
        cx: &mut Context<'_>,
        mut ring: impl FnMut(&str, MakeLetter<A>),
    ) {
        self.cell.register(cx.waker());
        loop {
            let (due, next) = self.take_due(Instant::now());
            for (name, make) in due {
                ring(&name, make);
            }
            let Some(next) = next else {
                *alarm = None;
                return;
            };
            let sleep = alarm.get_or_insert_with(|| Box::pin(tokio::time::sleep_until(next)));
            if sleep.deadline() != next {
                sleep.as_mut().reset(next);
            }
            if sleep.as_mut().poll(cx).is_pending() {
                return;
            }
        }
    }

    /// What is due, in the order of its time, and when the next one is. A periodic timer whose times were
    /// missed rings once for all of them.
    fn take_due(&self, now: Instant) -> (Vec<(String, MakeLetter<A>)>, Option<Instant>) {
        let mut pending = self.pending.lock();
        pending.sort_by_key(|t| t.due);
        let mut due = Vec::new();
        pending.retain_mut(|timer| {
            if timer.due > now {
                return true;
            }
            due.push((timer.name.clone(), timer.make.clone()));
            let Some(every) = timer.every else { return false };
            timer.due = (timer.due + every).max(now);
            if timer.due == now {
                timer.due = now + every;
            }
            true
        });
        (due, pending.iter().map(|t| t.due).min())
    }
}

impl<A: Agent> fmt::Debug for Timers<A> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_list().entries(self.pending.lock().iter().map(|t| &t.name)).finish()
    }
}

impl<A: Agent> Turn<A> {
    /// Sends this agent `m` once, `after` this turn's commit. Replaces a timer of the same name; in `on_start`,
    /// a pending timer of that name is kept instead.
    ///
    /// Timers are volatile: a pending one keeps its agent in memory and survives the agent's crashes, but not
    /// the end of the process, an operator's stop, pause or restart, or [`Turn::retire`]. A message whose own turn
    /// crashes is handled once more, unless the agent is volatile or the turn had asked others for something. What must happen is submitted as a task:
    /// `turn.agent::<Self>(turn.key()).submit(m).run_in(after)`. At most 1,000 are pending for one agent.
    ///
    /// ```
    /// # use greenroom::prelude::*;
    /// # #[derive(Default, Serialize, Deserialize)] struct Host { busy: bool }
    /// # #[derive(Clone, Serialize, Deserialize, JsonSchema)] struct Visit {}
    /// # #[derive(Clone, Serialize, Deserialize, JsonSchema)] struct Next {}
    /// # message! { Visit -> (); Next -> () }
    /// # impl Agent for Host { const KIND: &'static str = "host"; type Messages = (Visit, Next); }
    /// # impl Handler<Next> for Host {
    /// #     async fn handle(&mut self, _: Next, _: &Turn<Self>) -> Result<()> { Ok(()) }
    /// # }
    /// impl Handler<Visit> for Host {
    ///     async fn handle(&mut self, _: Visit, turn: &Turn<Self>) -> Result<()> {
    ///         self.busy = true;
    ///         turn.timer("next", Duration::from_secs(1), Next {}); // politely
    ///         Ok(())
    ///     }
    /// }
    /// ```
    pub fn timer<M: Message, I>(&self, name: &str, after: Duration, m: M)
    where
        A: Accepts<M, I>,
    {
        self.set_timer(name, after, None, m);
    }

    /// Sends this agent `m` periodically, first `period` after this turn's commit; at most once a millisecond.
    /// All times that pass while the agent is busy are made up for by one message. Otherwise as
    /// [`Turn::timer`].
    pub fn every<M: Message, I>(&self, name: &str, period: Duration, m: M)
    where
        A: Accepts<M, I>,
    {
        let period = period.max(MIN_PERIOD);
        self.set_timer(name, period, Some(period), m);
    }

    /// Cancels a timer with this turn's commit. A message that it has already sent may still be waiting.
    pub fn cancel_timer(&self, name: &str) {
        let (timers, name) = (self.timers.get_or_init(Arc::default).clone(), name.to_owned());
        self.outbox().alarms.push(Box::new(move |_| timers.cancel(&name)));
    }

    fn set_timer<M: Message, I>(&self, name: &str, after: Duration, every: Option<Duration>, m: M)
    where
        A: Accepts<M, I>,
    {
        let timers = self.timers.get_or_init(Arc::default).clone();
        let wrong = |why: &dyn fmt::Display| format!("cannot set the timer `{name}`: {why}");
        if let Err(e) = m.validate() {
            return self.outbox().refuse(wrong(&e));
        }
        let Some(coming) = timers.announce(name) else {
            return self.outbox().refuse(wrong(&format_args!("an agent has at most {MAX_TIMERS}")));
        };
        let m = Guarded::new(M::NAME, m);
        let letter = |m: &M| A::wrap(Letter::new(m.clone(), ReplyTo::Timer, None));
        let make: MakeLetter<A> = Arc::new(move || m.get().map(letter));
        self.outbox().alarms.push(Box::new(move |only_new| {
            let now = Instant::now();
            // a time that no clock can tell is never
            let due = now.checked_add(after).unwrap_or(now + Duration::from_secs(86_400 * 365 * 30));
            coming.timers.set(Timer { name: coming.name.clone(), due, every, make }, only_new);
        }));
    }

    /// For the cell: the timers, where any were ever set.
    #[inline]
    pub(crate) fn timers(&self) -> Option<&Arc<Timers<A>>> {
        self.timers.get()
    }

    /// For the cell: whether a timer is pending.
    pub(crate) fn has_timers(&self) -> bool {
        self.timers().is_some_and(|timers| !timers.is_empty())
    }
}
