//! Turns: which letter may begin, how it runs, and what is kept of it until it is durable.

use tokio::time::Instant;
use tokio_util::sync::CancellationToken;

use super::{
    drive::{End, LONG, Terms, drive},
    runner::{Exit, Runner},
    window::{Entry, fail},
};
use crate::{
    agent::{
        Agent, AskError, Envelope, Fault, Persistence, Ran, letter::Meta, messages::EnvelopeOf, turn::Passage,
    },
    clock,
    runtime::{
        crashes::{drop_panicked, guard},
        keys,
        probe::Boundary,
    },
};

/// Of so many turns in a row, the first is timed for the metrics.
const TIMED: u32 = 256;

impl<A: Agent> Runner<A> {
    /// Whether the letter's turn may begin now; `None`: it has been answered, or waits. Its asker can withdraw it
    /// until then.
    pub(super) async fn admit(&mut self, letter: EnvelopeOf<A>) -> Option<EnvelopeOf<A>> {
        self.admissible(letter).await.filter(|letter| letter.letter().start())
    }

    async fn admissible(&mut self, mut letter: EnvelopeOf<A>) -> Option<EnvelopeOf<A>> {
        let Some(meta) = letter.letter().details().0 else {
            return self.admit_long(letter);
        };
        if meta.deadline.is_some_and(|d| Instant::now() >= d) {
            fail(&self.lane, [letter], &AskError::TimedOut);
            return None;
        }
        if meta.claim.as_ref().is_some_and(|claim| claim.has_expired(clock::now)) {
            fail(&self.lane, [letter], &AskError::Unavailable("the task has expired".to_owned()));
            return None;
        }
        if meta.recall.as_ref().is_some_and(CancellationToken::is_cancelled) {
            fail(&self.lane, [letter], &AskError::Unavailable("the task goes back".to_owned()));
            return None;
        }
        let key = meta.key.clone();
        let Some(key) = key.filter(|_| !letter.read_only()) else {
            return self.admit_long(letter);
        };
        let flying = self.air.flight.iter().flat_map(|f| &f.keys).any(|text| *text == key.text);
        let queued = self.window_key(self.lane.name.id.0, &key.text).is_some();
        let same = |e: &Entry<A>| {
            e.letter.letter().details().0.and_then(|m| m.key.as_ref()).is_some_and(|k| k.text == key.text)
        };
        if flying || queued || self.window.entries.iter().any(same) {
            self.barrier = true;
            self.batch.push_front(letter);
            return None;
        }
        let (store, scope, text) = (self.node.store.clone(), self.lane.name.id.0, key.text.clone());
        let Some(found) = self.unless_troubled(async move { store.key(scope, &text).await }).await else {
            fail(&self.lane, [letter], &self.node.trouble());
            return None;
        };
        match found {
            Ok(None) => self.admit_long(letter),
            Ok(Some(row)) if row.request == key.request => {
                letter.letter_mut().replay(keys::read(row.reply.as_deref(), row.task));
                None
            }
            Ok(Some(_)) => {
                fail(&self.lane, [letter], &AskError::Conflict);
                None
            }
            Err(e) => {
                fail(&self.lane, [letter], &AskError::Unavailable(e.to_string()));
                None
            }
        }
    }

    /// A message that is known to take long begins only when all before it is durable: who waits for that
    /// would wait for it as well.
    fn admit_long(&mut self, letter: EnvelopeOf<A>) -> Option<EnvelopeOf<A>> {
        if self.must_wait(&letter) {
            self.barrier = true;
            self.batch.push_front(letter);
            return None;
        }
        Some(letter)
    }

    #[inline]
    fn must_wait(&self, letter: &EnvelopeOf<A>) -> bool {
        if self.volatile() {
            // A volatile turn cannot be run again, so it must not find the gate shut.
            self.window.is_uncovered()
                || (self.is_outstanding() && self.kind.slow.contains(letter.wire_name()))
        } else {
            self.is_outstanding() && self.kind.slow.contains(letter.wire_name())
        }
    }

