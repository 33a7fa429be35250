//! The course of a task function: its recorded calls, its waits, and why it stops before its end.
//!
//! A function that must stop is not given an error, which its code could swallow: the call that it awaits never
//! answers, and the runner of the function sees why, and drops it.

use std::{
    future::Future,
    sync::{
        Arc,
        atomic::{AtomicBool, AtomicUsize, Ordering},
    },
};

use jiff::Timestamp;
use parking_lot::Mutex;
use serde::de::DeserializeOwned;
use serde_json::value::{RawValue, to_raw_value};
use tokio::sync::{Notify, OnceCell};
use uuid::Uuid;

use crate::{
    agent::{
        AskError, Fault, Message, Outcome,
        host::{Host, Submission, Submitter},
        letter::{Answer as Reply, Key},
        reference::request_hash,
    },
    model::{
        id::TaskId,
        journal::{Answer, Awaited, CallId, JournalWrite, Known, Made, Replay, Signal, Wait},
        task::{BatchNotify, ClaimId, Claimed, NewBatch, NewTask},
    },
};

/// Why a function stops before its end.
#[derive(Debug, Clone)]
pub(crate) enum Halt {
    /// It waits for a signal.
    Waits(Vec<Wait>),
    /// A call that takes effect once was begun, and nobody knows whether it has happened.
    Unknown,
    /// It asks for something else than it did before.
    Diverged(String),
    /// It asks for more than can be recorded.
    TooLong(String),
    /// Its claim is not its node's any more, or the node ends.
    Over,
}

/// The course of one run.
pub(crate) struct Course {
    host: Arc<dyn Host>,
    task: TaskId,
    claim: ClaimId,
    /// It may have run before.
    again: bool,
    /// Read when the function first asks for something: most never do.
    replay: OnceCell<Mutex<Replay>>,
    waits: Mutex<Vec<Wait>>,
    /// The function has gone on without something that it had asked for.
    strayed: AtomicBool,
    once: Mutex<Once>,
    halt: Mutex<Option<Halt>>,
    inflight: AtomicUsize,
    stirred: Notify,
}

/// Calls that take effect once.
#[derive(Default)]
struct Once {
    /// Begun, and not seen to end.
    open: usize,
    /// No other begins.
    closed: bool,
}

/// A call that is under way: a function does not stop while one is.
struct Flight<'c> {
    course: &'c Course,
    /// Nothing is known of it yet: the function has gone on without it when this is dropped.
    out: bool,
    /// A submission's place, which an equal one takes if this is dropped: it is the same then, and not another.
    place: Option<(CallId, u32)>,
}

impl Flight<'_> {
    /// It has come to its end.
    fn end(mut self) {
        (self.out, self.place) = (false, None);
    }
}

impl Drop for Flight<'_> {
    fn drop(&mut self) {
        if self.out {
            self.course.strayed.store(true, Ordering::Release);
        }
        if let (Some((call, ordinal)), Some(replay)) = (self.place, self.course.replay.get()) {
            replay.lock().failed(call, ordinal);
        }
        self.course.inflight.fetch_sub(1, Ordering::AcqRel);
        self.course.stirred.notify_one();
    }
}

/// A wait that a function stands at; it has gone on without it when this is dropped.
struct Stand<'c>(&'c Course, Wait);

impl Drop for Stand<'_> {
    fn drop(&mut self) {
        self.0.waits.lock().retain(|wait| *wait != self.1);
        self.0.strayed.store(true, Ordering::Release);
    }
}

/// A call as it is told from others.
pub(super) struct Asked<'a> {
    /// Whom it is for: `tool:NAME`, `ask kind/key Message`.
    pub target: &'a str,
    /// The input as JSON.
    pub input: &'a str,
    /// It must not be made twice.
    pub once: bool,
}

