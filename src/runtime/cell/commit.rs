//! Commits: the window becomes one unit of writing, and its outcome decides what leaves.

use std::{sync::Arc, task::Poll, time::Duration};

use tokio::time::Instant;
use tokio_util::sync::CancellationToken;

use jiff::Timestamp;

use super::{
    restore::reads_back,
    runner::{Exit, MAX_WINDOW, Runner},
    window::{Entry, Flight, Load, fail, release},
};
use crate::{
    agent::{Agent, AskError, Envelope, Fault, Persistence, Ran, letter::Key},
    clock,
    model::{
        event::{Event, Level},
        snapshot::{self, Codec, Header},
    },
    runtime::{
        crashes::guard,
        keys,
        persistence::{Outcome, Ticket},
        settle::{finish, later, settle},
    },
    store::{FinishOutcome, Guard, KeyWrite, Refusal, StateWrite, Unit},
};

/// How often in a row a turn runs again because somebody wrote the session that it had read.
const MAX_CONTENDED: u32 = 64;
/// The longest wait before it does.
const MAX_CONTENDED_PAUSE: Duration = Duration::from_millis(50);

impl<A: Agent> Runner<A> {
    pub(super) fn flush_is_due(&self) -> bool {
        if self.air.flight.is_some() || self.window.is_empty() {
            return false;
        }
        if !self.can_run() || self.barrier || (self.overdue && self.window.urgent) {
            return true;
        }
        if let Persistence::Relaxed { turns, every } = self.kind.policy.persistence
            && !self.window.urgent
        {
            return self.window.entries.len() >= turns as usize || self.flushed_at.elapsed() >= every;
        }
        self.batch.is_empty()
    }

    /// Hands the window to the store, or answers it where there is nothing to write.
    pub(super) async fn flush(&mut self) -> Option<Exit> {
        match self.hand_over() {
            Ok(()) => None,
            Err(error) => Box::pin(self.unwritable(error)).await,
        }
    }

    /// As [`Runner::flush`]. The error: the state cannot be kept.
    pub(super) fn hand_over(&mut self) -> Result<(), Box<AskError>> {
        self.flushed_at = Instant::now();
        self.overdue = false;
        let mut unit = Unit { owner: Some((self.lane.name.id.partition(), self.epoch)), ..Unit::default() };
        self.settle_entries(&mut unit);
        let leaves = self.window.outbox.as_ref().is_some_and(|outbox| outbox.has_records());
        let outputs = leaves || !unit.finished.is_empty() || !unit.keys.is_empty();
        let mut image = None;
        if !self.volatile() && (self.window.changed || (outputs && self.air.image.is_some())) {
            let bytes = if self.window.changed { self.serialise() } else { self.same_again() }?;
            let before = self.air.image.as_deref().map(|old| body(old));
            if outputs || before != Some(body(&bytes)) {
                image = Some(Arc::new(bytes));
            }
        }
        let window = std::mem::take(&mut self.window);
        let mut outbox = window.outbox.map(|outbox| *outbox).unwrap_or_default();
        let tells = outbox.released();
        if image.is_none() && !outputs {
            release(window.entries, tells, self.air.version);
            return Ok(());
        }
        if let Some(bytes) = &image {
            self.air.image = Some(bytes.clone());
            let name = &self.lane.name;
            unit.state = Some(StateWrite {
                id: name.id,
                kind: name.kind.clone(),
                key: name.key.clone(),
                epoch: self.epoch,
                base_version: self.air.version,
                schema_version: A::VERSION,
                bytes: bytes.clone(),
                keeps_base: false,
            });
        }
        unit.accepted.extend(outbox.tasks);
        unit.keys.extend(self.key_writes(outbox.keys));
        unit.batches = outbox.batches;
        unit.conversations = outbox.conversations;
        unit.messages = outbox.messages;
        unit.sessions = outbox.sessions;
        unit.subscriptions = outbox.subscriptions;
        self.node.name_unit(&mut unit);
        if !unit.accepted.is_empty() {
            self.node.tasks_accepted(&unit.accepted);
        }
        let keys = unit.keys.iter().map(|k| k.key.clone()).collect();
        let version = self.air.version + i64::from(image.is_some());
        self.air.flight = Some(Flight { writes: image.is_some(), keys });
        let load: Load<A> = Load { entries: window.entries, tells, version };
        self.air.inbox.load(Box::new(load));
        self.turn.is_new = false;
        self.node.persistence.write(self.lane.name.id.0, unit, Ticket::Cell(self.air.inbox.clone()));
        Ok(())
    }

