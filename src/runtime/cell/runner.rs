//! The one loop of an agent's life.
//!
//! ```text
//! restore ──► wait ──► run turns ahead ──► flush ──► wait …      (one commit under way at most)
//!    ▲          ╰─ outcome: durable → release · not durable → drop all, restore
//!    ╰──────────── a turn failed: decode the last image, run the uncovered turns again without it
//! ```
//!
//! A turn that fails harms no neighbour: what ran beside it and is not durable runs again on the
//! last image. Nothing of a turn leaves before the commit that covers it is durable.

use std::{
    collections::VecDeque,
    pin::Pin,
    sync::{Arc, atomic::Ordering},
    task::{Context, Poll},
    time::Duration,
};

use tokio::time::{Instant, Sleep};

use super::window::{Air, Window, fail, release};
use crate::{
    agent::{Agent, AskError, Envelope as _, Persistence, Ran, Turn, lane::Lane, messages::EnvelopeOf},
    model::event::{Event, Level},
    runtime::{
        crashes::guard,
        inbox::{Control, Inbox, Phase},
        kind::Kind,
        node::Node,
        persistence::Outcome,
    },
};

/// At most so many turns run ahead of the disk.
pub(super) const MAX_WINDOW: usize = 256;
/// At most so many bytes of outputs wait for one commit.
const MAX_OUTPUT_BYTES: usize = 1 << 20;
/// Turns until the cell looks up from its work.
const BUDGET: u32 = 256;
/// At most so many turns until it looks at the clock, which costs as much as a good part of a short turn.
const UNTIMED: u32 = 16;
/// How long a cell works before its neighbours have their turn.
const SLICE: Duration = Duration::from_micros(200);
/// Why the runner ends.
pub(super) enum Exit {
    /// The lane has been let go in good order.
    Detached,
    /// The agent takes no messages any more, for this reason.
    Shut(Arc<str>),
}

enum Next {
    Batch,
    Outcome(Outcome),
    Control(Control),
}

/// A step of the loop. Boxed, and made outside of it: an agent at rest is as large as the loop's future with all
/// that it holds across its waits, and has no use for the room that its handlers need.
type Step<'a> = Pin<Box<dyn Future<Output = Option<Exit>> + 'a>>;

/// The one loop of an agent's life.
pub(super) struct Runner<A: Agent> {
    pub(super) node: Arc<Node>,
    pub(super) kind: Arc<Kind<A>>,
    pub(super) lane: Arc<Lane<A>>,
    pub(super) batch: VecDeque<EnvelopeOf<A>>,
    /// Of the batch, so many turns have begun in place: they are answered, but for the last.
    pub(super) begun: usize,
    pub(super) window: Window<A>,
    pub(super) air: Air,
    pub(super) turn: Turn<A>,
    pub(super) agent: Option<Box<A>>,
    pub(super) epoch: i64,
    /// How many turns may run ahead: shrinks when turns fail, grows when commits succeed.
    pub(super) limit: usize,
    /// What has run is not to wait until all that waits has run.
    pub(super) overdue: bool,
    /// Nothing runs until everything that ran is durable.
    pub(super) barrier: bool,
    /// Crashes since the last successful turn.
    pub(super) streak: u32,
    pub(super) retire: bool,
    /// How often operators had decided on the lane's entrance when this cell last looked.
    pub(super) decided: u64,
    pub(super) flushed_at: Instant,
    pub(super) detached: bool,
    /// A test looks at each step of its turns.
    pub(super) probed: bool,
    /// Rings for the agent's next timer.
    pub(super) alarm: Option<Pin<Box<Sleep>>>,
    /// Turns, and those of them that failed, which the metrics have not been told of.
    pub(super) turns: u32,
    pub(super) failures: u32,
    /// When it last let its neighbours work, if it has worked since.
    pub(super) since: Option<Instant>,
    /// They are to have their turn.
    pub(super) yields: bool,
    /// Counts turns: one of many is timed.
    pub(super) nth: u32,
}
impl<A: Agent> Runner<A> {
    pub(super) fn new(
        node: Arc<Node>,
        kind: Arc<Kind<A>>,
        lane: Arc<Lane<A>>,
        inbox: Arc<Inbox>,
        is_double: bool,
    ) -> Self {
        let probed = inbox.is_probed;
        let mut turn = Turn::new(node.host(), lane.clone());
        turn.is_double = is_double;
        turn.activation = Some(inbox.clone());
        Self {
            epoch: node.epoch(lane.name.id),
            turn,
            batch: VecDeque::new(),
            begun: 0,
            window: Window::default(),
            air: Air { inbox, flight: None, image: None, version: 0, contended: 0, waited: None },
            agent: None,
            limit: MAX_WINDOW,
            overdue: false,
            barrier: false,
            streak: 0,
            retire: false,
            decided: 0,
            flushed_at: Instant::now(),
            detached: false,
            probed,
            alarm: None,
            turns: 0,
            failures: 0,
            since: None,
            yields: false,
            nth: 0,
            node,
            kind,
            lane,
        }
    }

