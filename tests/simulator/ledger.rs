//! What is known from outside: what clients were told, what the store did, what everybody believed. It
//! finds what must never be.

use std::{
    collections::{BTreeMap, BTreeSet},
    time::Duration,
};

use futures_util::FutureExt as _;
use greenroom::{
    model::{
        id::{AgentId, Target, TaskId},
        task::{ClaimId, TaskState, TaskView},
    },
    store::{FinishOutcome, Guard, MemoryStore, Store as _, Unit, Verdict},
};
use uuid::Uuid;

use crate::{
    cell::{policy, read},
    node::partition,
    work::{KEYS, KIND, MAX_ATTEMPTS, MAX_LOST, Script, effect_of},
    world::{Answer, Op, Pid, Said, Sender, short},
};

/// What a client has heard.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Heard {
    /// Nothing: it may or may not happen.
    Nothing,
    Done,
    /// It did not happen, and will not.
    Denied,
}

/// An effect on an agent's state, or of a tool.
struct Effect {
    script: Script,
    /// Whom it is for.
    target: Target,
    by_task: bool,
    heard: Heard,
    /// The effect whose turn submits this one.
    parent: Option<u32>,
}

/// A claim that has not ended.
#[derive(Debug, Clone, Copy)]
struct Open {
    boot: Uuid,
    alone: bool,
    claim: ClaimId,
}

/// What a task has come to, as it is counted from outside.
#[derive(Default)]
struct Known {
    effect: u32,
    attempt: u32,
    lost: u32,
    lost_alone: u32,
    open: Option<Open>,
}

/// Until when a process believes that it owns its partitions.
struct Belief {
    epochs: Vec<i64>,
    until: Duration,
}

/// Whose commit it was, its units, and the verdicts on them.
type Commit<'a> = (Uuid, &'a [Unit], &'a [Verdict]);

/// An agent in the store.
type Head = (i64, i64, Vec<u32>);

/// What the store held before a call.
pub struct Before {
    heads: Vec<(&'static str, Head)>,
}

#[derive(Default)]
pub struct Ledger {
    /// What must never be, and was.
    pub broken: Option<String>,
    effects: Vec<Effect>,
    insisted: Vec<u32>,
    tasks: BTreeMap<TaskId, Known>,
    /// The newest epoch of each partition.
    epochs: BTreeMap<usize, i64>,
    beliefs: BTreeMap<Pid, Belief>,
    dozers: BTreeSet<Pid>,
    restarts: BTreeMap<(Pid, &'static str), Vec<Duration>>,
    paid: BTreeMap<u32, u32>,
    /// How much was observed, for those who want to know whether a world was busy.
    pub durable: u64,
    pub rescued: u64,
    pub takeovers: u64,
}

impl Ledger {
    pub fn must(&mut self, holds: bool, what: impl FnOnce() -> String) {
        if !holds && self.broken.is_none() {
            self.broken = Some(what());
        }
    }

    /// A new effect; its number.
    pub fn plan(&mut self, target: Target, by_task: bool, parent: Option<u32>) -> u32 {
        self.effects.push(Effect { script: Script::Plain, target, by_task, heard: Heard::Nothing, parent });
        u32::try_from(self.effects.len() - 1).unwrap_or(0)
    }

    pub fn script(&self, effect: u32) -> Script {
        self.effects.get(effect as usize).map_or(Script::Plain, |e| e.script)
    }

    pub fn set_script(&mut self, effect: u32, script: Script) {
        self.effects.get_mut(effect as usize).into_iter().for_each(|e| e.script = script);
    }

    pub fn target(&self, effect: u32) -> Target {
        let known = self.effects.get(effect as usize).map(|e| e.target.clone());
        known.unwrap_or_else(|| crate::cell::agent("a"))
    }

    fn hear(&mut self, effect: u32, heard: Heard) {
        let Some(known) = self.effects.get_mut(effect as usize) else { return };
        let before = std::mem::replace(&mut known.heard, heard);
        self.must(before == Heard::Nothing, || format!("a client hears twice of effect {effect}"));
    }

    /// A client has heard that it is durable.
    pub fn acknowledged(&mut self, effect: u32) {
        self.hear(effect, Heard::Done);
    }

    /// The same to a client that asks under a key, and may have heard before.
    pub fn heard(&mut self, effect: u32) {
        self.effects.get_mut(effect as usize).into_iter().for_each(|e| e.heard = Heard::Done);
    }

    /// A client is to ask for this until it has heard.
    pub fn insists(&mut self, effect: u32) {
        self.insisted.push(effect);
    }

    /// Whether all those have heard.
    pub fn have_heard(&self) -> bool {
        self.insisted.iter().all(|effect| self.was_acknowledged(*effect))
    }