    /// Ends the tasks and settles the keys of the turns in the window.
    fn settle_entries(&self, unit: &mut Unit) {
        let now = clock::now();
        for entry in &self.window.entries {
            let letter = entry.letter.letter();
            let Some(meta) = letter.details().0 else { continue };
            if let Some(claim) = &meta.claim {
                let attempt = letter.outcome();
                let is_cancelled = || meta.cancel.as_ref().is_some_and(CancellationToken::is_cancelled);
                let outcome = if attempt.is_err() && is_cancelled() {
                    FinishOutcome::Cancelled
                } else {
                    settle(claim, attempt, &self.kind.policy.terms, now, fastrand::f64())
                };
                let (ended, done) = finish(claim, Guard::Running { attempt: claim.attempt }, outcome);
                unit.finished.push(ended);
                unit.accepted.extend(done);
            }
            if let Some(key) = meta.key.as_ref().filter(|_| !entry.letter.read_only())
                && let Some(row) = self.key_row(key, entry, now)
            {
                unit.keys.push(row);
            }
        }
    }

    fn key_row(&self, key: &Key, entry: &Entry<A>, now: Timestamp) -> Option<KeyWrite> {
        let outcome = entry.letter.letter().outcome();
        // Crashes, time-outs and turns that were cut short are not outcomes: the caller may try again.
        if matches!(&outcome, Err(AskError::Failed(f)) if f.crash_id.is_some())
            || matches!(outcome, Err(AskError::TimedOut | AskError::WrongState(_)))
        {
            return None;
        }
        Some(KeyWrite {
            scope: self.lane.name.id.0,
            key: key.text.clone(),
            request: key.request,
            task: None,
            reply: Some(keys::write(&outcome)),
            expires_at: later(now, self.node.settings.load().limits.idempotency_ttl),
        })
    }

    /// Writes the state as a framed snapshot, and proves that it reads back.
    pub(super) fn serialise(&self) -> Result<Vec<u8>, Box<AskError>> {
        let Some(agent) = self.agent.as_deref() else {
            return Err(Box::new(AskError::Unavailable("the agent is not there".to_owned())));
        };
        let header = self.header();
        let mut buffer = Vec::with_capacity(self.air.image.as_ref().map_or(256, |i| i.len() + 64));
        snapshot::begin(&header, &mut buffer);
        let fault = |why: String| Box::new(AskError::Failed(Fault::new(why)));
        guard(|| serde_json::to_writer(&mut buffer, agent))
            .map_err(|(message, _)| fault(format!("writing the state panicked: {message}")))?
            .map_err(|e| fault(format!("the state cannot be written as JSON: {e}")))?;
        let bytes = buffer.len() - snapshot::HEADER_BYTES;
        let limit = self.node.settings.load().limits.state_bytes;
        if bytes as u64 > limit {
            return Err(Box::new(AskError::TooLarge(format!(
                "the state would have {bytes} bytes, more than limits.state_bytes ({limit})"
            ))));
        }
        reads_back::<A>(body(&buffer)).map_err(|e| fault(format!("the state would not read back: {e}")))?;
        snapshot::seal(&mut buffer).map_err(|e| fault(e.to_string()))?;
        Ok(buffer)
    }

    /// The last image as the next version: nothing has changed since, and outputs need a commit of
    /// their own.
    fn same_again(&self) -> Result<Vec<u8>, Box<AskError>> {
        let body = self.air.image.as_deref().map(|image| body(image)).unwrap_or_default();
        let mut buffer = Vec::with_capacity(snapshot::HEADER_BYTES + body.len());
        snapshot::begin(&self.header(), &mut buffer);
        buffer.extend_from_slice(body);
        snapshot::seal(&mut buffer).map_err(|e| Box::new(AskError::Failed(Fault::new(e.to_string()))))?;
        Ok(buffer)
    }

    fn header(&self) -> Header {
        Header {
            codec: Codec::Json,
            agent: self.lane.name.id,
            version: self.air.version + 1,
            epoch: self.epoch,
            schema_version: A::VERSION,
        }
    }

    /// A state that cannot be kept: the turn that made it so fails; its neighbours run again.
    pub(super) async fn unwritable(&mut self, error: Box<AskError>) -> Option<Exit> {
        let done = self.window.entries.iter().filter(|e| e.ran == Ran::Done && !e.letter.read_only()).count();
        if done <= 1 {
            for entry in &mut self.window.entries {
                if entry.ran == Ran::Done && !entry.letter.read_only() {
                    entry.letter.letter_mut().fail(AskError::clone(&error));
                    entry.ran = Ran::Failed;
                }
            }
            self.window.urgent = true;
        } else {
            // Which of them it was shows when each is kept alone.
            let entries = std::mem::take(&mut self.window).entries;
            self.run_again(entries);
        }
        self.limit = 1;
        Box::pin(self.rewind()).await
    }

    pub(super) async fn outcome(&mut self) -> Outcome {
        std::future::poll_fn(|cx| {
            self.air.inbox.waker.register(cx.waker());
            self.air.inbox.take_outcome().map_or(Poll::Pending, Poll::Ready)
        })
        .await
    }

