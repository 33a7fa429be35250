//! The task cell: the actor of one running task. It waits for the attempt, has recorded what a tool's attempt came
//! to, and sees that the dispatcher is told.
//!
//! An agent's attempt is recorded by the agent's own commit: state and end of the task together.

use std::{
    pin::Pin,
    sync::Arc,
    task::Poll,
    time::{Duration, Instant},
};

use actix::{fut::wrap_future, prelude::*};
use tokio_util::sync::CancellationToken;

use super::{
    dispatcher::{Dispatcher, Ended, How},
    doomed_tasks::{is_interrupted, unknown},
    node::Node,
    persistence::{ENDS, Outcome, Ticket},
    settle::{Attempt, finish},
};
use crate::{
    agent::{AskError, letter::JsonAnswer, slot::ReplyRx},
    clock,
    model::{
        event::{self, Event, Level},
        id::Target,
        journal::{JOINED, JournalWrite, Wait},
        task::Claimed,
    },
    store::{FinishOutcome, Guard, Unit},
    tool::{Call, Effect, Waits, course::Course},
};

/// How long a task waits that its agent could not take.
pub(super) const TURNED_AWAY: Duration = Duration::from_secs(2);

/// The time between two tries of what the store could not do.
const PAUSE: Duration = Duration::from_millis(500);

/// The actor of one running task.
pub(crate) struct TaskCell {
    pub node: Arc<Node>,
    pub dispatcher: Addr<Dispatcher>,
    pub claim: Arc<Claimed>,
    pub rx: Option<ReplyRx<JsonAnswer>>,
    /// What its run has left, if it waits for something.
    pub waits: Waits,
    pub cancel: CancellationToken,
    /// Has it go back, if it has not begun.
    pub recall: CancellationToken,
}

impl Actor for TaskCell {
    type Context = Context<Self>;

    fn started(&mut self, ctx: &mut Self::Context) {
        let Some(rx) = self.rx.take() else { return ctx.stop() };
        if self.node.logger.wants(Level::Debug, event::TASK_STARTED) {
            let event = Event::new(Level::Debug, event::TASK_STARTED, format!("task:{}", self.claim.id))
                .field("target", self.claim.target.to_string());
            self.node.logger.emit(event.field("attempt", self.claim.attempt));
        }
        let (node, claim, waits) = (self.node.clone(), self.claim.clone(), self.waits.clone());
        let (cancel, recall) = (self.cancel.clone(), self.recall.clone());
        let work = async move {
            match live(&node, &claim, rx, waits, (cancel, recall)).await {
                End::Came(outcome, times) if is_followed_up(&claim, &outcome) => {
                    End::Left(Box::pin(record(&node, &claim, outcome, times)).await)
                }
                end => end,
            }
        };
        ctx.spawn(wrap_future::<_, Self>(work).map(|end, this, ctx| {
            match end {
                End::Left(how) => {
                    let claim = this.claim.clone();
                    this.node.endings.tell(&this.dispatcher, Ended { claim, how, report: None });
                }
                End::Came(outcome, times) => this.leave(outcome, times),
            }
            ctx.stop();
        }));
    }
}

impl TaskCell {
    /// Leaves the record of an end to the writer, which tells the dispatcher of all the ends of a commit at once: a
    /// cell that waited for it would be woken for nothing else.
    fn leave(&self, outcome: FinishOutcome, times: Times) {
        let (node, dispatcher, claim) = (self.node.clone(), self.dispatcher.clone(), self.claim.clone());
        let report = Report::of(&outcome, times);
        let unit = unit_of(&claim, outcome);
        let hear = move |outcome: Outcome, unit: &Unit| {
            if is_over(&outcome) {
                // Somebody else has the claim where it is refused: this is not how it ended.
                let report = Some(report).filter(|_| matches!(outcome, Outcome::Durable));
                return node.endings.put(Ended { claim, how: How::Settled, report });
            }
            let unit = unit.clone();
            node.runtime.clone().spawn(async move {
                let recorded = again(&node, &outcome).await && commit(&node, unit).await;
                // Refused now, it may be since the try before has happened: it is told rather than not.
                let (how, report) = match recorded {
                    true => (How::Settled, Some(report)),
                    false => (unrecorded(&node, &claim), None),
                };
                node.endings.tell(&dispatcher, Ended { claim, how, report });
            });
        };
        self.node.persistence.write(ENDS, unit, Ticket::Heard(Box::new(hear)));
    }
}

/// How a task came to its end here.
enum End {
    /// Nothing is to be recorded any more.
    Left(How),
    /// This is to be recorded, and then told.
    Came(FinishOutcome, Times),
}