    /// Whether its state is not kept; a test's double has none.
    pub(super) fn volatile(&self) -> bool {
        self.turn.is_double || matches!(self.kind.policy.persistence, Persistence::Volatile)
    }

    pub(super) fn subject(&self) -> String {
        self.lane.name.subject()
    }

    pub(super) fn inbox(&self) -> &Inbox {
        &self.air.inbox
    }

    /// Lives until the agent leaves memory.
    pub(super) fn run(self) -> impl Future<Output = ()> {
        // An `async fn` would hold it twice: as its argument and as its variable.
        let mut me = self;
        async move {
            match me.live().await {
                Exit::Detached => {}
                Exit::Shut(why) => me.shut(&why),
            }
            me.answer_rest();
        }
    }

    /// What failed has its answer; nothing else is left here in good order.
    fn answer_rest(&mut self) {
        for mut entry in std::mem::take(&mut self.window).entries {
            if entry.ran != Ran::Failed {
                entry.letter.letter_mut().fail(AskError::Unavailable("the agent has left memory".to_owned()));
            }
            release([entry], Vec::new(), 0);
        }
    }

    async fn live(&mut self) -> Exit {
        if let Some(exit) = Box::pin(self.restore()).await {
            return exit;
        }
        loop {
            let next = self.next().await;
            if let Some(step) = self.follow(next)
                && let Some(exit) = step.await
            {
                return exit;
            }
            while let Some(step) = self.flush_what_is_due() {
                if let Some(exit) = step.await {
                    return exit;
                }
            }
        }
    }