    /// Takes in how the commit under way ended. The error: that, where it is not durable.
    pub(super) fn landed(&mut self, outcome: Outcome) -> Result<(), Outcome> {
        self.air.land(outcome)?;
        self.limit = (self.limit * 2).min(MAX_WINDOW);
        Ok(())
    }

    /// The commit under way did not happen: nothing that ran since its image did. What may still
    /// succeed runs again from what the store holds.
    pub(super) async fn lost(&mut self, outcome: Outcome) -> Option<Exit> {
        self.drop_agent();
        // What the turn that was running would have sent: it never ran.
        let _ = self.turn.take_outbox();
        let may_do_better = match &outcome {
            // Another one has won. Those who lose wait for different times, so that each has its turn.
            Outcome::Refused(Refusal::KeyTaken(_) | Refusal::SessionMoved(_)) => {
                self.air.contended += 1;
                let pause = Duration::from_millis(self.air.contended.into()).min(MAX_CONTENDED_PAUSE);
                self.back_off(pause.mul_f64(fastrand::f64())).await;
                self.air.contended < MAX_CONTENDED
            }
            _ => false,
        };
        match &outcome {
            Outcome::Refused(
                Refusal::KeyTaken(_)
                | Refusal::ClaimLost(_)
                | Refusal::ParentUnknown(_)
                | Refusal::ConversationUnknown(_)
                | Refusal::SessionMoved(_)
                | Refusal::Bad(_),
            ) => {
                let flight = self.air.recall::<A>();
                let single = flight.len() <= 1;
                let window = std::mem::take(&mut self.window);
                let lost_claim = |e: &Entry<A>| match (
                    &outcome,
                    e.letter.letter().details().0.and_then(|m| m.claim.as_ref()),
                ) {
                    (Outcome::Refused(Refusal::ClaimLost(id)), Some(claim)) => claim.id == *id,
                    _ => false,
                };
                // Whose claim was lost: somebody else has ended the task.
                let mut flight: Vec<_> = flight.into_iter().filter(|e| !lost_claim(e)).collect();
                if single && !may_do_better {
                    self.air.contended = 0;
                    let fault = Fault::new(format!("its commit was refused: {}", describe(&outcome)));
                    fail(&self.lane, flight.drain(..).map(|e| e.letter), &AskError::Failed(fault));
                }
                flight.extend(window.entries);
                if matches!(outcome, Outcome::Refused(Refusal::KeyTaken(_))) {
                    // It has an outcome by now, which is the answer of those that failed here as well: it is
                    // looked for when they are admitted.
                    let keyed = |e: &Entry<A>| e.letter.letter().details().0.is_some_and(|m| m.key.is_some());
                    flight.iter_mut().filter(|e| keyed(e)).for_each(|e| e.ran = Ran::Done);
                }
                self.run_again(flight);
                self.limit = 1;
            }
            other => {
                // Of a store without room people hear once, not of each agent.
                if !matches!(other, Outcome::Full(_)) {
                    let event = Event::new(Level::Warn, "agent.commit_lost", self.subject())
                        .field("reason", describe(other));
                    self.node.logger.emit(event.hint("its callers were told that nothing happened"));
                }
                self.fail_all(&outcome);
                if matches!(outcome, Outcome::Refused(Refusal::Fenced) | Outcome::Unknown) {
                    // What this node believes to own is out of date, or this agent alone is.
                    self.node.owned.ask_again().await;
                }
            }
        }
        self.restore().await
    }

    /// Answers everything that ran with the reason why it did not happen.
    pub(super) fn fail_all(&mut self, outcome: &Outcome) {
        let error = match outcome {
            Outcome::Full(why) => AskError::NoRoom(why.clone()),
            other => AskError::Unavailable(describe(other)),
        };
        let flight = self.air.recall::<A>();
        let window = std::mem::take(&mut self.window);
        if matches!(outcome, Outcome::Unknown) {
            // A task knows by itself whether it has ended: its claim is looked at again.
            let (tasks, asked): (Vec<_>, Vec<_>) =
                flight.into_iter().map(|e| e.letter).partition(|letter| letter.letter().is_task());
            fail(&self.lane, asked, &AskError::Unknown);
            fail(&self.lane, tasks.into_iter().chain(window.entries.into_iter().map(|e| e.letter)), &error);
            return;
        }
        fail(&self.lane, flight.into_iter().chain(window.entries).map(|e| e.letter), &error);
    }
}

/// The state in a frame, without the header, which differs with each version.
fn body(frame: &[u8]) -> &[u8] {
    frame.get(snapshot::HEADER_BYTES..).unwrap_or_default()
}

fn describe(outcome: &Outcome) -> String {
    match outcome {
        Outcome::Durable => "durable".to_owned(),
        Outcome::Unknown => "its reply was lost, and the agent has been moved on since".to_owned(),
        Outcome::Refused(refusal) => refusal.to_string(),
        Outcome::Full(why) | Outcome::Failed(why) => why.clone(),
    }
}
