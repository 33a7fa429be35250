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
    sync::{Arc, atomic::Ordering},
    task::Poll,
    time::{Duration, Instant},
};

use jiff::Timestamp;
use uuid::Uuid;

use super::{
    drive::{End, drive},
    restore::{RestoreError, decode, reads_back, revive},
    window::{Air, Entry, Flight, Window, fail, release},
};
use crate::{
    agent::{
        Agent, AnyLetter, AskError, Envelope, Fault, Persistence, Ran, Turn,
        lane::{Entrance, Lane},
        letter::Key,
        messages::EnvelopeOf,
        turn::Passage,
    },
    model::{
        event::{self, Event, Level},
        snapshot::{self, Codec, Header},
        supervision::{Budget, CrashKind, CrashReason, CrashReport, Decision, decide},
    },
    runtime::{
        crashes::guard,
        inbox::{Control, Inbox, Phase},
        kind::Kind,
        node::Node,
        orchestrator::Notice,
        persistence::{Outcome, Ticket},
        settle::{finish, later, settle},
    },
    store::{Guard, KeyWrite, Refusal, StateWrite, StoredStatus, Unit},
};

/// At most so many turns run ahead of the disk.
const MAX_WINDOW: usize = 256;
/// At most so many bytes of outputs wait for one commit.
const MAX_OUTPUT_BYTES: usize = 1 << 20;
/// Turns until the cell looks up from its work.
const BUDGET: u32 = 256;
/// How long a cell works before its neighbours have their turn.
const SLICE: Duration = Duration::from_micros(200);
/// How often a load is tried before what waits is answered.
const LOAD_TRIES: u32 = 6;

/// Why the runner ends.
enum Exit {
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

/// The one loop of an agent's life.
pub(super) struct Runner<A: Agent> {
    node: Arc<Node>,
    kind: Arc<Kind<A>>,
    lane: Arc<Lane<A>>,
    batch: VecDeque<EnvelopeOf<A>>,
    window: Window<A>,
    air: Air<A>,
    turn: Turn<A>,
    agent: Option<Box<A>>,
    epoch: i64,
    /// How many turns may run ahead: shrinks when turns fail, grows when commits succeed.
    limit: usize,
    /// Nothing runs until everything that ran is durable.
    barrier: bool,
    budget: Budget,
    /// Crashes since the last successful turn.
    streak: u32,
    retire: bool,
    flushed_at: Instant,
    detached: bool,
    turns: u32,
    failures: u32,
}

impl<A: Agent> Runner<A> {
    pub(super) fn new(node: Arc<Node>, kind: Arc<Kind<A>>, lane: Arc<Lane<A>>, inbox: Arc<Inbox>) -> Self {
        let turn = Turn::new(node.host(), lane.clone());
        Self {
            epoch: node.epoch(lane.name.id),
            turn,
            batch: VecDeque::new(),
            window: Window::default(),
            air: Air { inbox, flight: None, image: None, version: 0 },
            agent: None,
            limit: MAX_WINDOW,
            barrier: false,
            budget: Budget::new(),
            streak: 0,
            retire: false,
            flushed_at: Instant::now(),
            detached: false,
            turns: 0,
            failures: 0,
            node,
            kind,
            lane,
        }
    }

    fn volatile(&self) -> bool {
        matches!(self.kind.policy.persistence, Persistence::Volatile)
    }

    fn subject(&self) -> String {
        self.lane.name.subject()
    }

    fn inbox(&self) -> &Inbox {
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
        }
    }

    async fn live(&mut self) -> Exit {
        // What happens seldom is boxed here and below: an agent at rest is as large as the largest
        // future of its loop.
        if let Some(exit) = Box::pin(self.restore()).await {
            return exit;
        }
        loop {
            let step = match self.next().await {
                Next::Outcome(outcome) => self.landed(outcome).await,
                Next::Batch => self.work().await,
                Next::Control(control) => Box::pin(self.controlled(control)).await,
            };
            if let Some(exit) = step {
                return exit;
            }
            if self.flush_is_due()
                && let Some(exit) = self.flush().await
            {
                return exit;
            }
        }
    }

    /// Whether another turn may run now.
    fn can_run(&self) -> bool {
        let room = self.window.entries.len() < self.limit && self.window.outbox.bytes < MAX_OUTPUT_BYTES;
        room && !(self.barrier && (self.air.flight.is_some() || !self.window.is_empty()))
    }

