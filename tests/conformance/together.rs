//! Three stores that are told the same say the same, and what the one state machine says: whatever is done to
//! tasks, in whatever order.

use std::{collections::BTreeMap, time::Duration};

use greenroom::{
    TaskId,
    model::{
        journal::{JournalWrite, Signal, Wait},
        task::{Claimed, NewTask, OnParentFailed, TaskInput, TaskState, next},
    },
    store::{CancelFound, FinishOutcome, Unit, Verdict},
};
use jiff::Timestamp;
use proptest::prelude::*;
use uuid::Uuid;

use crate::support::*;

/// Something that is done; numbers choose among what there is, round and round.
#[derive(Debug, Clone)]
enum Step {
    Submit {
        key: u8,
        priority: i16,
        after: Vec<u8>,
        anyway: bool,
        later: bool,
        expires: bool,
    },
    Claim {
        n: usize,
    },
    End {
        claim: u8,
        how: How,
    },
    /// An end under an attempt that is not the claim's.
    Stale {
        claim: u8,
    },
    GiveBack {
        claim: u8,
    },
    Cancel {
        task: u8,
    },
    Retry {
        task: u8,
    },
    Resolve {
        task: u8,
        well: bool,
    },
    Park {
        key: u8,
        park: bool,
    },
    Wait {
        claim: u8,
        name: bool,
        until: bool,
    },
    Signal {
        task: u8,
        name: bool,
        again: bool,
    },
    /// Due tasks and waits are looked at, now or in two hours.
    Promote {
        later: bool,
    },
    /// The node dies, and the next one takes over.
    Crash,
}

#[derive(Debug, Clone, Copy)]
enum How {
    Succeeded,
    Failed,
    Retry,
    Cancelled,
    Parked,
    Unknown,
}

fn steps() -> impl Strategy<Value = Vec<Step>> {
    let how = prop_oneof![
        4 => Just(How::Succeeded),
        2 => Just(How::Failed),
        2 => Just(How::Retry),
        1 => Just(How::Cancelled),
        1 => Just(How::Parked),
        1 => Just(How::Unknown)
    ];
    let submit = (0..3_u8, -1..2_i16, prop::collection::vec(any::<u8>(), 0..3), any::<(bool, bool, bool)>());
    let step = prop_oneof![
        8 => submit.prop_map(|(key, priority, after, (anyway, later, expires))| Step::Submit {
            key, priority, after, anyway, later: later && expires, expires: expires && !later
        }),
        8 => (1..4_usize).prop_map(|n| Step::Claim { n }),
        10 => (any::<u8>(), how).prop_map(|(claim, how)| Step::End { claim, how }),
        1 => any::<u8>().prop_map(|claim| Step::Stale { claim }),
        2 => any::<u8>().prop_map(|claim| Step::GiveBack { claim }),
        3 => any::<u8>().prop_map(|task| Step::Cancel { task }),
        3 => any::<u8>().prop_map(|task| Step::Retry { task }),
        2 => any::<(u8, bool)>().prop_map(|(task, well)| Step::Resolve { task, well }),
        2 => (0..3_u8, any::<bool>()).prop_map(|(key, park)| Step::Park { key, park }),
        4 => any::<(u8, bool, bool)>().prop_map(|(claim, name, until)| Step::Wait { claim, name, until }),
        4 => any::<(u8, bool, bool)>().prop_map(|(task, name, again)| Step::Signal { task, name, again }),
        4 => any::<bool>().prop_map(|later| Step::Promote { later }),
        1 => Just(Step::Crash),
    ];
    prop::collection::vec(step, 1..60)
}

/// One of the stores, and what it has said.
struct Told {
    world: World,
    name: &'static str,
    /// Claims that are held, in their order.
    claims: Vec<Claimed>,
    /// What each task was when it was looked at last.
    states: BTreeMap<TaskId, TaskState>,
}

/// What the test has submitted, for all of them alike.
#[derive(Default)]
struct Script {
    tasks: Vec<TaskId>,
    signals: Vec<Signal>,
}

fn pick<T: Clone>(all: &[T], n: u8) -> Option<T> {
    all.get(usize::from(n) % all.len().max(1)).cloned()
}

fn name(which: bool) -> String {
    if which { "go" } else { "stop" }.to_owned()
}