/// How long an attempt took.
#[derive(Debug, Clone, Copy)]
pub(super) struct Times {
    /// Before its handler began; of a first attempt only.
    waited: Option<Duration>,
    ran: Duration,
}

impl Times {
    /// Of one that has ended just now.
    pub(super) fn of(claim: &Claimed, begun: Instant) -> Self {
        let ran = begun.elapsed();
        Self { waited: claim.waited(clock::now()).map(|waited| waited.saturating_sub(ran)), ran }
    }
}

/// Whether something is to be done once it is recorded, or was recorded by somebody else.
fn is_followed_up(claim: &Claimed, outcome: &FinishOutcome) -> bool {
    matches!(claim.target, Target::Agent { .. }) || matches!(outcome, FinishOutcome::Parked)
}

enum Step {
    Answer(Option<JsonAnswer>),
    Cancelled,
    /// It has not begun, and goes back.
    Recalled,
}

async fn live(
    node: &Node,
    claim: &Claimed,
    mut rx: ReplyRx<JsonAnswer>,
    waits: Waits,
    (cancel, recall): (CancellationToken, CancellationToken),
) -> End {
    let begun = Instant::now();
    let mut cancelled = std::pin::pin!(cancel.cancelled());
    let (mut recalled, mut is_recalled) = (std::pin::pin!(recall.cancelled()), false);
    let step = std::future::poll_fn(|cx| {
        if let Poll::Ready(answer) = Pin::new(&mut rx).poll(cx) {
            return Poll::Ready(Step::Answer(answer));
        }
        if cancelled.as_mut().poll(cx).is_ready() {
            return Poll::Ready(Step::Cancelled);
        }
        // One that has begun runs on.
        if !is_recalled && recalled.as_mut().poll(cx).is_ready() {
            is_recalled = true;
            if rx.withdraw() {
                return Poll::Ready(Step::Recalled);
            }
        }
        Poll::Pending
    })
    .await;
    let for_agent = matches!(claim.target, Target::Agent { .. });
    let attempt: Attempt = match step {
        Step::Answer(None) if !waits.lock().is_empty() => {
            let waits = std::mem::take(&mut *waits.lock());
            return End::Left(Box::pin(wait(node, claim, waits)).await);
        }
        Step::Answer(None) => match &claim.target {
            // It may have begun.
            Target::Tool(name) if is_once(node, name) => Err(AskError::Unknown),
            Target::Tool(_) if node.breaks_off.is_cancelled() => {
                let event = Event::new(Level::Info, event::TASK_BROKEN_OFF, format!("task:{}", claim.id));
                let ran = super::millis(begun.elapsed());
                node.logger.emit(event.field("target", claim.target.to_string()).field("ran_ms", ran));
                return End::Left(How::BrokenOff);
            }
            Target::Tool(_) => return End::Left(How::BrokenOff),
            Target::Agent { .. } => return End::Left(How::Unsettled),
        },
        Step::Answer(Some(Ok(reply))) if for_agent => {
            let result = reply.body.get().as_bytes().to_vec();
            tell(node, claim, &FinishOutcome::Succeeded { result }, Times::of(claim, begun));
            return End::Left(How::Settled);
        }
        // The node goes down before the turn began: the next boot has it at once. Or it is wanted back, or its time to
        // begin has passed.
        Step::Answer(Some(Err(AskError::Unavailable(_))))
            if node.is_closing() || recall.is_cancelled() || claim.has_expired(clock::now) =>
        {
            return End::Left(How::Unsettled);
        }
        // Nothing happened, and nothing is wrong with the task: its turn comes again, and this was no
        // attempt. Not at once: whoever turned it away may do so for a while.
        Step::Answer(Some(Err(AskError::Unavailable(_)))) => {
            let _ = tokio::time::timeout(TURNED_AWAY, cancel.cancelled()).await;
            return End::Left(How::Unsettled);
        }
        Step::Answer(Some(answer)) => answer.map(|reply| reply.body.get().as_bytes().to_vec()),
        Step::Recalled => return End::Left(How::Unsettled),
        Step::Cancelled => {
            if for_agent && !rx.withdraw() {
                // The turn runs, and is asked to end: it may still succeed.
                return match rx.await {
                    Some(Ok(_)) => End::Left(How::Settled),
                    // Most likely the agent's commit has said so already, and this changes nothing.
                    Some(Err(_)) => End::Came(FinishOutcome::Cancelled, Times::of(claim, begun)),
                    None => End::Left(How::Unsettled),
                };
            }
            match (&claim.target, rx.withdraw()) {
                // It has begun, and is asked to end. An effect that happens once is waited for, its own or that of
                // a tool that it has called: only its end tells whether it happened.
                (Target::Tool(name), false) => {
                    let call = node.calls.get(&claim.id).map(|call| call.clone());
                    let interrupts = || call.as_ref().and_then(Call::course).is_some_and(Course::close);
                    call.iter().for_each(Call::cancel);
                    let once = is_once(node, name);
                    if !once && !interrupts() {
                        return Box::pin(undone(node, claim, begun)).await;
                    }
                    match rx.await {
                        None if !once && !interrupts() => return Box::pin(undone(node, claim, begun)).await,
                        None | Some(Err(AskError::Unknown)) => Err(AskError::Unknown),
                        // Its call that takes effect once has come to its end, and is recorded.
                        Some(Err(_)) if !once => return Box::pin(undone(node, claim, begun)).await,
                        Some(answer) => answer.map(|reply| reply.body.get().as_bytes().to_vec()),
                    }
                }
                _ => return Box::pin(undone(node, claim, begun)).await,
            }
        }
    };
    // An agent's commit may have recorded its error already: then the claim is not there any more,
    // and this changes nothing.
    let times = Times::of(claim, begun);
    End::Came(node.settle(claim, attempt), times)
}