    /// A client has heard that it did not happen.
    pub fn denied(&mut self, effect: u32) {
        self.hear(effect, Heard::Denied);
    }

    pub fn was_acknowledged(&self, effect: u32) -> bool {
        self.effects.get(effect as usize).is_some_and(|e| e.heard == Heard::Done)
    }

    pub fn believes(&mut self, pid: Pid, epochs: &[i64], until: Duration) {
        if !self.dozers.contains(&pid) {
            self.beliefs.insert(pid, Belief { epochs: epochs.to_vec(), until });
        }
    }

    /// Its clock stands still: it may believe for too long, and the epochs alone hold it back.
    pub fn dozes(&mut self, pid: Pid) {
        self.dozers.insert(pid);
        self.beliefs.remove(&pid);
    }

    pub fn dies(&mut self, pid: Pid) {
        self.beliefs.remove(&pid);
    }

    /// A process starts a turn.
    pub fn runs(&mut self, pid: Pid, partition: usize, now: Duration) {
        let owns = |b: &Belief| b.epochs.get(partition).is_some_and(|e| *e != 0) && b.until > now;
        if !self.beliefs.get(&pid).is_some_and(owns) {
            return; // it dozes, or its belief has been told already
        }
        let other = self.beliefs.iter().find(|(other, b)| **other != pid && owns(b)).map(|(other, _)| *other);
        self.must(other.is_none(), || {
            format!("p{pid} and another, {other:?}, both hold partition {partition}")
        });
    }

    /// A process restarts an agent, by its own clock.
    pub fn restarts(&mut self, pid: Pid, key: &'static str, now: Duration) {
        let policy = policy();
        let times = self.restarts.entry((pid, key)).or_default();
        times.push(now);
        let recent = times.iter().filter(|at| now.saturating_sub(**at) < policy.within).count();
        let holds = recent <= policy.max_restarts as usize;
        self.must(holds, || format!("{key} was restarted {recent} times within {:?}", policy.within));
    }

    /// A person has it begin afresh.
    pub fn pardons(&mut self, pid: Pid, key: &'static str) {
        self.restarts.remove(&(pid, key));
    }

    /// A tool takes effect.
    pub fn pays(&mut self, effect: u32) {
        let times = self.paid.entry(effect).or_default();
        *times += 1;
        let times = *times;
        self.must(times <= 1, || format!("the tool's effect {effect} happened {times} times"));
    }

    /// What the store holds before a call.
    pub fn before(&self, store: &MemoryStore, op: &Op) -> Option<Before> {
        let Op::Commit(units) = op else { return None };
        let written = |key: &&'static str| {
            let writes = |unit: &Unit| unit.state.as_ref().is_some_and(|s| *s.key == **key);
            units.iter().any(writes)
        };
        let keys: Vec<&'static str> = KEYS.into_iter().filter(written).collect();
        Some(Before { heads: keys.into_iter().map(|key| (key, head(store, key))).collect() })
    }

    /// Looks at what a call has done.
    pub fn after(
        &mut self,
        store: &MemoryStore,
        from: Sender,
        op: &Op,
        answer: &Answer,
        before: Option<Before>,
    ) {
        match (op, answer) {
            (Op::Join(_) | Op::Renew(_), Ok(Said::Owned(owned))) => {
                let Some(ownership) = owned.as_ref() else { return };
                for (n, epoch) in ownership.epochs.iter().enumerate().filter(|(_, epoch)| **epoch != 0) {
                    let newest = self.epochs.entry(n).or_default();
                    self.takeovers += u64::from(*newest != *epoch && *newest != 0);
                    let was = std::mem::replace(newest, (*newest).max(*epoch));
                    self.must(was <= *epoch, || format!("partition {n} is owned under {epoch} after {was}"));
                }
                let rescued = self.settle(store, None, op);
                self.rescued += rescued;
                self.must(rescued == ownership.rescued, || {
                    format!("{} tasks were said to be rescued, and {rescued} were", ownership.rescued)
                });
            }
            (Op::Commit(units), Ok(Said::Verdicts(verdicts))) => {
                if let Some(before) = before {
                    self.committed(store, units, verdicts, &before);
                }
                self.accepted(units, verdicts);
                self.settle(store, Some((from.boot, units, verdicts)), op);
            }
            (Op::GiveBack(_), _) => {
                self.settle(store, None, op);
            }
            (Op::Claim(request), Ok(Said::Claims(claims))) => {
                for claim in claims {
                    let known = self.tasks.entry(claim.id).or_default();
                    known.effect = effect_of(claim);
                    known.attempt += 1;
                    let open = known.open.replace(Open {
                        boot: from.boot,
                        alone: request.alone,
                        claim: claim.claim,
                    });
                    let (attempt, lost) = (known.attempt, known.lost);
                    self.must(open.is_none(), || format!("t{} is claimed twice at once", short(claim.id.0)));
                    self.must((claim.attempt, claim.lost) == (attempt, lost), || {
                        let found = (claim.attempt, claim.lost);
                        format!(
                            "t{} is {found:?}, attempt and lost, not {:?}",
                            short(claim.id.0),
                            (attempt, lost)
                        )
                    });
                    let fits = (lost >= 2) == request.alone;
                    self.must(fits, || format!("t{}, lost {lost} times, alone or not", short(claim.id.0)));
                }
            }
            _ => {}
        }
    }

