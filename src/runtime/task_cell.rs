//! The task cell: the actor of one running task. It waits for the attempt, records what a tool's
//! attempt came to, and tells the dispatcher.
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
    node::Node,
    persistence::{ENDS, Outcome},
    settle::{Attempt, finish},
};
use crate::{
    agent::{AskError, letter::JsonAnswer, slot::ReplyRx},
    clock,
    model::{
        event::{self, Event, Level},
        id::Target,
        journal::{JournalWrite, Wait},
        task::Claimed,
    },
    store::{FinishOutcome, Guard, Unit},
    tool::{Effect, Waits},
};

/// How long a task waits that its agent could not take.
const TURNED_AWAY: Duration = Duration::from_secs(2);

/// The actor of one running task.
pub(crate) struct TaskCell {
    pub node: Arc<Node>,
    pub dispatcher: Addr<Dispatcher>,
    pub claim: Arc<Claimed>,
    pub rx: Option<ReplyRx<JsonAnswer>>,
    /// What its run has left, if it waits for something.
    pub waits: Waits,
    pub cancel: CancellationToken,
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
        let (node, claim, cancel) = (self.node.clone(), self.claim.clone(), self.cancel.clone());
        let waits = self.waits.clone();
        let work = async move { live(node, claim, rx, waits, cancel).await };
        ctx.spawn(wrap_future::<_, Self>(work).map(|how, this, ctx| {
            this.dispatcher.do_send(Ended { claim: this.claim.clone(), how });
            ctx.stop();
        }));
    }
}

enum Step {
    Answer(Option<JsonAnswer>),
    Cancelled,
}

async fn live(
    node: Arc<Node>,
    claim: Arc<Claimed>,
    mut rx: ReplyRx<JsonAnswer>,
    waits: Waits,
    cancel: CancellationToken,
) -> How {
    let begun = Instant::now();
    let mut cancelled = std::pin::pin!(cancel.cancelled());
    let step = std::future::poll_fn(|cx| {
        if let Poll::Ready(answer) = Pin::new(&mut rx).poll(cx) {
            return Poll::Ready(Step::Answer(answer));
        }
        match cancelled.as_mut().poll(cx) {
            Poll::Ready(()) => Poll::Ready(Step::Cancelled),
            Poll::Pending => Poll::Pending,
        }
    })
    .await;
    let for_agent = matches!(claim.target, Target::Agent { .. });
    let attempt: Attempt = match step {
        Step::Answer(None) if !waits.lock().is_empty() => {
            let waits = std::mem::take(&mut *waits.lock());
            return wait(&node, &claim, waits).await;
        }
        Step::Answer(None) => match &claim.target {
            // It may have begun.
            Target::Tool(name) if is_once(&node, name) => Err(AskError::Unknown),
            _ => return How::Unsettled,
        },
        Step::Answer(Some(Ok(reply))) if for_agent => {
            let result = reply.body.get().as_bytes().to_vec();
            tell(&node, &claim, &FinishOutcome::Succeeded { result }, begun);
            return How::Settled;
        }
        // The node goes down before the turn began: the next boot has it at once.
        Step::Answer(Some(Err(AskError::Unavailable(_)))) if node.is_closing() => return How::Unsettled,
        // Nothing happened, and nothing is wrong with the task: its turn comes again, and this was no
        // attempt. Not at once: whoever turned it away may do so for a while.
        Step::Answer(Some(Err(AskError::Unavailable(_)))) if for_agent => {
            let _ = tokio::time::timeout(TURNED_AWAY, cancel.cancelled()).await;
            return How::Unsettled;
        }
        Step::Answer(Some(answer)) => answer.map(|reply| reply.body.get().as_bytes().to_vec()),
        Step::Cancelled => {
            if for_agent && !rx.withdraw() {
                // The turn runs, and is asked to end: it may still succeed.
                return match rx.await {
                    Some(Ok(_)) => How::Settled,
                    // Most likely the agent's commit has said so already, and this changes nothing.
                    Some(Err(_)) => {
                        tell(&node, &claim, &FinishOutcome::Cancelled, begun);
                        record(&node, &claim, FinishOutcome::Cancelled).await
                    }
                    None => How::Unsettled,
                };
            }
            match (&claim.target, rx.withdraw()) {
                // It has begun, and is asked to end. An effect that happens once is waited for: only
                // its end tells whether it happened.
                (Target::Tool(name), false) => {
                    if let Some(call) = node.calls.pin().get(&claim.id) {
                        call.cancel();
                    }
                    match is_once(&node, name).then_some(rx) {
                        Some(rx) => match rx.await {
                            Some(answer) => answer.map(|reply| reply.body.get().as_bytes().to_vec()),
                            None => Err(AskError::Unknown),
                        },
                        None => return record(&node, &claim, FinishOutcome::Cancelled).await,
                    }
                }
                _ => return record(&node, &claim, FinishOutcome::Cancelled).await,
            }
        }
    };
    // An agent's commit may have recorded its error already: then the claim is not there any more,
    // and this changes nothing.
    let outcome = node.settle(&claim, attempt);
    tell(&node, &claim, &outcome, begun);
    record(&node, &claim, outcome).await
}

