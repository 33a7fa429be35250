//! The dispatcher of a process: promotes, claims, hands over, records, gives back.

use std::{
    collections::{BTreeMap, BTreeSet},
    sync::Arc,
    time::Duration,
};

use greenroom::{
    model::{
        id::{Target, TaskId},
        task::{
            Advice, AfterError, Bounds, Claimed, Claims, Shares, TaskError, TaskTerms, queue_of,
            returns_again,
        },
    },
    store::{ClaimRequest, Doom, Finish, FinishOutcome, Guard, Unit},
};

use crate::{
    errand::idle,
    node::{LEASE, Process, Then, Timer},
    op::{Answer, Op, Said},
    work::{FLOW, KIND, TOOL, Via, Work, effect_of, key_of},
    world::World,
    writer::Ticket,
};

/// How many claims of agents' tasks are held at most.
const AGENTS: usize = 8;
/// How many of them for one agent, before it is given more.
const EACH: usize = 3;
/// How many of tools'.
const TOOLS: usize = 5;
/// The backstop: how often the store is asked although nobody woke the dispatcher.
const POLL: Duration = Duration::from_secs(5);
/// After how long a call that failed is made again.
const AGAIN: Duration = Duration::from_millis(500);
/// The shortest time for which it waits until a rate lets the next one begin.
const PACE: Duration = Duration::from_millis(10);
/// How long a task waits that its agent could not take.
const TURNED_AWAY: Duration = Duration::from_secs(2);

pub struct Dispatcher {
    claims: Claims,
    /// Whose turn it is, and within which bounds.
    shares: Shares,
    agents: usize,
    tool_claims: usize,
    /// It comes back when a rate lets the next one begin.
    paced: bool,
    running: BTreeMap<TaskId, Arc<Claimed>>,
    claiming: bool,
    again: bool,
    promoting: bool,
    promote_again: bool,
    suspects: bool,
    /// Tools that run.
    tools: BTreeMap<TaskId, u32>,
}

impl Dispatcher {
    pub fn new(bounds: &BTreeMap<&'static str, Bounds>) -> Self {
        let mut shares = Shares::default();
        bounds.iter().for_each(|(queue, bounds)| shares.know((*queue).to_owned(), *bounds));
        Self {
            claims: Claims::default(),
            shares,
            agents: 0,
            tool_claims: 0,
            paced: false,
            running: BTreeMap::new(),
            claiming: false,
            again: false,
            promoting: false,
            promote_again: false,
            suspects: false,
            tools: BTreeMap::new(),
        }
    }

    /// One more claim of a target, or one less.
    fn count(&mut self, target: &Target) -> &mut usize {
        match target {
            Target::Agent { .. } => &mut self.agents,
            Target::Tool(_) => &mut self.tool_claims,
        }
    }
}

impl Process {
    /// Tasks lost twice or more wait to run alone, or do not.
    pub fn suspects(&mut self, world: &mut World, at_birth: bool, answer: Answer) {
        match answer {
            Ok(Said::Count(n)) => self.dispatcher.suspects |= n > 0,
            _ if at_birth => return self.wake(world, AGAIN, Timer::Suspects),
            _ => {}
        }
        if at_birth {
            self.poll(world);
            self.wake(world, LEASE / 3, Timer::Reconcile { again: true });
        } else {
            self.claim(world);
        }
    }

    pub fn poll(&mut self, world: &mut World) {
        self.promote(world);
        self.claim(world);
        self.wake(world, POLL, Timer::Poll);
    }

    pub fn due(&mut self, world: &mut World) {
        self.promote(world);
    }

    pub fn promote(&mut self, world: &mut World) {
        if std::mem::replace(&mut self.dispatcher.promoting, true) {
            self.dispatcher.promote_again = true;
            return;
        }
        let now = world.wall(self.wall_off);
        self.call(world, Op::Promote(now), Then::Promoted);
    }

