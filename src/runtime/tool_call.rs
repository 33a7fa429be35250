//! One call of a tool: it runs on the multi-thread runtime, and comes to an end whatever it does.

use std::{
    future::Future,
    pin::Pin,
    sync::Arc,
    task::{Context as Cx, Poll},
    time::Duration,
};

use tokio::time::Instant;
use tokio_util::sync::CancellationToken;
use uuid::Uuid;

use super::{
    crashes::{dropped_badly, guard},
    node::Node,
    tool_cell::Shared,
};
use crate::{
    agent::{AskError, Fault, JsonReply, Message as Typed, Refused, letter::Answer},
    clock,
    model::id::TaskId,
    tool::{
        Call, Effect, Invocation, InvocationReply,
        course::{Course, Halt},
    },
};

/// How long a call may take when its tool does not say.
pub(super) const DEFAULT_TIMEOUT: Duration = Duration::from_secs(30);
/// How long a call that is asked to end may take for it, before it is dropped.
const GRACE: Duration = Duration::from_secs(1);
/// What a panic said, and where.
type Panic = (String, Option<String>);

/// The report of a crash: its id, what it said and where.
pub(super) type Crash = (String, Option<String>, Option<String>);

/// Answers a call.
pub(super) fn answer<M: Typed>(reply: InvocationReply<M>, answer: Answer<M>, once: bool) {
    // The reply may be dropped here, and is the user's value.
    let answered = guard(|| match reply {
        InvocationReply::Typed(tx) => drop(tx.send(answer)),
        InvocationReply::Json(tx) => drop(tx.send(answer.map_err(AskError::into_json).and_then(|reply| {
            let why = match guard(|| serde_json::value::to_raw_value(&reply)) {
                Ok(Ok(body)) => return Ok(JsonReply { body, version: 0, turn: None, replayed: false }),
                Ok(Err(e)) => e.to_string(),
                Err((message, _)) => message,
            };
            // An effect that happens once has happened: its task must not run again by itself.
            let fault = || Fault::new(format!("the reply cannot be written as JSON: {why}"));
            Err(if once { AskError::Unknown } else { AskError::Failed(fault()) })
        }))),
    });
    if let Err(panic) = answered {
        dropped_badly(M::NAME, panic);
    }
}

fn begins<M: Typed>(reply: &InvocationReply<M>) -> bool {
    match reply {
        InvocationReply::Typed(tx) => tx.start(),
        InvocationReply::Json(tx) => tx.start(),
    }
}

/// The end of a call: however it comes, its tool hears of it, and whoever waits for it is answered.
pub(super) struct CallEnd<M: Typed> {
    tool: Arc<Shared<M>>,
    /// In which life of the tool it began.
    life: u64,
    /// `None`: it is answered, or has not begun.
    reply: Option<InvocationReply<M>>,
    /// Whether it has failed, once it has ended.
    failed: Option<bool>,
}

impl<M: Typed> CallEnd<M> {
    pub(super) fn new(tool: Arc<Shared<M>>, life: u64) -> Self {
        Self { tool, life, reply: None, failed: None }
    }

    /// Runs the call.
    pub(super) async fn of(mut self, invocation: Invocation<M>, node: Arc<Node>) {
        self.failed = Some(run(&self.tool, self.life, invocation, node, &mut self.reply).await);
    }
}

impl<M: Typed> Drop for CallEnd<M> {
    fn drop(&mut self) {
        let broken = || {
            if !std::thread::panicking() {
                return false; // the node goes down
            }
            let once = self.tool.spec.effect == Effect::Once;
            let (error, crash) = broke_off("a value of its own could not be dropped".to_owned(), None, once);
            self.tool.judge(Some(crash), false, self.life);
            self.tool.metrics.answered(true);
            if let Some(reply) = self.reply.take() {
                answer(reply, Err(error.widen()), once);
            }
            true
        };
        let failed = self.failed.unwrap_or_else(broken);
        self.tool.ended(failed);
    }
}