    /// Does what is to be done next, if that is more than a moment's work.
    fn follow(&mut self, next: Next) -> Option<Step<'_>> {
        Some(match next {
            Next::Outcome(outcome) => match self.landed(outcome) {
                Ok(()) => return None,
                Err(outcome) => Box::pin(self.lost(outcome)),
            },
            Next::Batch => Box::pin(self.work()),
            Next::Control(control) => Box::pin(self.controlled(control)),
        })
    }

    /// Again after a flush that came to nothing: what it left is to be flushed as well.
    fn flush_what_is_due(&mut self) -> Option<Step<'_>> {
        while self.flush_is_due() {
            if let Err(error) = self.hand_over() {
                return Some(Box::pin(self.unwritable(error)));
            }
        }
        None
    }

    /// Whether no turn may start: what it did could not be kept.
    pub(super) fn is_troubled(&self) -> bool {
        self.node.is_troubled(self.volatile())
    }

    /// The same, by the clock too.
    fn is_past(&self) -> bool {
        self.is_troubled() || self.node.owned.is_past(self.node.uptime())
    }

    /// Whether another turn may run now.
    pub(super) fn can_run(&self) -> bool {
        let bytes = self.window.outbox.as_ref().map_or(0, |outbox| outbox.bytes);
        let room = self.window.entries.len() < self.limit && bytes < MAX_OUTPUT_BYTES;
        room && !(self.barrier && (self.air.flight.is_some() || !self.window.is_empty()))
    }

    async fn next(&mut self) -> Next {
        if std::mem::take(&mut self.yields) {
            self.since = None;
            tokio::task::yield_now().await;
        }
        // Once a batch the clock is asked too.
        if !self.barrier
            && !self.batch.is_empty()
            && !self.lane.has_urgent()
            && !self.inbox().has_outcome()
            && self.can_run()
            && self.inbox().control() < Control::Renew
            && !self.is_past()
        {
            return Next::Batch;
        }
        if self.batch.is_empty() && self.air.flight.is_none() && self.window.is_empty() {
            self.rest();
        }
        std::future::poll_fn(|cx| {
            let next = self.look(cx);
            if next.is_pending() {
                self.since = None;
            }
            next
        })
        .await
    }

    /// What is to be done next, if there is anything.
    fn look(&mut self, cx: &mut Context<'_>) -> Poll<Next> {
        self.air.inbox.waker.register(cx.waker());
        if let Some(outcome) = self.air.inbox.take_outcome() {
            return Poll::Ready(Next::Outcome(outcome));
        }
        let quiet = self.air.flight.is_none() && self.window.is_empty();
        match self.air.inbox.control() {
            Control::None => {}
            Control::Flush => {
                self.air.inbox.done(Control::Flush);
                if !self.window.is_empty() && self.air.flight.is_none() {
                    return Poll::Ready(Next::Control(Control::Flush));
                }
            }
            Control::Passivate if quiet && self.batch.is_empty() => {
                return Poll::Ready(Next::Control(Control::Passivate));
            }
            Control::Passivate if self.air.flight.is_none() && self.batch.is_empty() => {
                return Poll::Ready(Next::Control(Control::Flush));
            }
            Control::Passivate => {}
            control if quiet => return Poll::Ready(Next::Control(control)),
            _ if self.air.flight.is_none() => return Poll::Ready(Next::Control(Control::Flush)),
            _ => {
                if self.is_troubled() {
                    self.turn_askers_away(cx);
                }
                return Poll::Pending;
            }
        }
        if self.retire && quiet && self.batch.is_empty() && self.lane.depth() == 0 {
            return Poll::Ready(Next::Control(Control::Passivate));
        }
        if self.is_troubled() {
            self.turn_askers_away(cx);
            return Poll::Pending;
        }
        if self.can_run() {
            if quiet {
                self.barrier = false;
            }
            self.ring(cx);
            if self.lane.has_urgent() {
                self.lane.take_urgent(&mut self.batch);
            }
            if !self.batch.is_empty() || self.lane.poll_batch(&mut self.batch, cx) {
                if self.is_past() {
                    self.turn_askers_away(cx);
                    return Poll::Pending;
                }
                return Poll::Ready(Next::Batch);
            }
        }
        Poll::Pending
    }

    /// Takes in the messages of timers that are due.
    fn ring(&mut self, cx: &mut Context<'_>) {
        let Some(timers) = self.turn.timers().cloned() else { return };
        if self.is_past() {
            return; // what it would bring could not be handled, and more would come each time
        }
        timers.poll(&mut self.alarm, cx, |name, make| match guard(|| make()) {
            Ok(letter) => self.batch.extend(letter),
            Err((message, site)) => {
                let event = Event::new(Level::Warn, "agent.timer_panicked", self.lane.name.subject());
                let event = event.field("timer", name.to_owned()).field("message", message);
                self.node.logger.emit(event.field_opt("site", site));
            }
        });
    }

    /// Nothing to do: tell the figures, keep little.
    fn rest(&mut self) {
        self.report_turns();
        self.limit = self.limit.max(1);
        self.inbox().set_phase(Phase::Idle);
    }

    pub(super) fn report_turns(&mut self) {
        if self.turns > 0 {
            self.kind.metrics.turns(self.turns, self.failures);
            (self.turns, self.failures) = (0, 0);
        }
    }

    /// Puts itself behind the others who may have to leave.
    pub(super) fn note_use(&self) {
        if self.kind.policy.residency.is_bounded() {
            self.inbox().used_at.store(self.node.starts.load(Ordering::Relaxed) as u32, Ordering::Relaxed);
        }
    }

    /// Runs what waits, until it must look up.
    async fn work(&mut self) -> Option<Exit> {
        self.inbox().active_at.store(self.node.tick(), Ordering::Relaxed);
        self.inbox().set_phase(Phase::Active);
        self.note_use();
        let (mut left, mut check, mut until) = (BUDGET, 1u32, 1u32);
        // A slice may be many batches of one.
        let since = *self.since.get_or_insert_with(Instant::now);
        while let Some(letter) = self.batch.get(self.begun) {
            // Most letters say nothing beside their message.
            let exit = if letter.is_plain() {
                match self.drive_in_place().await {
                    Some(end) if !self.is_answered(&end) => {
                        self.begun -= 1;
                        self.sweep();
                        match self.batch.pop_front() {
                            Some(letter) => self.take_turn(letter, end).await,
                            None => None,
                        }
                    }
                    _ => None,
                }
            } else {
                self.sweep();
                Box::pin(self.work_rarely()).await
            };
            if exit.is_some() {
                return exit;
            }
            if self.inbox().has_outcome() || !self.can_run() || self.retire || self.is_troubled() {
                break;
            }
            if self.inbox().control() >= Control::Renew {
                break;
            }
            if self.lane.has_urgent() {
                self.sweep();
                self.lane.take_urgent(&mut self.batch);
            }
            left -= 1;
            until -= 1;
            // The clock is asked rarely while turns are short, and every turn while they are long.
            if left == 0 || until == 0 || self.air.waited.is_some() {
                self.sweep();
                let spent = since.elapsed();
                if left == 0 || spent > SLICE {
                    self.overdue |= spent > SLICE;
                    self.yields = true;
                    break;
                }
                if spent < SLICE / 4 {
                    check = (check * 2).min(UNTIMED);
                }
                until = check;
            }
        }
        self.sweep();
        None
    }

    /// Runs a letter that says something beside its message, if it may begin.
    async fn work_rarely(&mut self) -> Option<Exit> {
        let letter = self.batch.pop_front()?;
        let mut letter = self.admit(letter).await?;
        let end = self.drive(&mut letter).await;
        self.take_turn(letter, end).await
    }

    async fn controlled(&mut self, control: Control) -> Option<Exit> {
        match control {
            Control::None => None,
            Control::Flush => {
                if self.window.is_empty() {
                    None
                } else {
                    Box::pin(self.flush()).await
                }
            }
            Control::Passivate => self.passivate().await,
            // It has had its part already.
            Control::Renew if self.inbox().held.lock().part.is_none() => {
                self.inbox().done(Control::Renew);
                None
            }
            Control::Renew => {
                self.forgive();
                self.close().await;
                self.inbox().done(Control::Renew);
                self.revive().await
            }
            Control::Crash => {
                self.inbox().done(Control::Crash);
                self.die().await
            }
            Control::Leave | Control::Drain | Control::Cut => {
                self.inbox().set_phase(Phase::Stopping);
                self.close().await;
                Some(self.let_go())
            }
        }
    }
}