    #[inline]
    fn is_outstanding(&self) -> bool {
        self.air.flight.is_some() || !self.window.is_empty()
    }

    /// Runs the next letter where it lies: moving letters is much of what short turns cost. Only of
    /// one that says nothing beside its message. `None`: its turn may not begin yet.
    #[inline]
    pub(super) async fn drive_in_place(&mut self) -> Option<End> {
        if self.batch.get(self.begun).is_none_or(|letter| self.must_wait(letter)) {
            self.barrier = true;
            return None;
        }
        let terms = self.terms(None);
        let at = self.begun;
        self.begun += 1;
        if self.probed
            && let Some(end) = self.cut_short(Boundary::BeforeHandler, self.batch.get(at))
        {
            return Some(end);
        }
        let (Some(letter), Some(agent)) = (self.batch.get_mut(at), self.agent.as_deref_mut()) else {
            return Some(End::panicked("the agent is not there".to_owned(), None));
        };
        let name = letter.wire_name();
        let end = drive(agent, letter, &self.turn, &mut self.air, &terms).await;
        self.has_run(name, matches!(end, End::Ran(_)), &terms);
        Some(if self.probed { self.unless_cut_short(end, self.batch.get(at)) } else { end })
    }

    /// Runs one letter.
    pub(super) async fn drive(&mut self, letter: &mut EnvelopeOf<A>) -> End {
        let terms = self.terms(letter.letter().details().0);
        if let Some(end) = self.cut_short(Boundary::BeforeHandler, Some(letter)) {
            return end;
        }
        let Some(agent) = self.agent.as_deref_mut() else {
            return End::panicked("the agent is not there".to_owned(), None);
        };
        let name = letter.wire_name();
        let end = drive(agent, letter, &self.turn, &mut self.air, &terms).await;
        self.turn.fall_silent();
        self.has_run(name, matches!(end, End::Ran(_)), &terms);
        self.unless_cut_short(end, Some(letter))
    }

    /// Where a test has the turn crash.
    #[inline]
    fn cut_short(&self, boundary: Boundary, letter: Option<&EnvelopeOf<A>>) -> Option<End> {
        let probe = self.node.probe.as_deref().filter(|_| self.probed)?;
        let message = letter.map_or("", |letter| letter.wire_name());
        let crashes = probe.comes_to(boundary, format_args!("`{message}` in {}", self.subject()));
        crashes.then(|| End::panicked("a test crashed it".to_owned(), None))
    }

    #[inline]
    fn unless_cut_short(&self, end: End, letter: Option<&EnvelopeOf<A>>) -> End {
        match end {
            End::Ran(ran) if ran != Ran::Failed => {
                self.cut_short(Boundary::AfterHandler, letter).unwrap_or(end)
            }
            end => end,
        }
    }

    /// Begins a turn.
    #[inline]
    fn terms(&mut self, meta: Option<&Meta>) -> Terms {
        self.air.waited = None;
        let uncovered = self.window.is_uncovered();
        let blocked = uncovered || self.air.flight.is_some();
        let limit = self.kind.policy.turn_timeout;
        let budget = match meta.and_then(|m| m.deadline) {
            Some(deadline) => limit.min(deadline.saturating_duration_since(Instant::now())),
            None => meta.and_then(|m| m.claim.as_ref()?.timeout).unwrap_or(limit),
        };
        self.turn.begin(meta, if blocked { Passage::Blocked } else { Passage::Clear }, budget);
        // One of many is timed: the clock would cost more than a short turn.
        let begun = self.nth.is_multiple_of(TIMED).then(Instant::now);
        self.nth = self.nth.wrapping_add(1);
        Terms {
            keep: !self.volatile(),
            uncovered,
            awaited: self.window.urgent && !self.window.is_empty(),
            budget,
            stop_timeout: self.kind.policy.stop_timeout,
            begun,
            cancel: meta.and_then(|m| m.cancel.clone()),
        }
    }