/// What a panic of a tool is to its caller, and to the report.
fn broke_off(message: String, site: Option<String>, once: bool) -> (AskError, Crash) {
    let id = Uuid::now_v7().to_string();
    let fault = Fault {
        message: format!("crashed: {message}"),
        chain: Vec::new(),
        crash_id: Some(id.clone()),
        advice: None,
    };
    (if once { AskError::Unknown } else { AskError::Failed(fault) }, (id, Some(message), site))
}

/// A call in the list of those that run, while it does.
struct Listed {
    node: Arc<Node>,
    task: TaskId,
    call: Call,
}

impl Listed {
    fn new(node: &Arc<Node>, task: TaskId, call: &Call) -> Self {
        node.calls.insert(task, call.clone());
        Self { node: node.clone(), task, call: call.clone() }
    }
}

impl Drop for Listed {
    fn drop(&mut self) {
        // A later attempt may have begun while this one was coming to its end.
        let _ = self.node.calls.remove_if(&self.task, |_, listed| listed.is(&self.call));
        self.node.notes.leave(self.call.notes().take(self.task, clock::now()));
    }
}

/// Runs one call to its end; while it runs, `answers` holds what its caller waits for. `true`: it has failed.
async fn run<M: Typed>(
    tool: &Shared<M>,
    life: u64,
    invocation: Invocation<M>,
    node: Arc<Node>,
    answers: &mut Option<InvocationReply<M>>,
) -> bool {
    let spec = &tool.spec;
    let Invocation { input, mut meta, reply } = invocation;
    if !begins(&reply) {
        return false;
    }
    *answers = Some(reply);
    let cancel = CancellationToken::new();
    let ends = cancel.clone().drop_guard();
    let (task, waiting) = (meta.task.as_ref().map(|task| task.id), meta.waits.clone());
    let left = meta.deadline.map(|deadline| deadline.saturating_duration_since(Instant::now()));
    let limit = spec.limits.timeout.unwrap_or(DEFAULT_TIMEOUT);
    let limit = [meta.timeout, left]
        .into_iter()
        .flatten()
        .min()
        .map_or(limit, |t| if spec.limits.timeout.is_some() { t.min(limit) } else { t });
    // Whoever it asks has no longer than it has itself.
    meta.deadline = [meta.deadline, Instant::now().checked_add(limit)].into_iter().flatten().min();
    let call = Call::new(node.host(), spec.name, meta, cancel);
    let listed = task.map(|task| Listed::new(&node, task, &call));
    let (begin, own) = (spec.run.clone(), call.clone());
    // The first poll builds the future, so that a panic there is caught too; and what an error says, and how it
    // ends, is the tool's code as well.
    let mut work = Watched(Box::pin(async move {
        match input.into_inner() {
            Some(input) => begin(input, own).await.map_err(failure::<M>),
            None => std::future::pending().await,
        }
    }));
    let result = tokio::select! {
        biased;
        ended = &mut work => Left::Ended(ended),
        why = halted(&call) => Left::Halted(why),
        () = cancelled_for_long(&call) => Left::OutOfTime,
        () = out_of_time(&call, limit, spec.limits.heartbeat) => Left::OutOfTime,
        () = node.breaks_off.cancelled(), if task.is_some() => Left::BrokenOff,
    };
    drop(ends);
    // What it came to stands, even where it cannot be dropped: that is reported as a crash.
    let dropped = guard(|| drop(work)).err();
    drop(listed);
    // What a call once begun has done is not known where the function has not seen its end.
    let interrupted = call.course().is_some_and(Course::close);
    let once = spec.effect == Effect::Once || interrupted;
    let (outcome, crash) = match result {
        Left::Ended(Ok(Ok(value))) => match missing(&call).await {
            None => (Ok(value), None),
            Some(how) => {
                let crash = guard(|| drop(value)).err().map(crash_of);
                (Err(AskError::Diverged(how)), crash)
            }
        },
        Left::Ended(Ok(Err(_))) if interrupted => (Err(AskError::Unknown), None),
        Left::Ended(Ok(Err(error))) => (Err(error), None),
        Left::Halted(Halt::Waits(waits)) => {
            *waiting.lock() = waits;
            tool.judge(dropped.map(crash_of), true, life);
            drop(answers.take());
            return false;
        }
        Left::BrokenOff if spec.effect == Effect::Once => (Err(AskError::Unknown), None),
        // Whoever holds the claim now ends it, or will have it.
        Left::Halted(Halt::Over) | Left::BrokenOff => {
            tool.judge(dropped.map(crash_of), false, life);
            drop(answers.take());
            return false;
        }
        Left::Halted(Halt::Unknown) => (Err(AskError::Unknown), None),
        Left::Halted(Halt::Diverged(_) | Halt::TooLong(_)) if interrupted => (Err(AskError::Unknown), None),
        Left::Halted(Halt::Diverged(how)) => (Err(AskError::Diverged(how)), None),
        Left::Halted(Halt::TooLong(what)) => (Err(AskError::TooLarge(what)), None),
        Left::Ended(Err((message, site))) => {
            let (error, crash) = broke_off(message, site, once);
            (Err(error.widen()), Some(crash))
        }
        Left::OutOfTime => (Err(if once { AskError::Unknown } else { AskError::TimedOut }), None),
    };
    let failed = outcome.is_err();
    tool.metrics.answered(failed);
    // Before it is answered: its caller may call again at once.
    tool.judge(crash.or_else(|| dropped.map(crash_of)), !failed, life);
    if let Some(reply) = answers.take() {
        answer(reply, outcome, once);
    }
    failed
}