impl Course {
    pub(crate) fn new(host: Arc<dyn Host>, task: &Claimed) -> Self {
        Self {
            host,
            task: task.id,
            claim: task.claim,
            // One that has waited, went back or was tried again by a person has a time at which it could go on.
            again: task.attempt > 1 || task.lost > 0 || task.due.is_some(),
            replay: OnceCell::new(),
            waits: Mutex::default(),
            strayed: AtomicBool::new(false),
            once: Mutex::default(),
            halt: Mutex::default(),
            inflight: AtomicUsize::new(0),
            stirred: Notify::new(),
        }
    }

    pub(super) fn task(&self) -> TaskId {
        self.task
    }

    /// Waits until the function is to stop, and says why. What is under way comes to its end first.
    pub(crate) async fn halted(&self) -> Halt {
        loop {
            if self.inflight.load(Ordering::Acquire) == 0 {
                let waits = self.waits.lock();
                if let Some(halt) = self.halt.lock().clone() {
                    return halt;
                }
                if !waits.is_empty() {
                    return Halt::Waits(waits.clone());
                }
            }
            self.stirred.notified().await;
        }
    }

    /// Lets no more calls begin that take effect once. `true`: one has begun, and nobody saw it end.
    pub(crate) fn close(&self) -> bool {
        let mut once = self.once.lock();
        once.closed = true;
        once.open > 0
    }

    /// Whether a call that takes effect once may begin; it is open then.
    fn open_once(&self) -> bool {
        let mut once = self.once.lock();
        once.open += usize::from(!once.closed);
        !once.closed
    }

    /// Has the function stop, for the first reason that there is.
    async fn stop<T>(&self, why: Halt) -> T {
        self.halt.lock().get_or_insert(why);
        self.stirred.notify_one();
        std::future::pending().await
    }

    /// Makes a call, or answers what was recorded of it. `make` is given the call's key, which is the same in
    /// each run.
    pub(super) async fn call<M: Message, F: Future<Output = Reply<M>>>(
        &self,
        asked: Asked<'_>,
        make: impl FnOnce(String) -> F,
    ) -> Reply<M> {
        let Asked { target, input, once } = asked;
        let (flight, made) = self.made(target, input).await;
        match &made.known {
            Known::Answered(answer) => {
                flight.end();
                return recorded::<M>(target, answer);
            }
            Known::Begun => return self.leave(flight, Halt::Unknown).await,
            _ => {}
        }
        if once {
            if !self.open_once() {
                return self.leave(flight, Halt::Over).await;
            }
            self.record(&made, target, None).await;
        }
        // An agent's or a tool's key for a call is the same in each run.
        let key =
            format!("{}:{:032x}:{}", self.task, u128::from_be_bytes(made.call.hash), made.call.occurrence);
        let reply = make(key).await;
        let answer = match &reply {
            Ok(reply) => to_raw_value(reply).map(Answer::Reply),
            Err(AskError::Refused(refusal)) => to_raw_value(refusal).map(Answer::Refused),
            Err(AskError::Unknown) if once => return self.leave(flight, Halt::Unknown).await,
            Err(_) => {
                self.undo(&made, once).await;
                self.seen_to_end(once);
                flight.end();
                return reply;
            }
        };
        match answer {
            Ok(answer) => {
                self.record(&made, target, Some(answer)).await;
                self.seen_to_end(once);
                flight.end();
            }
            Err(_) if once => return self.leave(flight, Halt::Unknown).await,
            Err(e) => {
                let what = format!("the answer of {target} cannot be recorded: {e}");
                return Err(AskError::Failed(Fault::new(what)));
            }
        }
        reply
    }

    /// Submits a task, under an id that is the same in each run; the answer is the first task's where its key had
    /// been used for the same request.
    pub(super) async fn submit(
        &self,
        asked: Asked<'_>,
        mut task: NewTask,
        key: Option<(Uuid, Key)>,
    ) -> Result<TaskId, AskError> {
        let (mut flight, made) = self.made(asked.target, asked.input).await;
        task.id = self.task.of_call(made.call.hash, made.call.occurrence);
        match &made.known {
            Known::Answered(Answer::Reply(id)) => {
                flight.end();
                return Ok(read(id).unwrap_or(task.id));
            }
            Known::Answered(_) | Known::Begun => {
                flight.end();
                return Ok(task.id);
            }
            _ => {}
        }
        let submission = Submission { by: Submitter::Work, tasks: vec![task], batches: Vec::new(), key };
        flight.place = Some((made.call, made.ordinal));
        let submitted = self.host.submit(submission).await.map(|submitted| submitted.first);
        let written = |id| Ok((id, to_raw_value(&id).map_err(|e| AskError::Unavailable(e.to_string()))?));
        let id = match submitted.and_then(written) {
            Ok((id, body)) => {
                self.record(&made, asked.target, Some(Answer::Reply(body))).await;
                Ok(id)
            }
            Err(e) => {
                self.undo(&made, false).await;
                Err(e)
            }
        };
        flight.end();
        id
    }