/// The end of a task that was cancelled and has not come to another: unless an attempt before, that was lost, has begun
/// what takes effect once. Where the store does not say so, its node's next start does.
async fn undone(node: &Node, claim: &Claimed, begun: Instant) -> End {
    let outcome = loop {
        match is_interrupted(node, claim).await {
            Ok(false) => break FinishOutcome::Cancelled,
            Ok(true) => break FinishOutcome::OutcomeUnknown { error: unknown() },
            Err(_) if node.is_closing() => return End::Left(How::Unsettled),
            Err(_) => tokio::time::sleep(PAUSE).await,
        }
    };
    End::Came(outcome, Times::of(claim, begun))
}

/// Ends a claimed task that was cancelled before this attempt at it has begun.
pub(super) async fn cancel_unbegun(node: &Node, claim: &Claimed) -> How {
    match undone(node, claim, Instant::now()).await {
        End::Came(outcome, times) => record(node, claim, outcome, times).await,
        End::Left(how) => how,
    }
}

/// Whether a tool's effect happens once.
pub(super) fn is_once(node: &Node, tool: &str) -> bool {
    node.tools.get(tool).is_some_and(|tool| tool.effect() == Effect::Once)
}

/// Commits that a task waits: its run is over, its attempt given back.
async fn wait(node: &Node, claim: &Claimed, waits: Vec<Wait>) -> How {
    if node.logger.wants(Level::Info, event::TASK_WAITING) {
        let names: Vec<&str> = waits.iter().map(|wait| &*wait.name).collect();
        let mut event = Event::new(Level::Info, event::TASK_WAITING, format!("task:{}", claim.id))
            .field("target", claim.target.to_string())
            .field("waiting_for", names.join(", "));
        // What tells of the end of a batch is nobody's to send.
        let sent: Vec<&str> = names.into_iter().filter(|name| !name.starts_with(JOINED)).collect();
        if !sent.is_empty() {
            event = event.hint(format!("greenroom tasks signal {} {}", claim.id, sent.join("|")));
        }
        node.logger.emit(event);
    }
    let write = JournalWrite { waits, ..JournalWrite::of(claim.id, claim.claim) };
    match commit(node, Unit { journal: Some(write), ..Unit::default() }).await {
        true => {
            // The signal may be there, and a wait has its end.
            node.wake_dispatcher(true);
            How::Settled
        }
        false => How::BrokenOff,
    }
}

/// The unit that ends an attempt.
fn unit_of(claim: &Claimed, outcome: FinishOutcome) -> Unit {
    let (ended, done) = finish(claim, Guard::Running { attempt: claim.attempt }, outcome);
    Unit { finished: vec![ended], accepted: done.into_iter().collect(), ..Unit::default() }
}

/// Commits the end of an attempt that no agent's turn commits.
pub(super) async fn record(node: &Node, claim: &Claimed, outcome: FinishOutcome, times: Times) -> How {
    if !commit(node, unit_of(claim, outcome.clone())).await {
        return unrecorded(node, claim);
    }
    tell(node, claim, &outcome, times);
    if matches!(outcome, FinishOutcome::Parked) {
        unpark_if_open(node, claim).await;
    }
    How::Settled
}