    pub fn promoted(&mut self, world: &mut World, answer: Answer) {
        let Ok(Said::Promoted(ready, next)) = answer else {
            self.dispatcher.promoting = false;
            return self.wake(world, AGAIN, Timer::Promote);
        };
        if let Some(next) = next {
            let wait = world.until(next, self.wall_off).clamp(Duration::from_millis(5), POLL);
            self.wake(world, wait, Timer::Due);
        }
        if ready > 0 {
            self.claim(world);
        }
        self.call(world, Op::Doomed, Then::Doomed);
    }

    pub fn doomed(&mut self, world: &mut World, answer: Answer) {
        self.dispatcher.promoting = false;
        let again = std::mem::take(&mut self.dispatcher.promote_again);
        let Ok(Said::Doomed(doomed)) = answer else {
            return self.wake(world, AGAIN, Timer::Promote);
        };
        self.call(world, Op::Suspects, Then::Suspects { at_birth: false });
        for (task, doom) in doomed {
            let outcome = match doom {
                Doom::Poison => FinishOutcome::Failed { error: error("poison") },
                Doom::ParentFailed | Doom::Expired | Doom::Cancelled => FinishOutcome::Cancelled,
            };
            self.write(world, idle(task, outcome), Ticket::Doom);
        }
        if again {
            self.promote(world);
        }
    }

    /// Claims what there is room for.
    pub fn claim(&mut self, world: &mut World) {
        if self.in_doubt(world) {
            return;
        }
        if self.dispatcher.claiming {
            self.dispatcher.again = true;
            return;
        }
        let now = self.now(world);
        let pace = self.dispatcher.shares.opens_in(now).filter(|_| !self.dispatcher.paced);
        if let Some(wait) = pace {
            self.dispatcher.paced = true;
            self.wake(world, wait.max(PACE), Timer::Paced);
        }
        let dispatcher = &mut self.dispatcher;
        let (alone, free) = (dispatcher.suspects, AGENTS.saturating_sub(dispatcher.agents));
        let tools = TOOLS.saturating_sub(dispatcher.tool_claims);
        if (alone && !dispatcher.running.is_empty()) || (!alone && free + tools == 0) {
            return;
        }
        let request = match alone {
            true => ClaimRequest { agents: 1, tools: 1, alone, ..ClaimRequest::default() },
            false => {
                let queues = dispatcher.shares.turns(free, now);
                let (each, except) = (Some(EACH), dispatcher.shares.holders(EACH));
                ClaimRequest { agents: free, tools, each, except, queues, ..ClaimRequest::default() }
            }
        };
        dispatcher.claiming = true;
        dispatcher.again = false;
        self.call(world, Op::Claim(request), Then::Claimed { alone });
    }

    pub fn claimed(&mut self, world: &mut World, alone: bool, answer: Answer) {
        self.dispatcher.claiming = false;
        let Ok(Said::Claims(claims)) = answer else {
            // what was claimed may be claimed, although no answer came
            return self.wake(world, AGAIN, Timer::Reconcile { again: false });
        };
        if alone && claims.is_empty() {
            self.dispatcher.suspects = false;
            self.dispatcher.again = true;
        }
        claims.into_iter().for_each(|claim| self.take_in(world, Arc::new(claim), false));
        if std::mem::take(&mut self.dispatcher.again) {
            self.claim(world);
        }
    }

    /// A rate lets the next one begin.
    pub fn paced(&mut self, world: &mut World) {
        self.dispatcher.paced = false;
        self.claim(world);
    }

