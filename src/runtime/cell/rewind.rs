//! Failed turns: the crash is reported and decided, and that turn alone is undone.

use std::{future::Future, sync::atomic::Ordering, task::Poll, time::Duration};

use uuid::Uuid;

use super::{
    drive::{Cut, End},
    runner::{Exit, Runner},
    window::Entry,
};
use crate::{
    agent::{
        Agent, AnyLetter, AskError, Envelope, Fault, Persistence, Ran, messages::EnvelopeOf,
        turn::Activation as _,
    },
    clock,
    model::{
        event::{self, Event, Level},
        group::Strategy,
        supervision::{CrashKind, CrashReason, CrashReport, Decision, decide},
    },
    runtime::{
        crashes::{drop_panicked, guard},
        groups::MemberCrashed,
        inbox::Phase,
        restart_order,
    },
};

impl<A: Agent> Runner<A> {
    /// A handler's error: its turn is undone, its neighbours are not.
    pub(super) async fn undo(&mut self, letter: EnvelopeOf<A>) -> Option<Exit> {
        let back = self.step_back().await;
        if let Ok(Some(error)) = back {
            self.batch.push_front(letter);
            return self.unwritable(error).await;
        }
        self.keep(letter, Ran::Failed);
        back.err()
    }

    /// Goes back to what a failed turn found. The error: that can never be written, so that the turn
    /// must not be judged by it, and runs again.
    pub(super) async fn step_back(&mut self) -> Result<Option<Box<AskError>>, Exit> {
        let suspect = self.window.changed && !self.volatile();
        match self.rewind().await {
            Some(exit) => Err(exit),
            None if suspect => Ok(self.serialise().err()),
            None => Ok(None),
        }
    }

    /// A turn that did not end although it was asked to: undone, and no crash. A volatile agent starts anew:
    /// nobody knows how far the turn had come.
    pub(super) async fn cut(&mut self, mut letter: EnvelopeOf<A>, why: Cut) -> Option<Exit> {
        self.failures += 1;
        let _ = self.turn.take_outbox();
        self.tell_of_cut(letter.letter(), why);
        letter.letter_mut().fail(self.cut_error(why));
        self.drop_agent();
        Box::pin(self.undo(letter)).await
    }

    /// Who looks later for what became of a message finds it: a tell has nobody else who hears of it.
    fn tell_of_cut(&self, letter: &dyn AnyLetter, why: Cut) {
        let by = match why {
            Cut::Cancelled => "the cancellation of its task",
            Cut::Stopped => "its stop or restart",
        };
        let ran = self.air.waited.map(|ran| u64::try_from(ran.as_millis()).unwrap_or(u64::MAX));
        let told = Event::new(Level::Warn, event::AGENT_TURN_CUT, self.subject())
            .field("message", letter.name().to_owned())
            .field_opt("message_id", message_id(letter).map(|id| id.to_string()))
            .field("by", by)
            .field_opt("ran_ms", ran);
        self.node.logger.emit(told);
    }

    fn cut_error(&self, why: Cut) -> AskError {
        let subject = self.subject();
        AskError::WrongState(match why {
            Cut::Cancelled => {
                format!("its task was cancelled: the turn of {subject} was cut short and undone")
            }
            Cut::Stopped => {
                format!("{subject} was stopped or started anew: its turn was cut short and undone")
            }
        })
    }

    /// A crash: reported, decided, undone.
    pub(super) async fn crash(&mut self, mut letter: EnvelopeOf<A>, reason: CrashReason) -> Option<Exit> {
        self.failures += 1;
        // what it has asked others for would be asked for twice
        let reached = self.turn.gate.is_passed();
        let _ = self.turn.take_outbox();
        self.drop_agent();
        let mut exit = None;
        if self.window.changed && !self.volatile() {
            match self.step_back().await {
                Ok(None) => {}
                Ok(Some(error)) => {
                    self.batch.push_front(letter);
                    return self.unwritable(error).await;
                }
                Err(e) => exit = Some(e),
            }
        }
        let again = !reached && letter.letter_mut().comes_again();
        let (decision, end) = self.crashed(&mut letter, reason);
        if again {
            self.batch.push_front(letter);
        } else {
            self.keep(letter, Ran::Failed);
        }
        match exit {
            Some(exit) => Some(exit),
            None => self.after_crash(decision, &end).await,
        }
    }