impl<A: Agent> Drop for Runner<A> {
    fn drop(&mut self) {
        self.report_turns();
        // The turn that was running is dropped with its letter: it must not run again.
        self.sweep();
        self.drop_agent();
        fail(&self.lane, self.air.recall::<A>().into_iter().map(|e| e.letter), &AskError::Unknown);
        if !self.detached {
            self.let_go();
        }
        let inbox = &self.air.inbox;
        self.kind.live.remove_if(&self.lane.name.key, |live| Arc::ptr_eq(&live.inbox, inbox));
        self.kind.gone();
    }
}

#[cfg(test)]
mod tests {
    use serde::{Deserialize, Serialize};

    use super::*;

    #[derive(Default, Serialize, Deserialize)]
    struct Idle;

    impl Agent for Idle {
        const KIND: &'static str = "idle";
        type Messages = ();
    }

    /// A million agents at rest are to fit in 2 GiB: their loops are half a kilobyte each, the half of what is there
    /// for an allocator's rounding, actix's context and the lane.
    #[test]
    fn the_loop_of_an_agent_at_rest_is_small() {
        fn bytes<F>(_: impl FnOnce(Runner<Idle>) -> F) -> usize {
            size_of::<F>()
        }
        let bytes = bytes(|runner| runner.run());
        assert!(bytes <= 496, "it grew to {bytes} bytes: something is held across a wait that need not be");
    }
}