    fn take_in(&mut self, world: &mut World, claim: Arc<Claimed>, is_early: bool) {
        if !self.dispatcher.claims.take_in(&claim) {
            return;
        }
        let (queue, now) = (queue_of(&claim.target), self.now(world));
        self.dispatcher.shares.claimed(&claim.target, 1, now);
        *self.dispatcher.count(&claim.target) += 1;
        if claim.has_expired(|| world.wall(self.wall_off)) {
            return self.give_back(world, claim);
        }
        let effect = effect_of(&claim.message, &claim.input);
        let key = key_of(&claim.target);
        // it may have begun before its node died: a person must say what happened
        if queue == TOOL && claim.lost > 0 {
            return self.record(world, claim, FinishOutcome::OutcomeUnknown { error: error("unknown") });
        }
        // now and then its agent cannot take it, for a reason of its own
        if key.is_some_and(|key| self.epoch(key) == 0 || (!world.is_healed && world.chance(100))) {
            return self.give_back(world, claim);
        }
        self.begins(world, &queue, &claim, is_early);
        self.dispatcher.running.insert(claim.id, claim.clone());
        if let Some(key) = key {
            let held = self.cells.get(key).is_some_and(|cell| cell.has(claim.id));
            world.ledger.must(!held, || format!("p{} runs a task for {key} beside itself", self.me.pid));
            let script = world.ledger.script(effect);
            return self.deliver(world, Work { key, effect, script, via: Via::Task(claim) });
        }
        world.ledger.starts(claim.id, world.wall(0));
        if queue == FLOW {
            return self.begin_function(world, claim);
        }
        let beside = self.dispatcher.tools.insert(claim.id, effect).is_some();
        world.ledger.must(!beside, || format!("p{} runs a tool's task beside itself", self.me.pid));
        let takes = world.millis(1, 120);
        self.wake(world, takes, Timer::Paid(claim));
    }

    /// A task begins, beside others of its queue.
    fn begins(&self, world: &mut World, queue: &str, claim: &Claimed, is_early: bool) {
        let Some(bounds) = world.bounds.get(queue).copied() else { return };
        let others = self.dispatcher.running.values().map(|other| &other.target);
        let others = others.filter(|other| queue_of(other) == queue);
        // what waits in the lane of an agent does not run
        let beside = match &claim.target {
            Target::Tool(_) => others.count(),
            Target::Agent { .. } => {
                let agents = others.filter(|other| **other != claim.target).map(Target::to_string);
                agents.collect::<BTreeSet<_>>().len()
            }
        };
        let now = self.now(world);
        // one that is suspected has the node for itself, and one that has gone back begins once more
        let is_counted = claim.lost < 2 && !is_early;
        let bounds = Bounds { rate: bounds.rate.filter(|_| is_counted), ..bounds };
        world.ledger.begins(self.me.pid, queue, bounds, beside, now);
    }

    /// A task that runs is to end.
    pub fn stop_task(&mut self, world: &mut World, task: TaskId) {
        let Some(claim) = self.dispatcher.running.get(&task).cloned() else { return };
        let ends = match key_of(&claim.target) {
            Some(key) => self.withdraw(key, task),
            None => self.leave_function(world, &claim),
        };
        // else its turn runs, or its effect: only its end tells whether it happened
        if ends {
            world.ledger.note("stopped");
            self.record(world, claim, FinishOutcome::Cancelled);
        }
    }

    /// A tool has done what it does.
    pub fn paid(&mut self, world: &mut World, claim: Arc<Claimed>) {
        self.dispatcher.tools.remove(&claim.id);
        world.ledger.pays(effect_of(&claim.message, &claim.input));
        self.record(world, claim, FinishOutcome::Succeeded { result: b"null".to_vec() });
    }

    /// Commits the end of an attempt that no agent's turn commits.
    pub fn record(&mut self, world: &mut World, claim: Arc<Claimed>, outcome: FinishOutcome) {
        let unit = Unit { finished: vec![finish(&claim, outcome.clone())], ..Unit::default() };
        self.write(world, unit, Ticket::Record(claim, outcome));
    }

    pub fn recorded(&mut self, world: &mut World, claim: Arc<Claimed>, outcome: &FinishOutcome) {
        if let (FinishOutcome::Parked, Some(key)) = (outcome, key_of(&claim.target))
            && self.cells.get(key).is_none_or(|cell| cell.is_open())
        {
            self.park(world, key, false);
        }
        self.end(world, &claim);
    }