    /// Reports a crash, of which its letter is the answer: what is decided, and how it ended.
    fn crashed(&mut self, letter: &mut EnvelopeOf<A>, reason: CrashReason) -> (Decision, String) {
        let timed_out = reason.kind == CrashKind::Timeout;
        letter.letter_mut().name_it(Uuid::now_v7());
        let (decision, fault) = self.report(Some(letter.letter()), reason);
        let end = format!("it {}", fault.message);
        letter.letter_mut().fail(if timed_out { AskError::TimedOut } else { AskError::Failed(fault) });
        (decision, end)
    }

    /// A crash between two turns, as a test wants it.
    pub(super) async fn die(&mut self) -> Option<Exit> {
        self.drop_agent();
        let message = "a test crashed it".to_owned();
        let reason = CrashReason { kind: CrashKind::Panic, message, site: None };
        let (decision, fault) = self.report(None, reason);
        self.after_crash(decision, &format!("it {}", fault.message)).await
    }

    async fn after_crash(&mut self, decision: Decision, end: &str) -> Option<Exit> {
        match decision {
            Decision::Restart { delay, .. } => {
                self.inbox().set_phase(Phase::Restarting);
                self.back_off(delay).await;
                self.start_again().await
            }
            // Its group decides what becomes of it.
            Decision::Exceeded { .. } if self.kind.policy.group.is_some() => {
                self.inbox().set_phase(Phase::Restarting);
                self.back_off(self.longest()).await;
                self.start_again().await
            }
            Decision::Exceeded { attempts } => {
                if let Some(exit) = self.rewind_if_gone().await {
                    return Some(exit);
                }
                let within = self.kind.policy.restart.read().within;
                let why = format!("it crashed more than {attempts} times within {within:?}");
                Some(self.stop(why).await)
            }
            Decision::Leave => {
                // Its state is needed only where what ran beside the crash is still to be written.
                let mut exit = if self.window.changed { self.rewind_if_gone().await } else { None };
                if exit.is_none() {
                    exit = Box::pin(self.calm_down()).await;
                }
                // It has ended, however it leaves.
                self.node.bonds.ended(&self.subject(), end);
                if exit.is_some() {
                    return exit;
                }
                self.close().await;
                Some(self.let_go())
            }
        }
    }

    /// Waits until what ran is durable, or undone: what it leaves behind comes before its end.
    async fn calm_down(&mut self) -> Option<Exit> {
        while self.air.flight.is_some() || !self.window.is_empty() {
            if self.air.flight.is_none()
                && let Some(exit) = self.flush().await
            {
                return Some(exit);
            }
            if self.air.flight.is_some() {
                let outcome = self.outcome().await;
                if let Err(outcome) = self.landed(outcome)
                    && let Some(exit) = self.lost(outcome).await
                {
                    return Some(exit);
                }
            }
        }
        None
    }

    /// Waits, unless an operator or the end of the node asks it to leave. `false`: it is asked.
    pub(super) async fn back_off(&self, delay: Duration) -> bool {
        if delay.is_zero() {
            return self.unless_leaving(std::future::ready(())).await;
        }
        self.unless_leaving(tokio::time::sleep(delay)).await
    }

    /// Waits for this, unless it is asked to leave. `false`: it is asked.
    pub(super) async fn unless_leaving(&self, wait: impl Future<Output = ()>) -> bool {
        let mut wait = std::pin::pin!(wait);
        std::future::poll_fn(|cx| {
            self.inbox().waker.register(cx.waker());
            if self.inbox().is_leaving() {
                return Poll::Ready(false);
            }
            if self.agent.is_none()
                && let Some(part) = &mut self.inbox().held.lock().part
            {
                part.stopped(); // who leads a restart need not wait for more
            }
            wait.as_mut().poll(cx).map(|()| true)
        })
        .await
    }