fn outcome(how: How) -> FinishOutcome {
    let later = Timestamp::now() + Duration::from_secs(3_600);
    match how {
        How::Succeeded => ok(),
        How::Failed => failed(),
        How::Retry => FinishOutcome::Retry { run_at: later, error: error("once more") },
        How::Cancelled => FinishOutcome::Cancelled,
        How::Parked => FinishOutcome::Parked,
        How::Unknown => FinishOutcome::OutcomeUnknown { error: error("cut off") },
    }
}

/// A step with all that is random or a moment in it, made once for all stores.
enum Made {
    Submit(Box<NewTask>),
    Signal(TaskId, Signal),
    As(Step, Option<TaskId>),
}

impl Script {
    fn make(&mut self, step: &Step) -> Made {
        let hour = |n: u64| Some(Timestamp::now() + Duration::from_secs(n * 3_600));
        match step {
            Step::Submit { key, priority, after, anyway, later, expires } => {
                let mut new = task(&key.to_string());
                new.priority = *priority;
                new.after = after.iter().filter_map(|n| pick(&self.tasks, *n)).collect();
                new.on_parent_failed = if *anyway { OnParentFailed::Run } else { OnParentFailed::Cancel };
                (new.run_at, new.expires_at) = (hour(1).filter(|_| *later), hour(1).filter(|_| *expires));
                self.tasks.push(new.id);
                Made::Submit(Box::new(new))
            }
            Step::Signal { task, name: which, again } => {
                let Some(id) = pick(&self.tasks, *task) else {
                    return Made::As(Step::Promote { later: false }, None);
                };
                let known = self.signals.last().cloned().filter(|_| *again);
                let fresh = || Signal { id: Uuid::now_v7(), name: name(*which), body: json("1") };
                let signal = known.unwrap_or_else(fresh);
                self.signals.push(signal.clone());
                Made::Signal(id, signal)
            }
            Step::Cancel { task } | Step::Retry { task } | Step::Resolve { task, .. } => {
                Made::As(step.clone(), pick(&self.tasks, *task))
            }
            _ => Made::As(step.clone(), None),
        }
    }
}

impl Told {
    async fn of(world: World, name: &'static str) -> Self {
        Self { world, name, claims: Vec::new(), states: BTreeMap::new() }
    }

    /// Does it, and says what came of it, in words that are the same for all stores.
    async fn does(&mut self, made: &Made) -> String {
        let w = &mut self.world;
        match made {
            Made::Submit(new) => verdict(&w.commit_one(accepting([(**new).clone()])).await),
            Made::Signal(id, signal) => format!("{:?}", w.store.signal(*id, signal).await.unwrap()),
            Made::As(step, id) => match (step, *id) {
                (Step::Claim { n }, _) => {
                    let mut more = w.claim(*n).await;
                    more.extend(w.claim_alone().await);
                    let told: Vec<_> = more.iter().map(|c| (c.id, c.attempt, c.lost)).collect();
                    self.claims.extend(more);
                    format!("{told:?}")
                }
                (Step::End { claim, how }, _) => match self.takes(*claim) {
                    Some(claim) => verdict(&self.world.end(&claim, outcome(*how)).await),
                    None => String::new(),
                },
                (Step::Stale { claim }, _) => match pick(&self.claims, *claim) {
                    Some(claim) => {
                        let stale = Claimed { attempt: claim.attempt + 1, ..claim };
                        verdict(&w.end(&stale, ok()).await)
                    }
                    None => String::new(),
                },
                (Step::GiveBack { claim }, _) => match self.takes(*claim) {
                    Some(claim) => {
                        let (store, boot) = (self.world.store.clone(), self.world.boot);
                        store.give_back(boot, &[(claim.id, claim.claim)]).await.unwrap();
                        "given back".to_owned()
                    }
                    None => String::new(),
                },
                (Step::Wait { claim, name: which, until }, _) => match self.takes(*claim) {
                    Some(claim) => {
                        let until = until.then(|| Timestamp::now() + Duration::from_secs(3_600));
                        let wait = Wait { name: name(*which), occurrence: 1, until, seen: 0 };
                        let write =
                            JournalWrite { waits: vec![wait], ..JournalWrite::of(claim.id, claim.claim) };
                        let unit = Unit { journal: Some(write), ..Unit::default() };
                        verdict(&self.world.commit_one(unit).await)
                    }
                    None => String::new(),
                },
                (Step::Cancel { .. }, Some(id)) => {
                    let found = w.store.cancel(id).await.unwrap();
                    let ended = match found {
                        Some(CancelFound::Idle) => {
                            verdict(&w.commit_one(ending_idle(id, FinishOutcome::Cancelled)).await)
                        }
                        _ => String::new(),
                    };
                    format!("{found:?} {ended}")
                }
                (Step::Retry { .. }, Some(id)) => format!("{:?}", w.store.retry(id).await.unwrap()),
                (Step::Resolve { well, .. }, Some(id)) => {
                    // Of a task that does not run, as an operator would.
                    let ends = if *well { ok() } else { failed() };
                    if w.state_of(id).await == TaskState::OutcomeUnknown {
                        verdict(&w.commit_one(ending_idle(id, ends)).await)
                    } else {
                        String::new()
                    }
                }
                (Step::Park { key, park }, _) => {
                    format!("{:?}", w.store.park(&format!("tally/{key}"), *park).await.unwrap())
                }
                (Step::Promote { later }, _) => {
                    let hours = Duration::from_secs(if *later { 7_200 } else { 0 });
                    let mut promoted = 0;
                    // Generations of children are ended one a pass; those that the runtime ends are its affair.
                    for _ in 0..4 {
                        promoted += w.store.promote(Timestamp::now() + hours).await.unwrap().ready;
                        for (id, _) in w.store.doomed().await.unwrap() {
                            w.commit_one(ending_idle(id, failed())).await;
                        }
                    }
                    // what ends by a store's own clock is ahead of its time there: it counts children once more
                    if *later { String::new() } else { promoted.to_string() }
                }
                (Step::Crash, _) => {
                    self.claims.clear();
                    let (rescued, poison) = w.crash().await;
                    format!("{rescued} {poison:?}")
                }
                _ => String::new(),
            },
        }
    }