    /// Its agent could not take it: its turn comes again, not at once.
    pub fn turn_away(&mut self, world: &mut World, claim: Arc<Claimed>) {
        self.wake(world, TURNED_AWAY, Timer::TurnedAway(claim));
    }

    /// Gives a claim back that did not start.
    pub fn give_back(&mut self, world: &mut World, claim: Arc<Claimed>) {
        self.dispatcher.running.remove(&claim.id);
        let op = Op::GiveBack(vec![(claim.id, claim.claim)]);
        self.call(world, op, Then::GivenBack(claim));
    }

    pub fn given_back(&mut self, world: &mut World, claim: &Arc<Claimed>, heard: bool) {
        if !heard && returns_again(false) {
            return self.wake(world, Duration::from_millis(10), Timer::TurnedAway(claim.clone()));
        }
        if !heard {
            self.wake(world, AGAIN, Timer::Reconcile { again: false });
        }
        if claim.has_expired(|| world.wall(self.wall_off)) {
            world.ledger.note("expired in a node's hands");
            self.promote(world);
        }
        self.end(world, claim);
    }

    /// A claim has ended, and the next one may begin.
    pub fn end(&mut self, world: &mut World, claim: &Claimed) {
        self.dispatcher.running.remove(&claim.id);
        self.dispatcher.shares.ended(&claim.target, 1);
        let held = self.dispatcher.count(&claim.target);
        *held = held.saturating_sub(1);
        if let Some(early) = self.dispatcher.claims.end(claim.id) {
            self.take_in(world, early, true);
        }
        self.claim(world);
    }

    /// Gives back what the store says runs here, and nobody here knows.
    pub fn reconcile(&mut self, world: &mut World, again: bool) {
        if again {
            self.wake(world, LEASE / 3, Timer::Reconcile { again });
        }
        if !std::mem::replace(&mut self.dispatcher.claiming, true) {
            self.call(world, Op::Running, Then::Running);
        }
    }

    pub fn found_running(&mut self, world: &mut World, answer: Answer) {
        let Ok(Said::Running(running)) = answer else { return self.strays_back(world, false) };
        let strays = self.dispatcher.claims.strays(&running);
        if strays.is_empty() {
            return self.strays_back(world, true);
        }
        self.call(world, Op::GiveBack(strays), Then::StraysBack);
    }

    pub fn strays_back(&mut self, world: &mut World, heard: bool) {
        self.dispatcher.claiming = false;
        match heard {
            true => self.claim(world),
            false => self.wake(world, AGAIN, Timer::Reconcile { again: false }),
        }
    }

    pub fn park(&mut self, world: &mut World, key: &'static str, park: bool) {
        let op = Op::Park(Target::agent(KIND, key).to_string(), park);
        self.call(world, op, Then::Parked { key, park });
    }

    pub fn parked(&mut self, world: &mut World, key: &'static str, park: bool, heard: bool) {
        if !heard {
            return self.wake(world, AGAIN, Timer::Park { key, park });
        }
        self.claim(world);
    }
}

/// The end of a claim.
pub fn finish(claim: &Claimed, outcome: FinishOutcome) -> Finish {
    Finish { task: claim.id, guard: Guard::Running { attempt: claim.attempt }, outcome, note: None }
}

/// What an error, by its code and its advice, makes of a task.
pub fn settle(
    world: &mut World,
    wall_off: i64,
    claim: &Claimed,
    (code, advice): (&str, Option<Advice>),
) -> FinishOutcome {
    let jitter = world.rng.f64();
    match claim.after_error(code, advice, &TaskTerms::default(), world.wall(wall_off), jitter) {
        AfterError::Retry { run_at } => FinishOutcome::Retry { run_at, error: error(code) },
        AfterError::Failed => FinishOutcome::Failed { error: error(code) },
        AfterError::OutcomeUnknown => FinishOutcome::OutcomeUnknown { error: error(code) },
    }
}

pub fn error(code: &str) -> TaskError {
    TaskError {
        code: code.to_owned(),
        message: String::new(),
        chain: Vec::new(),
        crash_id: None,
        refusal: None,
    }
}