fn crash_of((message, site): Panic) -> Crash {
    (Uuid::now_v7().to_string(), Some(message), site)
}

/// What a tool's own error is to its caller.
fn failure<M: Typed>(error: anyhow::Error) -> AskError<M::Error> {
    match error.downcast::<Refused<M::Error>>() {
        Ok(Refused(refusal)) => AskError::Refused(refusal),
        Err(error) => AskError::Failed(Fault::from(&error)),
    }
}

/// How a call left.
enum Left<T> {
    /// The tool's own end, or its panic.
    Ended(Result<T, Panic>),
    /// A task function stops before its end.
    Halted(Halt),
    OutOfTime,
    /// Its node goes down.
    BrokenOff,
}

/// Why a task function stops before its end.
async fn halted(call: &Call) -> Halt {
    match call.course() {
        Some(course) => course.halted().await,
        None => std::future::pending().await,
    }
}

/// What a task function has not asked for that came to its end, although an earlier run had.
async fn missing(call: &Call) -> Option<String> {
    let target = call.course()?.missing().await?;
    Some(format!("it came to its end without {target}, which an earlier run had asked for"))
}

/// Waits until a call was asked to end, and has had the time to do so.
async fn cancelled_for_long(call: &Call) {
    call.until_cancelled().await;
    tokio::time::sleep(GRACE).await;
}

/// Waits until a call has had its time, or has given no sign of life for too long.
async fn out_of_time(call: &Call, limit: Duration, heartbeat: Option<Duration>) {
    let begun = Instant::now();
    let end = begun.checked_add(limit);
    loop {
        let silent = heartbeat.and_then(|most| call.notes().last_beat().unwrap_or(begun).checked_add(most));
        let Some(next) = [end, silent].into_iter().flatten().min() else {
            return std::future::pending().await;
        };
        if Instant::now() >= next {
            return;
        }
        tokio::time::sleep_until(next).await;
    }
}

/// Catches panics of the future it polls.
struct Watched<T>(Pin<Box<dyn Future<Output = T> + Send>>);

impl<T> Future for Watched<T> {
    type Output = Result<T, (String, Option<String>)>;
    fn poll(mut self: Pin<&mut Self>, cx: &mut Cx<'_>) -> Poll<Self::Output> {
        match guard(|| self.0.as_mut().poll(cx)) {
            Ok(Poll::Ready(value)) => Poll::Ready(Ok(value)),
            Ok(Poll::Pending) => Poll::Pending,
            Err(panic) => Poll::Ready(Err(panic)),
        }
    }
}