/// How a task leaves whose end is not recorded, since the node goes down. One that must not begin again is claimed
/// still: the next boot finds it lost.
fn unrecorded(node: &Node, claim: &Claimed) -> How {
    match &claim.target {
        Target::Tool(name) if is_once(node, name) => How::Unrecorded,
        Target::Tool(_) => How::BrokenOff,
        Target::Agent { .. } => How::Unsettled,
    }
}

/// Commits a unit of a claim, however long the store takes. `false`: the node goes down, and the task is still
/// claimed by this boot.
async fn commit(node: &Node, unit: Unit) -> bool {
    loop {
        let outcome = node.persistence.commit(ENDS, unit.clone()).await;
        if is_over(&outcome) {
            return true;
        }
        if !again(node, &outcome).await {
            return false;
        }
    }
}

/// Whether a commit need not be tried again: it has happened, or somebody else has the claim.
fn is_over(outcome: &Outcome) -> bool {
    matches!(outcome, Outcome::Durable | Outcome::Refused(_))
}

/// Waits for the time to try a commit again; one whose reply was lost is refused then, if it has happened. `false`:
/// the node goes down.
async fn again(node: &Node, outcome: &Outcome) -> bool {
    if matches!(outcome, Outcome::Failed(_) | Outcome::Unknown) && node.is_closing() {
        return false;
    }
    tokio::time::sleep(PAUSE).await;
    true
}

/// An agent may have been taken back into service before its task was parked: nobody else would
/// look for the task then.
async fn unpark_if_open(node: &Node, claim: &Claimed) {
    let Target::Agent { kind, key } = &claim.target else { return };
    if node.kind(kind).is_some_and(|(_, kind)| kind.is_open(key)) {
        let _ = node.unpark(&claim.target.to_string()).await;
    }
}

/// How an attempt ended, for whoever tells of it once it is recorded: what it came to is not told.
pub(crate) struct Report {
    outcome: FinishOutcome,
    times: Times,
}

impl Report {
    fn of(outcome: &FinishOutcome, times: Times) -> Self {
        let outcome = match outcome {
            FinishOutcome::Succeeded { .. } => FinishOutcome::Succeeded { result: Vec::new() },
            other => other.clone(),
        };
        Self { outcome, times }
    }

    /// Writes it down, and counts it. Where the log is slow this waits for it.
    pub(super) fn tell(&self, node: &Node, claim: &Claimed) {
        tell(node, claim, &self.outcome, self.times);
    }
}

/// Writes down how an attempt ended, and counts it.
fn tell(node: &Node, claim: &Claimed, outcome: &FinishOutcome, times: Times) {
    let (name, word, level, error) = match outcome {
        FinishOutcome::Succeeded { .. } => (event::TASK_SUCCEEDED, "ok", Level::Debug, None),
        FinishOutcome::Failed { error } if error.code == "refused" => {
            (event::TASK_FAILED, "refused", Level::Debug, Some(error))
        }
        FinishOutcome::Failed { error } => (event::TASK_FAILED, "failed", Level::Error, Some(error)),
        FinishOutcome::Retry { error, .. } => (event::TASK_RETRY, "retry", Level::Info, Some(error)),
        FinishOutcome::OutcomeUnknown { error } => {
            (event::TASK_OUTCOME_UNKNOWN, "unknown", Level::Error, Some(error))
        }
        FinishOutcome::Parked => (event::TASK_PARKED, "parked", Level::Debug, None),
        FinishOutcome::Cancelled => (event::TASK_CANCELLED, "cancelled", Level::Debug, None),
    };
    node.metrics.attempt(word, times.waited, times.ran);
    if node.logger.wants(level, name) {
        let mut event = Event::new(level, name, format!("task:{}", claim.id))
            .field("target", claim.target.to_string())
            .field("attempt", claim.attempt)
            .field("max_attempts", claim.max_attempts);
        if let Some(error) = error {
            event = event.field("error", error.message.clone()).field("code", error.code.clone());
            event = event.caused_by(error.chain.iter().map(String::as_str));
        }
        if name == event::TASK_FAILED && level == Level::Error {
            event = event.hint(format!("greenroom tasks show {}", claim.id));
        }
        node.logger.emit(event);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// What a function's future takes.
    fn size_of_its_future<A, B, C, D, E, F>(_: fn(A, B, C, D, E) -> F) -> usize {
        size_of::<F>()
    }

    /// Thousands wait at once, and each is moved into its place: what seldom happens to one has a box of its own.
    #[test]
    fn a_task_that_waits_for_its_attempt_is_small() {
        let size = size_of_its_future(live);
        assert!(size <= 768, "{size} bytes");
    }
}