    fn takes(&mut self, claim: u8) -> Option<Claimed> {
        let n = usize::from(claim) % self.claims.len().max(1);
        (n < self.claims.len()).then(|| self.claims.remove(n))
    }

    /// How all its tasks stand; each has moved as the machine allows.
    async fn stands(&mut self, script: &Script, step: &Step) -> Vec<(TaskState, u32, u32, Option<u32>)> {
        let mut all = Vec::new();
        for id in &script.tasks {
            let view = self.world.store.task(*id).await.unwrap();
            let Some(view) = view else {
                all.push((TaskState::Cancelled, 999, 999, None));
                continue;
            };
            if let Some(before) = self.states.insert(*id, view.state) {
                let name = self.name;
                assert!(
                    may(before, view.state, 6),
                    "{name}: from {before:?} to {:?} by {step:?}",
                    view.state
                );
            }
            all.push((view.state, view.attempt, view.lost, view.waiting_for));
        }
        all
    }
}

fn verdict(verdict: &Verdict) -> String {
    match verdict {
        Verdict::Durable | Verdict::Begun { .. } => "durable".to_owned(),
        Verdict::Refused(refusal) => format!("{refusal:?}").chars().take(12).collect(),
    }
}

/// Whether the machine leads from one state to another within so many inputs: one step of a test may be
/// several of the machine's.
fn may(from: TaskState, to: TaskState, within: usize) -> bool {
    let mut reached = vec![from];
    for _ in 0..within {
        let more: Vec<TaskState> = reached
            .iter()
            .flat_map(|state| TaskInput::ALL.into_iter().filter_map(|input| next(*state, input).ok()))
            .collect();
        reached.extend(more);
        reached.sort_unstable();
        reached.dedup();
    }
    reached.contains(&to)
}

fn run(steps: Vec<Step>, with_postgres: bool) {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
    runtime.block_on(async {
        let mut stores = vec![
            Told::of(World::memory().await, "memory").await,
            Told::of(World::sqlite().await, "sqlite").await,
        ];
        if with_postgres {
            stores.push(Told::of(World::postgres().await, "postgres").await);
        }
        let mut script = Script::default();
        for (n, step) in steps.iter().enumerate() {
            let made = script.make(step);
            let mut first = None;
            for told in &mut stores {
                let said = told.does(&made).await;
                let stands = told.stands(&script, step).await;
                let (one, those) = first.get_or_insert_with(|| (said.clone(), stands.clone()));
                let name = told.name;
                assert_eq!((&said, &stands), (&*one, &*those), "{name} and memory, by step {n}: {step:?}");
            }
        }
    });
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 48, max_shrink_iters: 200, failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn sqlite_and_memory_do_the_same(steps in steps()) {
        run(steps, false);
    }
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 12, max_shrink_iters: 100, failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn postgres_does_the_same(steps in steps()) {
        run(steps, true);
    }
}
