//! Turns: which letter may begin, how it runs, what is kept of it until it is durable.

use std::time::Instant;

use super::{
    drive::{End, drive},
    runner::{Exit, Runner},
    window::{Entry, fail},
};
use crate::{
    agent::{Agent, AskError, Envelope, Fault, Persistence, Ran, messages::EnvelopeOf, turn::Passage},
    model::supervision::{CrashKind, CrashReason},
    runtime::keys,
};

/// Of so many turns in a row, the first is timed for the metrics.
const TIMED: u32 = 64;

impl<A: Agent> Runner<A> {
    /// Whether the letter's turn may begin now; `None`: it has been answered, or waits.
    pub(super) async fn admit(&mut self, mut letter: EnvelopeOf<A>) -> Option<EnvelopeOf<A>> {
        let Some(meta) = letter.letter().details().0 else {
            return self.admit_reach(letter);
        };
        if meta.deadline.is_some_and(|d| Instant::now() >= d) {
            fail::<A>([letter], &AskError::TimedOut);
            return None;
        }
        let key = meta.key.clone();
        if !letter.letter().start() {
            return None;
        }
        let Some(key) = key.filter(|_| !letter.read_only()) else {
            return self.admit_reach(letter);
        };
        let flying = self.air.flight.iter().flat_map(|f| &f.keys).any(|text| *text == key.text);
        let same = |e: &Entry<A>| {
            e.letter.letter().details().0.and_then(|m| m.key.as_ref()).is_some_and(|k| k.text == key.text)
        };
        if flying || self.window.entries.iter().any(same) {
            self.barrier = true;
            self.batch.push_front(letter);
            return None;
        }
        let (store, scope, text) = (self.node.store.clone(), self.lane.name.id.0, key.text.clone());
        let Some(found) = self.unless_troubled(async move { store.key(scope, &text).await }).await else {
            fail::<A>([letter], &self.node.trouble());
            return None;
        };
        match found {
            Ok(None) => self.admit_reach(letter),
            Ok(Some(row)) if row.request == key.request => {
                letter.letter_mut().replay(keys::read(row.reply.as_deref(), row.task));
                None
            }
            Ok(Some(_)) => {
                fail::<A>([letter], &AskError::Conflict);
                None
            }
            Err(e) => {
                fail::<A>([letter], &AskError::Unavailable(e.to_string()));
                None
            }
        }
    }

    /// A message that is known to reach outside begins only when all before it is durable.
    pub(super) fn admit_reach(&mut self, letter: EnvelopeOf<A>) -> Option<EnvelopeOf<A>> {
        let outstanding = self.air.flight.is_some() || !self.window.is_empty();
        // A volatile turn cannot be run again, so it must not find the gate shut.
        let shut = self.volatile() && self.window.is_uncovered();
        let reaches =
            || !self.kind.reaching.is_empty() && self.kind.reaching.pin().contains(letter.letter().name());
        if shut || (outstanding && reaches()) {
            self.barrier = true;
            self.batch.push_front(letter);
            return None;
        }
        Some(letter)
    }

    /// Runs one letter.
    pub(super) async fn drive(&mut self, letter: &mut EnvelopeOf<A>) -> End {
        let Some(mut agent) = self.agent.take() else {
            return End::panicked("the agent is not there".to_owned(), None);
        };
        let uncovered = self.window.is_uncovered();
        let blocked = uncovered || self.air.flight.is_some();
        let details = letter.letter().details();
        let limit = self.kind.policy.turn_timeout;
        let budget = match details.0.and_then(|m| m.deadline) {
            Some(deadline) => limit.min(deadline.saturating_duration_since(Instant::now())),
            None => details.0.and_then(|m| m.claim.as_ref()?.timeout).unwrap_or(limit),
        };
        self.turn.begin(details.0, if blocked { Passage::Blocked } else { Passage::Clear });
        let keep = !self.volatile();
        // One of many is timed: the clock would cost more than a short turn.
        let begun = self.turns.is_multiple_of(TIMED).then(Instant::now);
        let end = drive(&mut *agent, letter, &self.turn, &mut self.air, keep, uncovered, budget).await;
        if let Some(begun) = begun {
            self.node.metrics.handled(A::KIND, begun.elapsed());
        }
        self.agent = Some(agent);
        self.turns += 1;
        end
    }