    /// Submits tasks as a batch of which this one hears the end; it and they have ids that are the same in each run.
    pub(super) async fn submit_all(
        &self,
        asked: Asked<'_>,
        mut tasks: Vec<NewTask>,
    ) -> Result<(TaskId, Vec<TaskId>), AskError> {
        let (mut flight, made) = self.made(asked.target, asked.input).await;
        let batch = self.task.of_call(made.call.hash, made.call.occurrence);
        for (n, task) in (1..).zip(&mut tasks) {
            task.id = batch.of_call(made.call.hash, n);
            (task.batch, task.parent) = (Some(batch), Some(self.task));
        }
        let ids: Vec<TaskId> = tasks.iter().map(|task| task.id).collect();
        match &made.known {
            Known::Answered(_) | Known::Begun => {
                flight.end();
                return Ok((batch, ids));
            }
            _ => {}
        }
        flight.place = Some((made.call, made.ordinal));
        if !tasks.is_empty() {
            let notify = Some(BatchNotify::Function { task: self.task });
            let batches = vec![NewBatch { id: batch, size: tasks.len() as u64, notify }];
            let submission = Submission { by: Submitter::Work, tasks, batches, key: None };
            if let Err(e) = self.host.submit(submission).await {
                self.undo(&made, false).await;
                flight.end();
                return Err(e);
            }
        }
        self.record(&made, asked.target, to_raw_value(&batch).ok().map(Answer::Reply)).await;
        flight.end();
        Ok((batch, ids))
    }

    /// How a task ended.
    pub(super) async fn outcome<M: Message>(
        &self,
        task: TaskId,
    ) -> Result<Outcome<M::Reply, M::Error>, AskError> {
        let target = format!("outcome {task}");
        let (flight, made) = self.made(&target, "").await;
        let unreadable =
            |e| AskError::Failed(Fault::new(format!("the outcome of task {task} cannot be read: {e}")));
        if let Known::Answered(Answer::Reply(body)) = &made.known {
            flight.end();
            return read(body).map_err(unreadable);
        }
        let found = match self.host.task(task).await.map(Outcome::of).transpose().map_err(unreadable) {
            Ok(Some(Some(outcome))) => to_raw_value(&outcome).map(|body| (outcome, body)).map_err(unreadable),
            Ok(Some(None)) => Err(AskError::WrongState(format!("task {task} has not ended"))),
            Ok(None) => Err(AskError::NotFound(format!("there is no task {task}"))),
            Err(e) => Err(e),
        };
        let outcome = match found {
            Ok((outcome, body)) => {
                self.record(&made, &target, Some(Answer::Reply(body))).await;
                Ok(outcome)
            }
            Err(e) => {
                self.undo(&made, false).await;
                Err(e)
            }
        };
        flight.end();
        outcome
    }