    /// Each state stands upon the one before it, and was written by the owner.
    fn committed(&mut self, store: &MemoryStore, units: &[Unit], verdicts: &[Verdict], before: &Before) {
        for (key, (version, _, state)) in &before.heads {
            let (new_version, new_epoch, new_state) = head(store, key);
            if new_version == *version {
                continue;
            }
            self.durable += 1;
            self.must(new_version == version + 1, || format!("{key} went from v{version} to v{new_version}"));
            let owner = self.epochs.get(&partition(key)).copied().unwrap_or(0);
            self.must(new_epoch == owner, || {
                format!("{key} v{new_version} was committed under epoch {new_epoch}, when it was {owner}")
            });
            self.must(new_state.starts_with(state), || {
                format!("{key} v{new_version} is {new_state:?}, and forgets something of {state:?}")
            });
            let written = units.iter().zip(verdicts).any(|(unit, verdict)| {
                let fits = |s: &greenroom::store::StateWrite| {
                    *s.key == **key && (s.base_version, s.epoch) == (*version, new_epoch)
                };
                *verdict == Verdict::Durable && unit.state.as_ref().is_some_and(fits)
            });
            self.must(written, || format!("{key} v{new_version} is what nobody wrote"));
            let mut twice = new_state.clone();
            twice.sort_unstable();
            let twice = twice.windows(2).find_map(|pair| (pair[0] == pair[1]).then_some(pair[0]));
            self.must(twice.is_none(), || format!("effect {twice:?} is twice in {key} v{new_version}"));
        }
    }

    fn accepted(&mut self, units: &[Unit], verdicts: &[Verdict]) {
        let durable = units.iter().zip(verdicts).filter(|(_, verdict)| **verdict == Verdict::Durable);
        for task in durable.flat_map(|(unit, _)| &unit.accepted) {
            let effect = task.input.get().parse().unwrap_or(0);
            self.tasks.entry(task.id).or_default().effect = effect;
        }
    }

    /// Looks which claims have ended, and whether they were those to end them; tells how many were lost.
    fn settle(&mut self, store: &MemoryStore, commit: Option<Commit<'_>>, op: &Op) -> u64 {
        let mut rescued = 0;
        let mut wrong = Vec::new();
        for (id, known) in &mut self.tasks {
            let Some(open) = known.open else { continue };
            let Some(view) = view(store, *id) else {
                wrong.push(format!("t{} is gone", short(id.0)));
                continue;
            };
            if view.state == TaskState::Running {
                continue;
            }
            known.open = None;
            let attempt = known.attempt;
            match (op, commit) {
                (Op::Join(_) | Op::Renew(_), _) => {
                    rescued += 1;
                    known.lost += 1;
                    known.lost_alone += u32::from(open.alone);
                }
                (Op::GiveBack(back), _) => {
                    known.attempt -= 1;
                    if !back.contains(&(*id, open.claim)) {
                        wrong.push(format!("t{} was given back by an earlier claim", short(id.0)));
                    }
                }
                (_, Some((boot, units, verdicts))) => {
                    let durable = units.iter().zip(verdicts).filter(|(_, v)| **v == Verdict::Durable);
                    let ends = durable.flat_map(|(unit, _)| &unit.finished).filter(|end| end.task == *id);
                    let by_guard = |end: &&greenroom::store::Finish| end.guard == Guard::Running { attempt };
                    let mut ends = ends.filter(by_guard);
                    match ends.next().filter(|_| boot == open.boot) {
                        Some(end) if matches!(end.outcome, FinishOutcome::Parked) => known.attempt -= 1,
                        Some(_) => {}
                        None => wrong.push(format!("t{} was ended by one who does not hold it", short(id.0))),
                    }
                }
                _ => {}
            }
            if (view.attempt, view.lost) != (known.attempt, known.lost) {
                let (found, counted) = ((view.attempt, view.lost), (known.attempt, known.lost));
                wrong.push(format!("t{} is {found:?}, attempt and lost, not {counted:?}", short(id.0)));
            }
        }
        wrong.into_iter().for_each(|what| self.must(false, || what));
        rescued
    }

