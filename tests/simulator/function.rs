//! Task functions in a process: each goes from its top through its steps, and what was recorded of them
//! before.

use std::{collections::BTreeMap, sync::Arc, time::Duration};

use greenroom::{
    model::{
        id::TaskId,
        journal::{Answer, Awaited, CallId, Journal, JournalWrite, Known, Made, Replay, Signal},
        task::{Advice, ClaimId, Claimed},
    },
    store::{FinishOutcome, Unit},
};
use serde_json::value::RawValue;
use uuid::Uuid;

use crate::{
    dispatcher::{error, settle},
    node::{Process, Then, Timer},
    op::{Answer as FromStore, Op, Said},
    work::{Plan, Script, Step, Via, Work, effect_of, task},
    world::{Event, World},
    writer::{Outcome, Ticket},
};

/// After how long a call that failed is made again.
const AGAIN: Duration = Duration::from_millis(300);

/// A run of a function.
pub struct Run {
    pub claim: Arc<Claimed>,
    plan: Plan,
    at: usize,
    replay: Replay,
    /// The call that is under way.
    made: Option<Made>,
    answers: Vec<String>,
    /// Somebody waits for its end; nobody does for one that was cancelled.
    is_heard: bool,
}

/// What is written of a run, and what comes next.
#[derive(Debug, Clone)]
pub enum Next {
    /// A call begins that takes effect once.
    Begun,
    /// It has come to nothing, and is made again.
    Undone,
    /// The step is done, with this answer.
    Answered(Box<Answer>),
    /// The run is over: the task waits.
    Waits,
}

pub type Runs = BTreeMap<ClaimId, Run>;

impl Process {
    /// A function begins, at its top.
    pub fn begin_function(&mut self, world: &mut World, claim: Arc<Claimed>) {
        let plan = world.ledger.plan_of(effect_of(&claim.message, &claim.input));
        let id = claim.claim;
        let run = Run {
            claim,
            plan,
            at: 0,
            replay: Replay::default(),
            made: None,
            answers: Vec::new(),
            is_heard: true,
        };
        self.runs.insert(id, run);
        self.read_journal(world, id);
    }

    pub fn read_journal(&mut self, world: &mut World, id: ClaimId) {
        let Some(run) = self.runs.get(&id) else { return };
        self.call(world, Op::Journal(run.claim.id), Then::Journal(id));
    }

    pub fn journal_read(&mut self, world: &mut World, id: ClaimId, answer: FromStore) {
        let Ok(Said::Journal(journal)) = answer else {
            return self.wake(world, Duration::from_millis(500), Timer::ReadJournal(id));
        };
        let Some(run) = self.runs.get_mut(&id) else { return };
        let Journal { entries, .. } = &journal;
        entries.iter().for_each(|_| world.ledger.note("recorded before"));
        run.replay = Replay::of(journal);
        self.go_on(world, id);
    }

    /// Goes on through the steps, as far as they are recorded, and makes the next call.
    pub fn go_on(&mut self, world: &mut World, id: ClaimId) {
        loop {
            let Some(run) = self.runs.get_mut(&id) else { return };
            let attempt = run.claim.attempt.saturating_sub(run.claim.lost);
            if run.at == run.plan.at && Script::Errs(run.plan.errs).error(attempt).is_some() {
                return self.function_failed(world, id, None);
            }
            let Some(step) = run.plan.steps.get(run.at).copied() else {
                let missing = run.replay.missing();
                world.ledger.must(missing.is_none(), || format!("a function ends without {missing:?}"));
                let result = format!("[{}]", run.answers.join(",")).into_bytes();
                return self.function_ended(world, id, FinishOutcome::Succeeded { result });
            };
            let Some((target, input)) = step.asks() else {
                if matches!(step, Step::Kills(n) if run.claim.lost < n) {
                    self.is_over = true;
                    return;
                }
                run.at += 1;
                continue;
            };
            let made = run.replay.call(&target, hash(&target, &input));
            match &made.known {
                Known::Answered(answer) => {
                    let answer = answer.clone();
                    if self.step_done(world, id, step, &answer) {
                        continue;
                    }
                    return;
                }
                Known::Begun if !matches!(step, Step::Waits(..) | Step::Needs(..) | Step::Submits(_)) => {
                    let error = error("outcome_unknown");
                    return self.function_ended(world, id, FinishOutcome::OutcomeUnknown { error });
                }
                Known::Diverged { recorded: why } | Known::TooLong { what: why } => {
                    let why = why.clone();
                    world.ledger.must(false, || format!("a function goes another way: {why}"));
                    return;
                }
                Known::New | Known::Begun => {}
            }
            return self.make(world, id, step, made);
        }
    }