fn is_once(node: &Node, tool: &str) -> bool {
    node.tools.get(tool).is_some_and(|tool| tool.effect() == Effect::Once)
}

/// Commits that a task waits: its run is over, its attempt given back.
async fn wait(node: &Node, claim: &Claimed, waits: Vec<Wait>) -> How {
    if node.logger.wants(Level::Info, event::TASK_WAITING) {
        let names: Vec<&str> = waits.iter().map(|wait| &*wait.name).collect();
        let event = Event::new(Level::Info, event::TASK_WAITING, format!("task:{}", claim.id))
            .field("target", claim.target.to_string())
            .field("waiting_for", names.join(", "));
        node.logger.emit(event.hint(format!("greenroom tasks signal {} {}", claim.id, names.join("|"))));
    }
    let write = JournalWrite { waits, ..JournalWrite::of(claim.id, claim.claim) };
    match commit(node, Unit { journal: Some(write), ..Unit::default() }).await {
        Some(()) => {
            // The signal may be there, and a wait has its end.
            node.wake_dispatcher(true);
            How::Settled
        }
        None => How::Unsettled,
    }
}

/// Commits the end of an attempt that no agent's turn commits.
pub(crate) async fn record(node: &Node, claim: &Claimed, outcome: FinishOutcome) -> How {
    let parked = matches!(outcome, FinishOutcome::Parked);
    let (ended, done) = finish(claim, Guard::Running { attempt: claim.attempt }, outcome);
    let unit = Unit { finished: vec![ended], accepted: done.into_iter().collect(), ..Unit::default() };
    match commit(node, unit).await {
        Some(()) => {
            if parked {
                unpark_if_open(node, claim).await;
            }
            How::Settled
        }
        // It is claimed still: the next boot finds it lost, which says that it may have begun.
        None if matches!(&claim.target, Target::Tool(name) if is_once(node, name)) => How::Unrecorded,
        None => How::Unsettled,
    }
}

/// Commits a unit of a claim, however long the store takes; `None`: the node goes down, and the task is still
/// claimed by this boot: a later one would find it lost.
async fn commit(node: &Node, unit: Unit) -> Option<()> {
    loop {
        match node.persistence.commit(ENDS, unit.clone()).await {
            Outcome::Durable | Outcome::Refused(_) => return Some(()),
            Outcome::Failed(_) | Outcome::Unknown if node.is_closing() => return None,
            // Sent once more it is refused where it has happened, or somebody else has the claim.
            Outcome::Full(_) | Outcome::Failed(_) | Outcome::Unknown => {
                tokio::time::sleep(Duration::from_millis(500)).await
            }
        }
    }
}

/// An agent may have been taken back into service before its task was parked: nobody else would
/// look for the task then.
async fn unpark_if_open(node: &Node, claim: &Claimed) {
    let Target::Agent { kind, key } = &claim.target else { return };
    if node.kind(kind).is_some_and(|(_, kind)| kind.is_open(key)) {
        let _ = node.unpark(&claim.target.to_string()).await;
    }
}

fn tell(node: &Node, claim: &Claimed, outcome: &FinishOutcome, begun: Instant) {
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
    let ran = begun.elapsed();
    let waited = claim.waited(clock::now()).map(|w| w.saturating_sub(ran));
    node.metrics.attempt(word, waited, ran);
    if node.logger.wants(level, name) {
        let mut event = Event::new(level, name, format!("task:{}", claim.id))
            .field("target", claim.target.to_string())
            .field("attempt", claim.attempt)
            .field("max_attempts", claim.max_attempts);
        if let Some(error) = error {
            event = event.field("error", error.message.clone());
        }
        if name == event::TASK_FAILED && level == Level::Error {
            event = event.hint(format!("greenroom tasks show {}", claim.id));
        }
        node.logger.emit(event);
    }
}