    /// Waits for the next signal of this name that has answered no wait before; `None`: not in time.
    pub(super) async fn wait(&self, name: &str, until: Option<Timestamp>) -> Option<Box<RawValue>> {
        let target = format!("wait {name}");
        let (flight, made) = self.made(&target, "").await;
        if let Known::Answered(answer) = &made.known {
            flight.end();
            return match answer {
                Answer::Signal { body, .. } => Some(body.clone()),
                _ => None,
            };
        }
        let now = crate::clock::now();
        let awaited = self.replay().await.lock().await_signal(name, made.call.occurrence, until, now);
        let wait = match awaited {
            Awaited::Signalled(Signal { id, body, .. }) => {
                self.record(&made, &target, Some(Answer::Signal { id, body: body.clone() })).await;
                flight.end();
                return Some(body);
            }
            Awaited::TimedOut => {
                self.record(&made, &target, Some(Answer::TimedOut)).await;
                flight.end();
                return None;
            }
            Awaited::Open(wait) => wait,
        };
        self.waits.lock().push(wait.clone());
        let _stand = Stand(self, wait);
        flight.end();
        std::future::pending().await
    }

    fn seen_to_end(&self, once: bool) {
        let mut counted = self.once.lock();
        counted.open = counted.open.saturating_sub(usize::from(once));
    }

    fn begin(&self) -> Flight<'_> {
        self.inflight.fetch_add(1, Ordering::AcqRel);
        Flight { course: self, out: true, place: None }
    }

    async fn leave<T>(&self, flight: Flight<'_>, why: Halt) -> T {
        flight.end();
        self.stop(why).await
    }

    /// Another call, and what is known of it. A function that must not make it stops here.
    async fn made(&self, target: &str, input: &str) -> (Flight<'_>, Made) {
        let flight = self.begin();
        let hash = request_hash(target, input);
        let made = self.replay().await.lock().call(target, hash);
        let why = match &made.known {
            Known::Diverged { recorded } => Halt::Diverged(recorded.clone()),
            Known::TooLong { what } => Halt::TooLong(what.clone()),
            _ => return (flight, made),
        };
        self.leave(flight, why).await
    }

    async fn replay(&self) -> &Mutex<Replay> {
        let read = async || match self.host.journal(self.task).await {
            Some(journal) => Mutex::new(Replay::of(journal)),
            None => self.stop(Halt::Over).await,
        };
        self.replay.get_or_init(read).await
    }

    /// What an earlier run has asked for, and this one, which has come to its end, has not.
    pub(crate) async fn missing(&self) -> Option<String> {
        let missing = |replay: &Replay| replay.missing().map(str::to_owned);
        match self.replay.get() {
            Some(replay) => missing(&replay.lock()),
            None if self.again => missing(&Replay::of(self.host.journal(self.task).await?)),
            None => None,
        }
    }

    async fn record(&self, made: &Made, target: &str, answer: Option<Answer>) {
        let mut entry = self.replay().await.lock().entry(made, target, answer);
        // In another run that is answered first which is under way or waited for beside it, or not asked for at all.
        entry.optional |= self.inflight.load(Ordering::Acquire) > 1
            || !self.waits.lock().is_empty()
            || self.strayed.load(Ordering::Acquire);
        let entries = vec![entry];
        self.write(JournalWrite { entries, ..JournalWrite::of(self.task, self.claim) }).await;
    }

    /// A call came to nothing.
    async fn undo(&self, made: &Made, begun: bool) {
        if begun {
            let undone = vec![made.call];
            self.write(JournalWrite { undone, ..JournalWrite::of(self.task, self.claim) }).await;
        }
        self.replay().await.lock().failed(made.call, made.ordinal);
    }

    async fn write(&self, write: JournalWrite) {
        if !self.host.record(write).await {
            self.stop(Halt::Over).await
        }
    }
}

/// What was recorded of a call, as its caller knows it.
fn recorded<M: Message>(target: &str, answer: &Answer) -> Reply<M> {
    let unreadable = |e: &dyn std::fmt::Display| {
        AskError::Failed(Fault::new(format!("the recorded answer of {target} cannot be read: {e}")))
    };
    match answer {
        Answer::Reply(body) => read(body).map_err(|e| unreadable(&e)),
        Answer::Refused(body) => Err(read(body).map_or_else(|e| unreadable(&e), AskError::Refused)),
        Answer::Signal { .. } | Answer::TimedOut => Err(unreadable(&"it is a wait's")),
    }
}

pub(super) fn read<T: DeserializeOwned>(body: &RawValue) -> serde_json::Result<T> {
    serde_json::from_str(body.get())
}
