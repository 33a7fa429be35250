//! The dispatcher of a process: promotes, claims, hands over, records, gives back.

use std::{collections::BTreeMap, sync::Arc, time::Duration};

use greenroom::{
    model::{
        id::{Target, TaskId},
        task::{AfterError, Claimed, Claims, Retries, TaskError, returns_again},
    },
    store::{ClaimRequest, Doom, Finish, FinishOutcome, Guard, Unit},
};

use crate::{
    node::{LEASE, Process, Then, Timer},
    work::{KIND, Via, Work, effect_of, key_of},
    world::{Answer, Op, Said, World},
    writer::Ticket,
};

/// How many claims are held at most.
const ROOM: usize = 6;
/// The backstop: how often the store is asked although nobody woke the dispatcher.
const POLL: Duration = Duration::from_secs(5);
/// After how long a call that failed is made again.
const AGAIN: Duration = Duration::from_millis(500);
/// How long a task waits that its agent could not take.
const TURNED_AWAY: Duration = Duration::from_secs(2);

#[derive(Default)]
pub struct Dispatcher {
    claims: Claims,
    running: BTreeMap<TaskId, Arc<Claimed>>,
    claiming: bool,
    again: bool,
    promoting: bool,
    promote_again: bool,
    suspects: bool,
    /// Tools that run.
    tools: BTreeMap<TaskId, u32>,
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
            let finished = vec![Finish { task, guard: Guard::Idle, outcome, note: None }];
            self.write(world, Unit { finished, ..Unit::default() }, Ticket::Doom);
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
        let (alone, held) = (self.dispatcher.suspects, self.dispatcher.running.len());
        let room = ROOM.saturating_sub(held);
        if room == 0 || (alone && held > 0) {
            return;
        }
        self.dispatcher.claiming = true;
        self.dispatcher.again = false;
        let n = if alone { 1 } else { room };
        let request = ClaimRequest { agents: n, tools: n, alone, ..ClaimRequest::default() };
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
        claims.into_iter().for_each(|claim| self.take_in(world, Arc::new(claim)));
        if std::mem::take(&mut self.dispatcher.again) {
            self.claim(world);
        }
    }

    fn take_in(&mut self, world: &mut World, claim: Arc<Claimed>) {
        let Some(claim) = self.dispatcher.claims.take_in(claim) else { return };
        let effect = effect_of(&claim);
        let Some(key) = key_of(&claim.target) else {
            // it may have begun before its node died: a person must say what happened
            if claim.lost > 0 {
                return self.record(world, claim, FinishOutcome::OutcomeUnknown { error: error("unknown") });
            }
            self.dispatcher.running.insert(claim.id, claim.clone());
            let beside = self.dispatcher.tools.insert(claim.id, effect).is_some();
            world.ledger.must(!beside, || format!("p{} runs a tool's task beside itself", self.me.pid));
            let takes = world.millis(1, 120);
            return self.wake(world, takes, Timer::Paid(claim));
        };
        // now and then its agent cannot take it, for a reason of its own
        if self.epoch(key) == 0 || (!world.is_healed && world.chance(100)) {
            return self.give_back(world, claim);
        }
        self.dispatcher.running.insert(claim.id, claim.clone());
        let held = self.cells.get(key).is_some_and(|cell| cell.has(claim.id));
        world.ledger.must(!held, || format!("p{} runs a task for {key} beside itself", self.me.pid));
        let script = world.ledger.script(effect);
        self.deliver(world, Work { key, effect, script, via: Via::Task(claim) });
    }

    /// A tool has done what it does.
    pub fn paid(&mut self, world: &mut World, claim: Arc<Claimed>) {
        self.dispatcher.tools.remove(&claim.id);
        world.ledger.pays(effect_of(&claim));
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
        self.end(world, claim);
    }

    /// A claim has ended, and the next one may begin.
    pub fn end(&mut self, world: &mut World, claim: &Claimed) {
        self.dispatcher.running.remove(&claim.id);
        if let Some(early) = self.dispatcher.claims.end(claim.id) {
            self.take_in(world, early);
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
        let strays = self.dispatcher.claims.strays(running);
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

/// What an error makes of a task.
pub fn settle(world: &mut World, wall_off: i64, claim: &Claimed, code: &str) -> FinishOutcome {
    let jitter = world.rng.f64();
    match claim.after_error(code, None, &Retries::default(), world.wall(wall_off), jitter) {
        AfterError::Retry { run_at } => FinishOutcome::Retry { run_at, error: error(code) },
        AfterError::Failed => FinishOutcome::Failed { error: error(code) },
        AfterError::OutcomeUnknown => FinishOutcome::OutcomeUnknown { error: error(code) },
    }
}

fn error(code: &str) -> TaskError {
    TaskError {
        code: code.to_owned(),
        message: String::new(),
        chain: Vec::new(),
        crash_id: None,
        refusal: None,
    }
}