    async fn next(&mut self) -> Next {
        if !self.barrier
            && !self.batch.is_empty()
            && !self.inbox().has_outcome()
            && self.can_run()
            && self.inbox().control() < Control::Leave
        {
            return Next::Batch;
        }
        if self.batch.is_empty() && self.air.flight.is_none() && self.window.is_empty() {
            self.rest();
        }
        std::future::poll_fn(|cx| {
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
                _ => return Poll::Pending,
            }
            if self.retire && quiet && self.batch.is_empty() {
                return Poll::Ready(Next::Control(Control::Passivate));
            }
            if self.can_run() {
                if quiet {
                    self.barrier = false;
                }
                if !self.batch.is_empty() || self.lane.poll_batch(&mut self.batch, cx) {
                    return Poll::Ready(Next::Batch);
                }
            }
            Poll::Pending
        })
        .await
    }

    /// Nothing to do: tell the figures, keep little.
    fn rest(&mut self) {
        self.report_turns();
        self.limit = self.limit.max(1);
        self.inbox().set_phase(Phase::Idle);
    }

    fn report_turns(&mut self) {
        if self.turns > 0 {
            self.node.metrics.turns(A::KIND, "ok", u64::from(self.turns - self.failures.min(self.turns)));
            if self.failures > 0 {
                self.node.metrics.turns(A::KIND, "failed", u64::from(self.failures));
            }
            (self.turns, self.failures) = (0, 0);
        }
    }

    /// Runs what waits, until it must look up.
    async fn work(&mut self) -> Option<Exit> {
        self.inbox().active_at.store(self.node.tick(), Ordering::Relaxed);
        self.inbox().set_phase(Phase::Active);
        let (mut left, mut check, mut until, mut since) = (BUDGET, 1u32, 1u32, Instant::now());
        while let Some(letter) = self.batch.pop_front() {
            // Most letters say nothing beside their message.
            let admitted = match letter.letter().details().0 {
                Some(_) => Box::pin(self.admit(letter)).await,
                None => self.admit_reach(letter),
            };
            if let Some(mut letter) = admitted {
                let end = self.drive(&mut letter).await;
                if !self.is_answered(&mut letter, &end)
                    && let Some(exit) = self.take_turn(letter, end).await
                {
                    return Some(exit);
                }
            }
            if self.inbox().has_outcome() || !self.can_run() || self.retire {
                break;
            }
            left -= 1;
            until -= 1;
            // The clock is asked rarely while turns are short, and every turn while they are long.
            if left == 0 || until == 0 {
                let spent = since.elapsed();
                if left == 0 || spent > SLICE {
                    if self.flush_is_due() {
                        break;
                    }
                    (left, check) = (BUDGET, if spent > SLICE { 1 } else { check });
                    tokio::task::yield_now().await;
                    since = Instant::now();
                    if self.inbox().control() >= Control::Leave {
                        break;
                    }
                } else if spent < SLICE / 4 {
                    check = (check * 2).min(64);
                }
                until = check;
            }
        }
        None
    }

    /// Whether the letter's turn may begin now; `None`: it has been answered, or waits.
    async fn admit(&mut self, mut letter: EnvelopeOf<A>) -> Option<EnvelopeOf<A>> {
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
        let flying = self.air.flight.iter().flat_map(|f| &f.entries);
        let same = |e: &Entry<A>| {
            e.letter.letter().details().0.and_then(|m| m.key.as_ref()).is_some_and(|k| k.text == key.text)
        };
        if self.window.entries.iter().chain(flying).any(same) {
            self.barrier = true;
            self.batch.push_front(letter);
            return None;
        }
        match self.node.store.key(self.lane.name.id.0, &key.text).await {
            Ok(None) => self.admit_reach(letter),
            Ok(Some(row)) if row.request == key.request => {
                letter.letter_mut().replay(super::super::keys::read(row.reply.as_deref(), row.task));
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
    fn admit_reach(&mut self, letter: EnvelopeOf<A>) -> Option<EnvelopeOf<A>> {
        let outstanding = self.air.flight.is_some() || !self.window.is_empty();
        if outstanding
            && !self.kind.reaching.is_empty()
            && self.kind.reaching.pin().contains(letter.letter().name())
        {
            self.barrier = true;
            self.batch.push_front(letter);
            return None;
        }
        Some(letter)
    }

    /// Runs one letter.
    async fn drive(&mut self, letter: &mut EnvelopeOf<A>) -> End {
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
        let end = drive(&mut *agent, letter, &self.turn, &mut self.air, keep, uncovered, budget).await;
        self.agent = Some(agent);
        self.turns += 1;
        end
    }

    /// Answers a turn that ended well, left nothing behind and waits for nothing: the letter is not
    /// moved again, which is what a short turn costs.
    fn is_answered(&mut self, letter: &mut EnvelopeOf<A>, end: &End) -> bool {
        let well = matches!(end, End::Ran(Ran::Done | Ran::Declined));
        if !well || self.turn.gate.is_passed() || self.turn.has_outbox() {
            return false;
        }
        let End::Ran(ran) = end else { return false };
        let Some(version) = self.releases(letter, *ran) else { return false };
        self.streak = 0;
        letter.letter_mut().release(version);
        true
    }

    async fn take_turn(&mut self, mut letter: EnvelopeOf<A>, end: End) -> Option<Exit> {
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
    fn settle_outbox(&mut self, letter: &mut EnvelopeOf<A>, ran: Ran) -> Ran {
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

    /// Whether something beside the state waits for the turn's commit.
    fn is_urgent(letter: &EnvelopeOf<A>, ran: Ran) -> bool {
        letter.letter().details().0.is_some_and(|m| {
            m.claim.is_some() || (m.key.is_some() && ran != Ran::Declined && !letter.read_only())
        })
    }

    /// The version under which a turn is answered at once; `None`: something holds it.
    fn releases(&self, letter: &EnvelopeOf<A>, ran: Ran) -> Option<i64> {
        if !self.window.outbox.is_empty() || Self::is_urgent(letter, ran) {
            return None;
        }
        if self.volatile() {
            return Some(0);
        }
        let clear = self.air.flight.is_none() && self.window.entries.is_empty();
        (clear && !self.has_effect(letter, ran)).then_some(self.air.version)
    }

    /// Keeps a turn that ran until it is durable, or answers it where nothing holds it.
    fn keep(&mut self, mut letter: EnvelopeOf<A>, ran: Ran) {
        if let Some(version) = self.releases(&letter, ran) {
            return letter.letter_mut().release(version);
        }
        self.window.changed |= self.has_effect(&letter, ran);
        let outputs = !self.window.outbox.is_empty() || Self::is_urgent(&letter, ran);
        if matches!(self.kind.policy.persistence, Persistence::Relaxed { .. }) && !outputs {
            letter.letter_mut().release(self.air.version);
        } else {
            self.window.urgent = true;
        }
        self.window.entries.push(Entry { letter, ran });
    }

    /// A handler's error: its turn is undone, its neighbours are not.
    async fn undo(&mut self, letter: EnvelopeOf<A>) -> Option<Exit> {
        self.keep(letter, Ran::Failed);
        if self.volatile() { None } else { self.rewind().await }
    }

    /// A crash: reported, decided, undone.
    async fn crash(&mut self, mut letter: EnvelopeOf<A>, reason: CrashReason) -> Option<Exit> {
        self.failures += 1;
        let _ = self.turn.take_outbox();
        let timed_out = reason.kind == CrashKind::Timeout;
        let (decision, fault) = self.report(Some(letter.letter()), reason);
        letter.letter_mut().fail(if timed_out { AskError::TimedOut } else { AskError::Failed(fault) });
        self.keep(letter, Ran::Failed);
        self.drop_agent();
        self.after_crash(decision).await
    }

    async fn after_crash(&mut self, decision: Decision) -> Option<Exit> {
        match decision {
            Decision::Restart { delay, .. } => {
                self.inbox().set_phase(Phase::Restarting);
                if !delay.is_zero() {
                    tokio::time::sleep(delay).await;
                }
                self.rewind().await
            }
            Decision::Exceeded { attempts } => {
                if let Some(exit) = self.rewind().await {
                    return Some(exit);
                }
                let within = self.kind.policy.restart.within;
                let why = format!("it crashed more than {attempts} times within {within:?}");
                Some(self.stop(why).await)
            }
            Decision::Leave => {
                if let Some(exit) = self.rewind().await {
                    return Some(exit);
                }
                self.retire = true;
                None
            }
        }
    }

    /// Reports a crash and decides what follows. The caller's fault carries the report's id.
    fn report(&mut self, letter: Option<&dyn AnyLetter>, reason: CrashReason) -> (Decision, Fault) {
        self.streak = self.streak.saturating_add(1);
        let policy = self.kind.policy.restart;
        let jitter = 0.5 + fastrand::f64() / 2.0;
        let decision = decide(&policy, &mut self.budget, self.streak, self.node.uptime(), jitter);
        let meta = letter.and_then(|l| l.details().0);
        let message_id =
            meta.and_then(|m| m.claim.as_ref().map(|c| c.id.0).or(m.id)).unwrap_or_else(Uuid::now_v7);
        let report = CrashReport {
            id: Uuid::now_v7().to_string(),
            at: Timestamp::now(),
            subject: self.subject(),
            message_type: letter.map(|l| l.name().to_owned()),
            message_id: letter.map(|_| message_id.to_string()),
            message_bytes: letter.map(|l| l.size() as u64),
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
        };
        self.inbox().restarts.fetch_add(1, Ordering::Relaxed);
        self.node.metrics.restart(A::KIND, report.reason.kind.name());
        self.node.crashed(report);
        (decision, fault)
    }

    /// Drops the agent's value under a guard: its `Drop` is user code.
    fn drop_agent(&mut self) {
        if let Some(agent) = self.agent.take()
            && let Err((message, site)) = guard(move || drop(agent))
        {
            let site = site.unwrap_or_default();
            let event = Event::new(Level::Warn, "agent.drop_panicked", self.subject());
            self.node.logger.emit(event.field("message", message).field("site", site));
        }
    }

    /// Goes back to the last image and runs again what is not covered by it and did not fail.
    async fn rewind(&mut self) -> Option<Exit> {
        if self.volatile() {
            if self.agent.is_none()
                && let Some(exit) = self.revive().await
            {
                return Some(exit);
            }
            return None;
        }
        loop {
            self.drop_agent();
            if let Some(exit) = self.revive().await {
                return Some(exit);
            }
            let window = std::mem::take(&mut self.window);
            let mut entries = window.entries.into_iter();
            let mut failed = false;
            while let Some(mut entry) = entries.next() {
                if entry.ran != Ran::Done {
                    self.keep_again(entry);
                    continue;
                }
                match self.drive(&mut entry.letter).await {
                    End::Ran(ran) => {
                        entry.ran = self.settle_outbox(&mut entry.letter, ran);
                        failed = entry.ran == Ran::Failed;
                        self.keep_again(entry);
                    }
                    End::Panicked(reason) => {
                        let (_, fault) = self.report(Some(entry.letter.letter()), *reason);
                        entry.letter.letter_mut().fail(AskError::Failed(fault));
                        entry.ran = Ran::Failed;
                        failed = true;
                        self.keep_again(entry);
                    }
                    End::TimedOut => {
                        entry.letter.letter_mut().fail(AskError::TimedOut);
                        entry.ran = Ran::Failed;
                        failed = true;
                        self.keep_again(entry);
                    }
                    End::Blocked => {
                        // It reaches outside this time: it and what came after it wait for the flush.
                        self.kind.reaching.pin().insert(entry.letter.letter().name());
                        let rest: Vec<_> = std::iter::once(entry).chain(entries.by_ref()).collect();
                        for entry in rest.into_iter().rev() {
                            self.batch.push_front(entry.letter);
                        }
                        self.barrier = true;
                        failed = true;
                    }
                    End::Lost(outcome) => {
                        let rest: Vec<_> = std::iter::once(entry).chain(entries).collect();
                        self.window.entries.extend(rest);
                        return Box::pin(self.lost(*outcome)).await;
                    }
                }
                if failed {
                    self.window.entries.extend(entries);
                    break;
                }
            }
            if !failed {
                return None;
            }
            let _ = self.turn.take_outbox();
            self.limit = 1;
        }
    }

    fn keep_again(&mut self, entry: Entry<A>) {
        self.window.changed |= entry.ran == Ran::Done && !entry.letter.read_only();
        self.window.urgent = true;
        self.window.entries.push(entry);
    }

    /// Decodes the last image and opens the agent's resources.
    async fn revive(&mut self) -> Option<Exit> {
        loop {
            match revive::<A>(self.air.image.as_ref().map(|i| i.as_slice())) {
                Ok(agent) => self.agent = Some(Box::new(agent)),
                Err(why) => return Some(self.quarantine(why).await),
            }
            match self.open().await {
                Ok(()) => return None,
                Err(reason) => {
                    self.drop_agent();
                    if let Some(exit) = self.failed_start(reason).await {
                        return Some(exit);
                    }
                }
            }
        }
    }

    /// A start that failed: waits for the back-off, or gives up.
    async fn failed_start(&mut self, reason: CrashReason) -> Option<Exit> {
        let (decision, fault) = self.report(None, reason);
        match decision {
            Decision::Restart { delay, .. } => {
                self.inbox().set_phase(Phase::Restarting);
                tokio::time::sleep(delay).await;
                None
            }
            Decision::Exceeded { .. } | Decision::Leave => {
                let entries = std::mem::take(&mut self.window.entries);
                fail::<A>(entries.into_iter().map(|e| e.letter), &AskError::Failed(fault.clone()));
                Some(self.stop(format!("it could not start: {}", fault.message)).await)
            }
        }
    }

    /// Runs `on_start`.
    async fn open(&mut self) -> Result<(), CrashReason> {
        let Some(agent) = self.agent.as_mut() else { return Ok(()) };
        self.turn.is_new = self.air.version == 0 && self.air.image.is_none();
        self.turn.begin(None, Passage::Blocked);
        let started = hook(agent.on_start(&self.turn), self.kind.policy.turn_timeout).await;
        let sent = self.turn.take_outbox().is_some();
        let reason = |kind, message: String, site| CrashReason { kind, message, site };
        match started {
            Ok(Ok(())) if sent => Err(reason(
                CrashKind::Start,
                "`on_start` may not send: move it to a handler".to_owned(),
                None,
            )),
            Ok(Ok(())) => Ok(()),
            Ok(Err(e)) => Err(reason(CrashKind::Start, format!("on_start: {e:#}"), None)),
            Err((message, site)) => Err(reason(CrashKind::Start, format!("on_start: {message}"), site)),
        }
    }

    /// Reads the agent from the store and opens it.
    async fn restore(&mut self) -> Option<Exit> {
        self.inbox().set_phase(Phase::Starting);
        let begun = Instant::now();
        let id = self.lane.name.id;
        self.epoch = self.node.epoch(id);
        self.air.image = None;
        self.air.version = 0;
        if self.volatile() {
            return self.revive().await;
        }
        let mut tries = 0;
        let row = loop {
            match self.node.load(id).await {
                Ok(row) => break row,
                Err(e) if tries < LOAD_TRIES && !self.node.is_closing() => {
                    tries += 1;
                    tokio::time::sleep(Duration::from_millis(10 << tries)).await;
                    let _ = e;
                }
                Err(e) => return Some(self.turn_away(AskError::Unavailable(e.to_string()))),
            }
        };
        let Some(row) = row else { return self.revive().await };
        let why = row.reason.clone().unwrap_or_default();
        match row.status {
            StoredStatus::Normal => {}
            StoredStatus::Paused => {
                self.lane.set_entrance(Entrance::Paused);
                self.lane.put_back(&mut self.batch);
                return Some(self.detach());
            }
            StoredStatus::Stopped => return Some(Exit::Shut(stopped_text(&self.subject(), &why))),
            StoredStatus::Quarantined => return Some(Exit::Shut(quarantined_text(&self.subject(), &why))),
        }
        match decode::<A>(&row) {
            Ok(None) => self.revive().await,
            Ok(Some(agent)) => {
                self.air.version = row.version;
                self.inbox().version.store(row.version, Ordering::Relaxed);
                let bytes = row.bytes.len();
                self.air.image = Some(Arc::new(row.bytes));
                self.agent = Some(Box::new(agent));
                let exit = match self.open().await {
                    Ok(()) => None,
                    Err(reason) => {
                        self.drop_agent();
                        match self.failed_start(reason).await {
                            Some(exit) => Some(exit),
                            None => self.revive().await,
                        }
                    }
                };
                let took = begun.elapsed();
                self.node.metrics.restored(took);
                if exit.is_none() && self.node.logger.wants(Level::Debug, event::STATE_RESTORED) {
                    let event = Event::new(Level::Debug, event::STATE_RESTORED, self.subject())
                        .field("version", row.version)
                        .field("age_ms", age_ms(row.updated_at))
                        .field("bytes", bytes)
                        .field("duration_ms", super::super::millis(took));
                    self.node.logger.emit(event);
                }
                exit
            }
            Err(RestoreError::Future { found, known }) => {
                let why = RestoreError::Future { found, known }.to_string();
                Some(self.turn_away(AskError::Unavailable(why)))
            }
            Err(RestoreError::Unreadable(why)) => Some(self.quarantine(why).await),
        }
    }

    /// Answers what waits with `error` and lets the lane go: the next message tries again.
    fn turn_away(&mut self, error: AskError) -> Exit {
        loop {
            let mut cx = std::task::Context::from_waker(std::task::Waker::noop());
            let _ = self.lane.poll_batch(&mut self.batch, &mut cx);
            fail::<A>(self.batch.drain(..), &error);
            if self.lane.detach() {
                self.detached = true;
                return Exit::Detached;
            }
        }
    }

    /// Takes the agent out of service: its state cannot be read, and is kept as it is.
    async fn quarantine(&mut self, why: String) -> Exit {
        let entries = std::mem::take(&mut self.window.entries);
        let text = quarantined_text(&self.subject(), &why);
        let name = &self.lane.name;
        let kept = self
            .node
            .store
            .set_status(name.id, &name.kind, &name.key, self.epoch, StoredStatus::Quarantined, Some(&why))
            .await;
        let subject = self.subject();
        let event = Event::new(Level::Error, event::STATE_QUARANTINED, &*subject)
            .field("cause", why)
            .field_opt("not_kept", kept.err().map(|e| e.to_string()))
            .hint(format!("its state is kept as it is; repair it, then: greenroom agents release {subject}"));
        self.node.logger.emit(event);
        self.node.metrics.restart(A::KIND, "quarantined");
        fail::<A>(entries.into_iter().map(|e| e.letter), &AskError::WrongState(text.to_string()));
        Exit::Shut(text)
    }

    /// Stops the agent for good, once what ran is durable.
    async fn stop(&mut self, why: String) -> Exit {
        while self.air.flight.is_some() || !self.window.is_empty() {
            if self.air.flight.is_none()
                && let Some(exit) = Box::pin(self.flush()).await
            {
                return exit;
            }
            if self.air.flight.is_some() {
                let outcome = self.outcome().await;
                if let Err(outcome) = self.air.land(outcome) {
                    self.fail_all(&outcome);
                }
            }
        }
        let name = &self.lane.name;
        let status = StoredStatus::Stopped;
        let kept =
            self.node.store.set_status(name.id, &name.kind, &name.key, self.epoch, status, Some(&why)).await;
        let subject = self.subject();
        let event = Event::new(Level::Error, event::AGENT_STOPPED, &*subject)
            .field("reason", why.clone())
            .field_opt("not_kept", kept.err().map(|e| e.to_string()))
            .hint(format!("its state is safe; when the cause is mended: greenroom agents restart {subject}"));
        self.node.logger.emit(event);
        self.node.notice(Notice::Stopped { subject: subject.clone(), reason: why.clone() });
        Exit::Shut(stopped_text(&subject, &why))
    }

    async fn outcome(&mut self) -> Outcome {
        std::future::poll_fn(|cx| {
            self.air.inbox.waker.register(cx.waker());
            self.air.inbox.take_outcome().map_or(Poll::Pending, Poll::Ready)
        })
        .await
    }

    /// Shuts the lane and answers what waits.
    fn shut(&mut self, why: &Arc<str>) {
        let handed_back = self.lane.set_entrance(Entrance::Shut(why.clone()));
        let error = AskError::WrongState(why.to_string());
        fail::<A>(self.batch.drain(..), &error);
        fail::<A>(handed_back, &error);
        self.lane.detach();
        self.detached = true;
        self.drop_agent();
    }

    async fn landed(&mut self, outcome: Outcome) -> Option<Exit> {
        match self.air.land(outcome) {
            Ok(()) => {
                self.limit = (self.limit * 2).min(MAX_WINDOW);
                None
            }
            Err(outcome) => Box::pin(self.lost(outcome)).await,
        }
    }

    /// The commit under way did not happen: nothing that ran since its image did. What may still
    /// succeed runs again from what the store holds.
    async fn lost(&mut self, outcome: Outcome) -> Option<Exit> {
        self.drop_agent();
        let single = self.air.flight.as_ref().is_some_and(|f| f.entries.len() <= 1);
        match &outcome {
            Outcome::Refused(
                Refusal::KeyTaken(_) | Refusal::ClaimLost(_) | Refusal::ParentUnknown(_) | Refusal::Bad(_),
            ) => {
                let flight = self.air.flight.take().map(|f| f.entries).unwrap_or_default();
                let window = std::mem::take(&mut self.window);
                for entry in window.entries.into_iter().rev() {
                    self.batch.push_front(entry.letter);
                }
                let lost_claim = |e: &Entry<A>| match (
                    &outcome,
                    e.letter.letter().details().0.and_then(|m| m.claim.as_ref()),
                ) {
                    (Outcome::Refused(Refusal::ClaimLost(id)), Some(claim)) => claim.id == *id,
                    _ => false,
                };
                for entry in flight.into_iter().rev() {
                    if lost_claim(&entry) {
                        continue; // somebody else ended the task
                    }
                    if single && !matches!(outcome, Outcome::Refused(Refusal::KeyTaken(_))) {
                        let fault = Fault::new(format!("its commit was refused: {}", describe(&outcome)));
                        fail::<A>([entry.letter], &AskError::Failed(fault));
                    } else {
                        self.batch.push_front(entry.letter);
                    }
                }
                self.limit = 1;
            }
            other => {
                let other = describe(other);
                let event =
                    Event::new(Level::Warn, "agent.commit_lost", self.subject()).field("reason", other);
                self.node.logger.emit(event.hint("its callers were told that nothing happened"));
                self.fail_all(&outcome);
            }
        }
        self.restore().await
    }

    /// Answers everything that ran with the reason why it did not happen.
    fn fail_all(&mut self, outcome: &Outcome) {
        let error = match outcome {
            Outcome::Full(why) => AskError::NoRoom(why.clone()),
            other => AskError::Unavailable(describe(other)),
        };
        let flight = self.air.flight.take().map(|f| f.entries).unwrap_or_default();
        let window = std::mem::take(&mut self.window);
        fail::<A>(flight.into_iter().chain(window.entries).map(|e| e.letter), &error);
    }

    fn flush_is_due(&self) -> bool {
        if self.air.flight.is_some() || self.window.is_empty() {
            return false;
        }
        if let Persistence::Relaxed { turns, every } = self.kind.policy.persistence
            && !self.window.urgent
        {
            return self.window.entries.len() >= turns as usize || self.flushed_at.elapsed() >= every;
        }
        self.batch.is_empty() || !self.can_run() || self.barrier
    }

    /// Hands the window to the store, or answers it where there is nothing to write.
    async fn flush(&mut self) -> Option<Exit> {
        self.flushed_at = Instant::now();
        let mut unit = Unit { owner: Some((self.lane.name.id.partition(), self.epoch)), ..Unit::default() };
        self.settle_entries(&mut unit);
        let outputs =
            !unit.finished.is_empty() || !unit.keys.is_empty() || !self.window.outbox.tasks.is_empty();
        let mut image = None;
        if !self.volatile() && (self.window.changed || (outputs && self.air.image.is_some())) {
            match self.serialise() {
                Ok(bytes) => {
                    let before = self.air.image.as_deref().map(|old| body(old));
                    let same = before == Some(body(&bytes));
                    if outputs || !same {
                        image = Some(Arc::new(bytes));
                    }
                }
                Err(error) => return Box::pin(self.unwritable(error)).await,
            }
        }
        let window = std::mem::take(&mut self.window);
        if image.is_none() && !outputs {
            release(window.entries, window.outbox.tells, self.air.version);
            return None;
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
            });
        }
        unit.accepted.extend(window.outbox.tasks);
        unit.batches = window.outbox.batches;
        if !unit.accepted.is_empty() {
            self.node.tasks_accepted(&unit.accepted);
        }
        self.air.flight = Some(Flight { entries: window.entries, tells: window.outbox.tells, image });
        self.turn.is_new = false;
        self.node.persistence.write(self.lane.name.id.0, unit, Ticket::Cell(self.air.inbox.clone()));
        None
    }

    /// Ends the tasks and settles the keys of the turns in the window.
    fn settle_entries(&self, unit: &mut Unit) {
        let now = Timestamp::now();
        for entry in &self.window.entries {
            let letter = entry.letter.letter();
            let Some(meta) = letter.details().0 else { continue };
            if let Some(claim) = &meta.claim {
                let outcome = settle(claim, letter.outcome(), now, fastrand::f64());
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
        // Crashes and time-outs are not outcomes: the caller may try again.
        if matches!(&outcome, Err(AskError::Failed(f)) if f.crash_id.is_some())
            || matches!(outcome, Err(AskError::TimedOut))
        {
            return None;
        }
        Some(KeyWrite {
            scope: self.lane.name.id.0,
            key: key.text.clone(),
            request: key.request,
            task: None,
            reply: Some(super::super::keys::write(&outcome)),
            expires_at: later(now, self.node.settings.limits.idempotency_ttl),
        })
    }

    /// Writes the state as a framed snapshot, and proves that it reads back.
    fn serialise(&self) -> Result<Vec<u8>, AskError> {
        let Some(agent) = self.agent.as_deref() else {
            return Err(AskError::Unavailable("the agent is not there".to_owned()));
        };
        let header = Header {
            codec: Codec::Json,
            agent: self.lane.name.id,
            version: self.air.version + 1,
            epoch: self.epoch,
            schema_version: A::VERSION,
        };
        let mut buffer = Vec::with_capacity(self.air.image.as_ref().map_or(256, |i| i.len() + 64));
        snapshot::begin(&header, &mut buffer);
        let fault = |why: String| AskError::Failed(Fault::new(why));
        guard(|| serde_json::to_writer(&mut buffer, agent))
            .map_err(|(message, _)| fault(format!("writing the state panicked: {message}")))?
            .map_err(|e| fault(format!("the state cannot be written as JSON: {e}")))?;
        let bytes = buffer.len() - snapshot::HEADER_BYTES;
        let limit = self.node.settings.limits.state_bytes;
        if bytes as u64 > limit {
            return Err(AskError::TooLarge(format!(
                "the state would have {bytes} bytes, more than limits.state_bytes ({limit})"
            )));
        }
        reads_back::<A>(body(&buffer)).map_err(|e| fault(format!("the state would not read back: {e}")))?;
        snapshot::seal(&mut buffer).map_err(|e| fault(e.to_string()))?;
        Ok(buffer)
    }

    /// A state that cannot be kept: the turn that made it so fails; its neighbours run again.
    async fn unwritable(&mut self, error: AskError) -> Option<Exit> {
        let done = self.window.entries.iter().filter(|e| e.ran == Ran::Done && !e.letter.read_only()).count();
        if done <= 1 {
            for entry in &mut self.window.entries {
                if entry.ran == Ran::Done && !entry.letter.read_only() {
                    entry.letter.letter_mut().fail(error.clone());
                    entry.ran = Ran::Failed;
                }
            }
            self.window.urgent = true;
        } else {
            // Which of them it was shows when each is kept alone.
            let entries = std::mem::take(&mut self.window).entries;
            for entry in entries.into_iter().rev() {
                self.batch.push_front(entry.letter);
            }
        }
        self.limit = 1;
        Box::pin(self.rewind()).await
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
            Control::Leave | Control::Drain => {
                self.inbox().set_phase(Phase::Stopping);
                self.close().await;
                match self.lane.entrance() {
                    Entrance::Shut(why) => Some(Exit::Shut(why)),
                    Entrance::Closing => {
                        Some(self.turn_away(AskError::Unavailable("the node is going down".to_owned())))
                    }
                    Entrance::Open | Entrance::Paused => {
                        self.lane.abandon(&mut self.batch);
                        self.detached = true;
                        Some(Exit::Detached)
                    }
                }
            }
        }
    }

    async fn passivate(&mut self) -> Option<Exit> {
        self.inbox().done(Control::Passivate);
        if self.lane.depth() > 0 && self.lane.entrance() == Entrance::Open {
            return None;
        }
        self.retire = false;
        self.close().await;
        if self.lane.detach() {
            self.detached = true;
            if let Some(image) = self.air.image.take() {
                self.node.cache_state(self.lane.name.id, self.epoch, self.air.version, &image);
            }
            if self.node.logger.wants(Level::Debug, event::AGENT_PASSIVATED) {
                self.node.logger.emit(Event::new(Level::Debug, event::AGENT_PASSIVATED, self.subject()));
            }
            return Some(Exit::Detached);
        }
        self.revive().await
    }

    fn detach(&mut self) -> Exit {
        self.lane.detach();
        self.detached = true;
        Exit::Detached
    }

    /// Runs `on_stop` and drops the agent.
    async fn close(&mut self) {
        self.report_turns();
        self.turn.begin(None, Passage::Blocked);
        if let Some(agent) = self.agent.as_mut() {
            let stopped = hook(agent.on_stop(&self.turn), self.kind.policy.turn_timeout).await;
            let problem = match stopped {
                Ok(Ok(())) => None,
                Ok(Err(e)) => Some(format!("{e:#}")),
                Err((message, _)) => Some(message),
            };
            if let Some(problem) = problem {
                let event = Event::new(Level::Warn, event::AGENT_STOPPED, self.subject());
                self.node.logger.emit(event.field("on_stop", problem));
            }
        }
        let _ = self.turn.take_outbox();
        self.drop_agent();
    }
}

impl<A: Agent> Drop for Runner<A> {
    fn drop(&mut self) {
        self.report_turns();
        self.drop_agent();
        if !self.detached {
            self.lane.abandon(&mut self.batch);
        }
        let (inbox, key) = (self.air.inbox.clone(), self.lane.name.key.clone());
        let _ = self.kind.live.pin().remove_if(&key, |_, live| Arc::ptr_eq(&live.inbox, &inbox));
        self.kind.running.fetch_sub(1, Ordering::AcqRel);
    }
}

/// Runs a hook of the user's, with panics caught and a time limit.
async fn hook(
    future: impl Future<Output = anyhow::Result<()>>,
    limit: Duration,
) -> Result<anyhow::Result<()>, (String, Option<String>)> {
    let mut slot = std::pin::pin!(Some(future));
    let mut timer = std::pin::pin!(None);
    let end = std::future::poll_fn(|cx| {
        let Some(future) = slot.as_mut().as_pin_mut() else { return Poll::Pending };
        match guard(|| future.poll(cx)) {
            Ok(Poll::Ready(result)) => return Poll::Ready(Ok(result)),
            Err(panic) => return Poll::Ready(Err(panic)),
            Ok(Poll::Pending) => {}
        }
        if timer.is_none() {
            timer.set(Some(tokio::time::sleep(limit)));
        }
        match timer.as_mut().as_pin_mut().map(|t| t.poll(cx)) {
            Some(Poll::Ready(())) => Poll::Ready(Ok(Err(anyhow::anyhow!("it ran past its time limit")))),
            _ => Poll::Pending,
        }
    })
    .await;
    guard(|| slot.set(None)).and(end)
}

/// The state in a frame, without the header, which differs with each version.
fn body(frame: &[u8]) -> &[u8] {
    frame.get(snapshot::HEADER_BYTES..).unwrap_or_default()
}

fn stopped_text(subject: &str, why: &str) -> Arc<str> {
    format!("{subject} is stopped: {why}; when the cause is mended: greenroom agents restart {subject}")
        .into()
}

fn quarantined_text(subject: &str, why: &str) -> Arc<str> {
    format!(
        "{subject} is quarantined: {why}; its state is kept; after repair: greenroom agents release {subject}"
    )
    .into()
}

fn describe(outcome: &Outcome) -> String {
    match outcome {
        Outcome::Durable => "durable".to_owned(),
        Outcome::Refused(refusal) => refusal.to_string(),
        Outcome::Full(why) | Outcome::Failed(why) => why.clone(),
    }
}

fn age_ms(at: Timestamp) -> i64 {
    Timestamp::now().as_millisecond().saturating_sub(at.as_millisecond())
}