    /// Answers a turn that ended well, left nothing behind and waits for nothing: the letter is not
    /// moved again, and moving it is much of what a short turn costs.
    pub(super) fn is_answered(&mut self, letter: &mut EnvelopeOf<A>, end: &End) -> bool {
        let End::Ran(ran) = *end else { return false };
        if ran == Ran::Failed || self.turn.gate.is_passed() || self.turn.has_outbox() {
            return false;
        }
        let Some(version) = self.releases(letter, ran) else { return false };
        self.streak = 0;
        letter.letter_mut().release(version);
        true
    }

    /// Takes in how a turn ended.
    pub(super) async fn take_turn(&mut self, mut letter: EnvelopeOf<A>, end: End) -> Option<Exit> {
        let reached = self.turn.gate.is_passed();
        match end {
            End::Ran(ran) => {
                let ran = self.settle_outbox(&mut letter, ran);
                if reached {
                    self.kind.reaching.pin().insert(letter.letter().name());
                    self.barrier = true;
                }
                if ran == Ran::Failed {
                    self.failures += 1;
                    return Box::pin(self.undo(letter)).await;
                }
                self.streak = 0;
                self.keep(letter, ran);
                None
            }
            End::Panicked(reason) => Box::pin(self.crash(letter, *reason)).await,
            End::TimedOut => {
                let message = "the turn ran past its deadline".to_owned();
                let reason = CrashReason { kind: CrashKind::Timeout, message, site: None };
                Box::pin(self.crash(letter, reason)).await
            }
            End::Blocked => {
                self.kind.reaching.pin().insert(letter.letter().name());
                self.batch.push_front(letter);
                self.barrier = true;
                let _ = self.turn.take_outbox();
                Box::pin(self.rewind()).await
            }
            End::Lost(outcome) => {
                self.batch.push_front(letter);
                Box::pin(self.lost(*outcome)).await
            }
        }
    }

    /// Takes the turn's outputs into the window, unless the turn failed.
    pub(super) fn settle_outbox(&mut self, letter: &mut EnvelopeOf<A>, ran: Ran) -> Ran {
        let Some(outbox) = self.turn.take_outbox() else { return ran };
        if ran != Ran::Done {
            return ran;
        }
        let fault = if letter.read_only() && !outbox.tasks.is_empty() {
            Some("a query may not send".to_owned())
        } else {
            outbox.fault.clone()
        };
        if let Some(fault) = fault {
            letter.letter_mut().fail(AskError::Failed(Fault::new(fault)));
            return Ran::Failed;
        }
        self.retire |= outbox.retire;
        self.window.outbox.append(outbox);
        ran
    }

    /// Whether the turn's effect on the state is to be made durable.
    fn has_effect(&self, letter: &EnvelopeOf<A>, ran: Ran) -> bool {
        ran == Ran::Done && !letter.read_only() && !self.volatile()
    }

    /// Whether something beside the state waits for the turn's commit: a task's end, a key.
    fn has_record(letter: &EnvelopeOf<A>, ran: Ran) -> bool {
        letter.letter().details().0.is_some_and(|m| {
            m.claim.is_some() || (m.key.is_some() && ran != Ran::Declined && !letter.read_only())
        })
    }

    /// The version under which a turn is answered at once; `None`: something holds it.
    fn releases(&self, letter: &EnvelopeOf<A>, ran: Ran) -> Option<i64> {
        if !self.window.outbox.is_empty() || Self::has_record(letter, ran) {
            return None;
        }
        if self.volatile() {
            return Some(0);
        }
        let clear = self.air.flight.is_none() && self.window.entries.is_empty();
        (clear && !self.has_effect(letter, ran)).then_some(self.air.version)
    }

    /// Keeps a turn that ran until it is durable, or answers it where nothing holds it.
    pub(super) fn keep(&mut self, mut letter: EnvelopeOf<A>, ran: Ran) {
        if let Some(version) = self.releases(&letter, ran) {
            return letter.letter_mut().release(version);
        }
        self.window.changed |= self.has_effect(&letter, ran);
        let outputs = !self.window.outbox.is_empty() || Self::has_record(&letter, ran);
        if matches!(self.kind.policy.persistence, Persistence::Relaxed { .. }) && !outputs {
            letter.letter_mut().release(self.air.version);
        } else {
            self.window.urgent = true;
        }
        self.window.entries.push(Entry { letter, ran });
    }
}