    /// How long one waits past its intensity: until its group has decided, where it does so in an order.
    pub(super) fn longest(&self) -> Duration {
        let is_led = self.inbox().held.lock().part.is_some();
        if is_led { Duration::ZERO } else { self.kind.policy.restart.read().backoff_max }
    }

    /// Starts again after a crash: in its place, where others restart with it.
    async fn start_again(&mut self) -> Option<Exit> {
        let is_led = self.inbox().held.lock().part.is_some();
        if self.agent.is_none() || !is_led {
            return self.rewind_if_gone().await;
        }
        // It went on, to judge its neighbours by it: what they did is to be durable.
        if let Some(exit) = Box::pin(self.calm_down()).await {
            return Some(exit);
        }
        self.close().await;
        self.revive().await
    }

    async fn rewind_if_gone(&mut self) -> Option<Exit> {
        if self.agent.is_none() { self.rewind().await } else { None }
    }

    /// Reports a crash and decides what follows. The caller's fault carries the report's id.
    pub(super) fn report(
        &mut self,
        letter: Option<&dyn AnyLetter>,
        reason: CrashReason,
    ) -> (Decision, Fault) {
        self.streak = self.streak.saturating_add(1);
        let policy = *self.kind.policy.restart.read();
        let jitter = 0.5 + fastrand::f64() / 2.0;
        let (streak, now) = (self.streak, self.node.uptime());
        let decision = self.lane.judge(|budget| decide(&policy, budget, streak, now, jitter));
        let message_id = letter.and_then(message_id);
        let group = self.kind.policy.group.as_deref();
        let group = self.node.groups.iter().find(|g| group == Some(&*g.name));
        let strategy = group.map(|g| g.policy.strategy);
        let report = CrashReport {
            group: group.map(|g| (g.name.clone(), g.policy.strategy)),
            id: Uuid::now_v7().to_string(),
            at: clock::now(),
            subject: self.subject(),
            message_type: letter.map(|l| l.name().to_owned()),
            message_id: message_id.map(|id| id.to_string()),
            // what it writes is the user's code
            message_bytes: letter.and_then(|l| guard(|| l.size() as u64).ok()).filter(|known| *known > 0),
            repeat: self.streak,
            version: Some(self.air.version),
            lost: match self.kind.policy.persistence {
                Persistence::EveryTurn => None,
                Persistence::Relaxed { .. } => {
                    Some("nothing but this turn: the turns since the last snapshot ran again".to_owned())
                }
                Persistence::Volatile => Some("its state, which is volatile".to_owned()),
            },
            decision,
            max_restarts: policy.max_restarts,
            within: policy.within,
            reason,
        };
        let fault = Fault {
            message: format!("crashed: {}", report.reason.message),
            chain: Vec::new(),
            crash_id: Some(report.id.clone()),
            advice: None,
        };
        self.inbox().restarts.fetch_add(1, Ordering::Relaxed);
        self.node.metrics.restart(A::KIND, report.reason.kind.name());
        // One that is not to be restarted leaves alone: it takes nobody along.
        if decision != Decision::Leave
            && let Some(group) = self.kind.policy.group.clone()
        {
            let (kind, key) = (A::KIND, self.lane.name.key.clone());
            let gave_up = matches!(decision, Decision::Exceeded { .. });
            let takes_along = strategy.is_some_and(|strategy| strategy != Strategy::OneForOne);
            let place = (gave_up || takes_along).then(|| {
                let (part, lead) = restart_order::part();
                self.inbox().held.lock().part = Some(Box::new(part));
                lead
            });
            if !self.node.member_crashed(MemberCrashed { group, kind, key, gave_up, place }) {
                self.inbox().held.lock().part = None; // nobody leads
            }
        }
        self.node.crashed(report);
        (decision, fault)
    }

    /// Drops the agent's value under a guard: its `Drop` is user code.
    pub(super) fn drop_agent(&mut self) {
        if let Some(agent) = self.agent.take()
            && let Err(panic) = guard(move || drop(agent))
        {
            self.node.logger.emit(drop_panicked(self.subject(), panic));
        }
    }