    #[inline]
    fn has_run(&mut self, message: &'static str, ended: bool, terms: &Terms) {
        if self.air.waited.is_some() || self.kind.slow.are_known() {
            let long = self.air.waited.is_some_and(|waited| waited >= LONG);
            if ended && !long && !self.turn.gate.is_standing_or_passed() {
                self.kind.slow.doubt(message);
            } else if long && !matches!(self.kind.policy.persistence, Persistence::Relaxed { .. }) {
                // Of a relaxed agent nobody waits for the commit.
                self.kind.slow.learn(message);
            }
        }
        if let Some(begun) = terms.begun {
            self.kind.metrics.handled(begun.elapsed());
        }
        self.turns += 1;
    }

    /// Answers the turn that ran in place, if it ended well, left nothing behind and waits for nothing.
    #[inline]
    pub(super) fn is_answered(&mut self, end: &End) -> bool {
        let End::Ran(ran) = *end else { return false };
        if ran == Ran::Failed || self.turn.gate.is_passed() || self.turn.has_outbox() {
            return false;
        }
        let volatile = self.volatile();
        // A volatile turn does not begin while anything of another is held.
        if !volatile && self.is_outstanding() {
            return false;
        }
        let Some(letter) = self.begun.checked_sub(1).and_then(|at| self.batch.get_mut(at)) else {
            return false;
        };
        if !volatile && ran == Ran::Done && !letter.read_only() {
            return false;
        }
        self.streak = 0;
        letter.answer(if volatile { 0 } else { self.air.version });
        true
    }

    /// Drops the letters that have been answered in place.
    pub(super) fn sweep(&mut self) {
        let answered = std::mem::take(&mut self.begun);
        // Messages and replies are user values, and may panic when they are dropped.
        if answered > 0
            && let Err(panic) = guard(|| drop(self.batch.drain(..answered)))
        {
            self.node.logger.emit(drop_panicked(self.subject(), panic));
        }
    }

    /// Takes in how a turn ended.
    pub(super) async fn take_turn(&mut self, mut letter: EnvelopeOf<A>, end: End) -> Option<Exit> {
        let reached = self.turn.gate.is_passed();
        if let Some(id) = self.turn.named() {
            letter.letter_mut().name_it(id);
        }
        match end {
            End::Ran(ran) => {
                let ran = self.settle_outbox(&mut letter, ran).await;
                if reached {
                    self.kind.slow.learn(letter.wire_name());
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
            End::Crashed(reason) => Box::pin(self.crash(letter, *reason)).await,
            End::Cut(why) => Box::pin(self.cut(letter, why)).await,
            End::Blocked => {
                self.kind.slow.learn(letter.wire_name());
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
    pub(super) async fn settle_outbox(&mut self, letter: &mut EnvelopeOf<A>, ran: Ran) -> Ran {
        let Some(mut outbox) = self.turn.take_outbox() else { return ran };
        if ran != Ran::Done {
            return ran;
        }
        let fault = if letter.read_only() && outbox.has_records() {
            Some("a query may not send".to_owned())
        } else if outbox.fault.is_none() && !outbox.keyed.is_empty() {
            // Boxed: few turns have any.
            Box::pin(self.settle_keys(letter, &mut outbox)).await.err()
        } else {
            outbox.fault.clone()
        };
        if let Some(fault) = fault {
            letter.letter_mut().fail(AskError::Failed(Fault::new(fault)));
            return Ran::Failed;
        }
        self.retire |= outbox.retire;
        match &mut self.window.outbox {
            Some(earlier) => earlier.append(*outbox),
            none => *none = Some(outbox),
        }
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
        if self.window.outbox.is_some() || Self::has_record(letter, ran) {
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
        let outputs = self.window.outbox.is_some() || Self::has_record(&letter, ran);
        if matches!(self.kind.policy.persistence, Persistence::Relaxed { .. }) && !outputs {
            letter.letter_mut().release(self.air.version);
        } else {
            self.window.urgent = true;
        }
        self.window.entries.push(Entry { letter, ran });
    }
}