    /// A step is done; `false`: the function ends by that.
    fn step_done(&mut self, world: &mut World, id: ClaimId, step: Step, answer: &Answer) -> bool {
        let Some(run) = self.runs.get_mut(&id) else { return false };
        run.answers.push(serde_json::to_string(answer).expect("it is JSON"));
        run.at += 1;
        let goes_on = !matches!((step, answer), (Step::Needs(..), Answer::TimedOut));
        if !goes_on {
            self.function_failed(world, id, Some(Advice::Never));
        }
        goes_on
    }

    /// Makes a call that is not recorded.
    fn make(&mut self, world: &mut World, id: ClaimId, step: Step, made: Made) {
        let wall = world.wall(self.wall_off);
        let Some(run) = self.runs.get_mut(&id) else { return };
        let (claim, call) = (run.claim.clone(), made.call);
        let occurrence = call.occurrence;
        let awaited = match step {
            Step::Waits(name, within) => {
                Some(run.replay.await_signal(name, occurrence, within.map(|d| wall + d), wall))
            }
            Step::Needs(name, within) => {
                Some(run.replay.await_signal(name, occurrence, Some(wall + within), wall))
            }
            _ => None,
        };
        run.made = Some(made);
        match (awaited, step) {
            (Some(Awaited::Signalled(Signal { id: signal, body, .. })), _) => {
                self.record_step(world, id, Answer::Signal { id: signal, body });
            }
            (Some(Awaited::TimedOut), _) => self.record_step(world, id, Answer::TimedOut),
            (Some(Awaited::Open(wait)), _) => {
                let write = JournalWrite { waits: vec![wait], ..JournalWrite::of(claim.id, claim.claim) };
                self.write_journal(world, id, write, Next::Waits);
            }
            (None, Step::Pays(_)) => self.write_step(world, id, None, Next::Begun),
            (None, Step::Asks(key, effect)) => {
                let via = Via::Call(self.me.pid, id, key_of_call(claim.id, call).into());
                world.after(
                    Duration::from_millis(1),
                    Event::Routed(Work { key, effect, script: Script::Plain, via }),
                );
                let patience = world.millis(100, 900);
                self.wake(world, patience, Timer::Unanswered(id, effect));
            }
            (None, Step::Submits(effect)) => {
                let child = claim.id.of_call(call.hash, call.occurrence);
                let mut new = task(child, world.ledger.target(effect), effect);
                new.parent = Some(claim.id);
                let unit = Unit { accepted: vec![new], ..Unit::default() };
                self.write(world, unit, Ticket::Child(id, child, effect));
            }
            (None, _) => {
                let takes = world.millis(1, 60);
                self.wake(world, takes, Timer::Stepped(id));
            }
        }
    }

    /// A call of a tool has come to its end.
    pub fn stepped(&mut self, world: &mut World, id: ClaimId) {
        let Some(run) = self.runs.get(&id) else { return };
        let (Some(step), Some(made)) = (run.plan.steps.get(run.at).copied(), &run.made) else { return };
        let key = key_of_call(run.claim.id, made.call);
        let fails = !world.is_healed && world.chance(100);
        match step {
            Step::Pays(_) if fails => {
                let undone = vec![made.call];
                let write = JournalWrite { undone, ..JournalWrite::of(run.claim.id, run.claim.claim) };
                self.write_journal(world, id, write, Next::Undone);
            }
            Step::Pays(effect) => {
                // the process may die right before or after it
                self.is_over = !world.is_healed && world.chance(60);
                if self.is_over && world.rng.bool() {
                    return;
                }
                world.ledger.pays(effect);
                self.record_step(world, id, reply(&effect.to_string()));
            }
            Step::Calls(effect) => {
                if !fails || world.rng.bool() {
                    world.ledger.serves(effect, &key);
                }
                if fails {
                    return self.call_again(world, id);
                }
                self.record_step(world, id, reply(&effect.to_string()));
            }
            _ => {
                let now = world.draw().as_u64_pair().1.to_string();
                self.record_step(world, id, reply(&now));
            }
        }
    }

    /// A call has come to nothing: the function makes it again.
    fn call_again(&mut self, world: &mut World, id: ClaimId) {
        let Some(run) = self.runs.get_mut(&id) else { return };
        let Some(made) = run.made.take() else { return };
        run.replay.failed(made.call, made.ordinal);
        world.ledger.note("calls made again");
        self.wake(world, AGAIN, Timer::GoOn(id));
    }

    /// An agent has answered a function, or not in time.
    pub fn replied(&mut self, world: &mut World, id: ClaimId, effect: u32, in_time: bool) {
        let Some(run) = self.runs.get_mut(&id) else { return };
        let asks = matches!(run.plan.steps.get(run.at), Some(Step::Asks(_, of)) if *of == effect);
        // while its answer is written down, it is not under way any more
        if !asks || run.made.is_none() {
            return;
        }
        match in_time {
            true => self.record_step(world, id, reply(&effect.to_string())),
            false => self.call_again(world, id),
        }
    }