    /// Goes back to the last image and runs again what is not covered by it and did not fail.
    pub(super) async fn rewind(&mut self) -> Option<Exit> {
        if self.volatile() {
            if self.agent.is_none()
                && let Some(exit) = self.revive().await
            {
                return Some(exit);
            }
            return None;
        }
        let mut given_up = None;
        loop {
            self.drop_agent();
            if let Some(exit) = self.revive().await {
                return Some(exit);
            }
            let window = std::mem::take(&mut self.window);
            // what they left is left again; timers that are set would count twice
            drop(window.outbox);
            let mut entries = window.entries.into_iter();
            let mut failed = false;
            while let Some(mut entry) = entries.next() {
                if entry.ran == Ran::Failed {
                    self.keep_again(entry);
                    continue;
                }
                match self.drive(&mut entry.letter).await {
                    End::Ran(ran) => {
                        entry.ran = self.settle_outbox(&mut entry.letter, ran).await;
                        failed = entry.ran == Ran::Failed;
                        self.keep_again(entry);
                    }
                    End::Crashed(reason) => {
                        let again = !self.turn.gate.is_passed() && entry.letter.letter_mut().comes_again();
                        let (decision, end) = self.crashed(&mut entry.letter, *reason);
                        entry.ran = if again { Ran::Done } else { Ran::Failed };
                        failed = true;
                        self.keep_again(entry);
                        match decision {
                            Decision::Restart { delay, .. } => {
                                self.inbox().set_phase(Phase::Restarting);
                                self.back_off(delay).await;
                            }
                            Decision::Exceeded { .. } | Decision::Leave => given_up = Some((decision, end)),
                        }
                    }
                    End::Cut(why) => {
                        entry.letter.letter_mut().fail(self.cut_error(why));
                        entry.ran = Ran::Failed;
                        failed = true;
                        self.keep_again(entry);
                    }
                    End::Blocked => {
                        // It reaches outside this time: it and what came after it wait for the flush.
                        self.kind.slow.learn(entry.letter.wire_name());
                        let rest = std::iter::once(entry).chain(entries.by_ref()).collect();
                        self.run_again(rest);
                        self.barrier = true;
                        failed = true;
                    }
                    End::Lost(outcome) => {
                        let rest: Vec<_> = std::iter::once(entry).chain(entries).collect();
                        self.window.entries.extend(rest);
                        let exit = Box::pin(self.lost(*outcome)).await;
                        return match (exit, given_up) {
                            (None, Some((decision, end))) => Box::pin(self.after_crash(decision, &end)).await,
                            (exit, _) => exit,
                        };
                    }
                }
                if failed {
                    self.window.entries.extend(entries);
                    break;
                }
            }
            if !failed {
                // Those that still ran keep what they did: it gives up after them.
                return match given_up {
                    Some((decision, end)) => Box::pin(self.after_crash(decision, &end)).await,
                    None => None,
                };
            }
            let _ = self.turn.take_outbox();
            self.limit = 1;
        }
    }

    /// Puts turns back in front of what waits. One that failed stays failed: it does not crash twice.
    pub(super) fn run_again(&mut self, entries: Vec<Entry<A>>) {
        let mut failed = Vec::new();
        for entry in entries.into_iter().rev() {
            if entry.ran == Ran::Failed {
                failed.push(entry);
            } else {
                self.batch.push_front(entry.letter);
            }
        }
        for entry in failed.into_iter().rev() {
            self.keep_again(entry);
        }
    }

    fn keep_again(&mut self, entry: Entry<A>) {
        self.window.changed |= entry.ran == Ran::Done && !entry.letter.read_only();
        self.window.urgent = true;
        self.window.entries.push(entry);
    }
}

/// The id of a message: of the task that it is an attempt of, or its own if it was given one.
fn message_id(letter: &dyn AnyLetter) -> Option<Uuid> {
    let meta = letter.details().0?;
    meta.claim.as_ref().map(|claim| claim.id.0).or(meta.id)
}