    /// What has not come to its end, where everything should have.
    pub fn unfinished(&self, store: &MemoryStore) -> Vec<String> {
        let views = self.tasks.keys().filter_map(|id| view(store, *id));
        let open = views.filter(|v| !v.state.is_final() && v.state != TaskState::OutcomeUnknown);
        open.map(|v| format!("t{} for {} is {}", short(v.id.0), v.target, v.state.name())).collect()
    }

    /// Whether a person has something to do.
    pub fn has_parked(&self, store: &MemoryStore) -> bool {
        self.tasks.keys().filter_map(|id| view(store, *id)).any(|v| v.state == TaskState::Parked)
    }

    /// Whether all is as it must be when everything has come to rest.
    pub fn at_rest(&mut self, store: &MemoryStore) {
        let problems = store.verify().problems;
        self.must(problems.is_empty(), || format!("the store is unsound: {problems:?}"));
        let mut happened: BTreeMap<u32, u32> = self.paid.clone();
        for key in KEYS {
            head(store, key).2.into_iter().for_each(|effect| *happened.entry(effect).or_default() += 1);
        }
        let mut tasks: BTreeMap<u32, Vec<(TaskView, u32)>> = BTreeMap::new();
        for (id, known) in &self.tasks {
            view(store, *id)
                .into_iter()
                .for_each(|v| tasks.entry(known.effect).or_default().push((v, known.lost_alone)));
        }
        let effects = std::mem::take(&mut self.effects);
        for (n, effect) in (0u32..).zip(&effects) {
            let times = happened.get(&n).copied().unwrap_or(0);
            self.must(times <= 1, || format!("effect {n} happened {times} times"));
            if !effect.by_task {
                let fits = match effect.heard {
                    Heard::Nothing => true,
                    Heard::Done => times == 1,
                    Heard::Denied => times == 0,
                };
                self.must(fits, || {
                    format!("effect {n} of an ask: {:?}, and happened {times} times", effect.heard)
                });
                continue;
            }
            let there = tasks.get(&n).map(Vec::as_slice).unwrap_or_default();
            let wanted = match (effect.parent, effect.heard) {
                (Some(parent), _) => {
                    let born = happened.get(&parent).map_or(0, |n| *n as usize);
                    born..=born
                }
                (None, Heard::Done) => 1..=1,
                (None, Heard::Denied) => 0..=0,
                (None, Heard::Nothing) => 0..=1,
            };
            self.must(wanted.contains(&there.len()), || {
                format!("effect {n}: {:?}, and {} tasks for it are there", effect.heard, there.len())
            });
            for (view, lost_alone) in there {
                self.ended(n, effect, view, *lost_alone, times);
            }
            self.must(!there.is_empty() || times == 0, || format!("effect {n} happened without its task"));
        }
        self.effects = effects;
    }

    fn ended(&mut self, n: u32, effect: &Effect, view: &TaskView, lost_alone: u32, times: u32) {
        let failures = view.attempt - view.lost;
        let code = view.error.as_ref().map(|e| e.code.as_str());
        let is_tool = matches!(effect.target, Target::Tool(_));
        let fits = match view.state {
            TaskState::Succeeded => times == 1,
            TaskState::OutcomeUnknown => is_tool && view.lost > 0,
            TaskState::Failed if code == Some("poison") => times == 0 && lost_alone >= MAX_LOST,
            TaskState::Failed => {
                let deserved = match effect.script {
                    Script::Errs(k) | Script::Panics(k) => k >= MAX_ATTEMPTS,
                    Script::Plain | Script::Submits(_) | Script::Poison => false,
                };
                times == 0 && deserved && failures == MAX_ATTEMPTS
            }
            _ => false,
        };
        self.must(fits && failures <= MAX_ATTEMPTS, || {
            let (state, attempt, lost) = (view.state, view.attempt, view.lost);
            format!(
                "t{} of effect {n} ({:?}) is {state:?} ({code:?}, attempt {attempt}, lost {lost}, {lost_alone} alone), \
                 and happened {times} times",
                short(view.id.0),
                effect.script,
            )
        });
    }
}

fn head(store: &MemoryStore, key: &str) -> Head {
    let loaded = store.load(&[AgentId::of(KIND, key)]).now_or_never();
    let row = loaded.and_then(Result::ok).and_then(|mut rows| rows.pop().flatten());
    row.filter(|row| row.version > 0)
        .map_or((0, 0, Vec::new()), |row| (row.version, row.epoch, read(&row.bytes)))
}

fn view(store: &MemoryStore, id: TaskId) -> Option<TaskView> {
    store.task(id).now_or_never().and_then(Result::ok).flatten()
}