    /// A child is submitted, or not.
    pub fn child_written(
        &mut self,
        world: &mut World,
        id: ClaimId,
        (child, effect): (TaskId, u32),
        outcome: Outcome,
    ) {
        if let Outcome::Durable = outcome {
            world.ledger.heard(effect);
            self.claim(world);
            return self.record_step(world, id, reply(&format!("\"{child}\"")));
        }
        self.call_again(world, id);
    }

    fn record_step(&mut self, world: &mut World, id: ClaimId, answer: Answer) {
        self.write_step(world, id, Some(answer.clone()), Next::Answered(Box::new(answer)));
    }

    /// Writes down what is known of the call under way.
    fn write_step(&mut self, world: &mut World, id: ClaimId, answer: Option<Answer>, next: Next) {
        let Some(run) = self.runs.get_mut(&id) else { return };
        let Some(step) = run.plan.steps.get(run.at) else { return };
        let (Some((target, _)), Some(made)) = (step.asks(), &run.made) else { return };
        let entries = vec![run.replay.entry(made, &target, answer)];
        let write = JournalWrite { entries, ..JournalWrite::of(run.claim.id, run.claim.claim) };
        if matches!(next, Next::Answered(_)) {
            run.made = None;
        }
        self.write_journal(world, id, write, next);
    }

    fn write_journal(&mut self, world: &mut World, id: ClaimId, write: JournalWrite, next: Next) {
        let unit = Unit { journal: Some(write.clone()), ..Unit::default() };
        self.write(world, unit, Ticket::Journal(id, Box::new(write), next));
    }

    /// What a function has come to is written down, or not.
    pub fn journal_written(
        &mut self,
        world: &mut World,
        id: ClaimId,
        write: Box<JournalWrite>,
        next: Next,
        outcome: Outcome,
    ) {
        match (outcome, next) {
            (Outcome::Failed | Outcome::Unknown, next) => {
                let again = Timer::WriteJournal(id, write, next);
                self.wake(world, Duration::from_millis(500), again);
            }
            (_, Next::Waits) => {
                // its claim is over, whoever ended it
                let Some(run) = self.runs.remove(&id).filter(|run| run.is_heard) else { return };
                self.end(world, &run.claim);
                self.promote(world);
            }
            (Outcome::Refused(_), _) => {
                let Some(run) = self.runs.remove(&id).filter(|run| run.is_heard) else { return };
                self.give_back(world, run.claim);
            }
            (Outcome::Durable, Next::Begun) => {
                let takes = world.millis(1, 60);
                self.wake(world, takes, Timer::Stepped(id));
            }
            (Outcome::Durable, Next::Undone) => self.call_again(world, id),
            (Outcome::Durable, Next::Answered(answer)) => {
                let Some(step) = self.runs.get(&id).and_then(|run| run.plan.steps.get(run.at)).copied()
                else {
                    return;
                };
                if self.step_done(world, id, step, &answer) {
                    self.go_on(world, id);
                }
            }
        }
    }

    pub fn write_again(&mut self, world: &mut World, id: ClaimId, write: JournalWrite, next: Next) {
        self.write_journal(world, id, write, next);
    }

    fn function_failed(&mut self, world: &mut World, id: ClaimId, advice: Option<Advice>) {
        let Some(run) = self.runs.get(&id) else { return };
        let outcome = settle(world, self.wall_off, &run.claim, ("handler_failed", advice));
        self.function_ended(world, id, outcome);
    }

    fn function_ended(&mut self, world: &mut World, id: ClaimId, outcome: FinishOutcome) {
        if let Some(run) = self.runs.remove(&id).filter(|run| run.is_heard) {
            self.record(world, run.claim, outcome);
        }
    }

    /// Nobody waits for a run any more; it goes on, for a while. `false`: it is over.
    pub fn leave_function(&mut self, world: &mut World, claim: &Claimed) -> bool {
        let Some(run) = self.runs.get_mut(&claim.claim).filter(|run| run.is_heard) else { return false };
        run.is_heard = false;
        self.wake(world, Duration::from_secs(1), Timer::Dropped(claim.claim));
        true
    }
}

/// Which call a step is, the n-th equal one.
pub fn call_of(step: Step, occurrence: u32) -> Option<CallId> {
    let (target, input) = step.asks()?;
    Some(CallId { hash: hash(&target, &input), occurrence })
}

fn hash(target: &str, input: &str) -> [u8; 16] {
    Uuid::new_v5(&Uuid::NAMESPACE_OID, format!("{target} {input}").as_bytes()).into_bytes()
}

/// The key of a call, which is the same in each run.
fn key_of_call(task: TaskId, call: CallId) -> String {
    format!("{task}:{:032x}:{}", u128::from_be_bytes(call.hash), call.occurrence)
}

fn reply(text: &str) -> Answer {
    Answer::Reply(RawValue::from_string(text.to_owned()).expect("it is JSON"))
}
