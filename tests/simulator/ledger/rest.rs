//! What must hold when everything has come to rest.

use std::collections::BTreeMap;

use greenroom::{
    model::{
        id::{Target, TaskId},
        task::{TaskState, TaskView},
    },
    store::MemoryStore,
};

use super::{Effect, Heard, Ledger, Source, agents::head, claims::view};
use crate::{
    op::short,
    work::{FLOW, KEYS, MAX_ATTEMPTS, MAX_LOST, Script, tool},
};

/// How often effects happened.
type Happened = BTreeMap<u32, u32>;

impl Ledger {
    /// What has not come to its end, where everything should have.
    pub fn unfinished(&self, store: &MemoryStore) -> Vec<String> {
        let views = self.tasks.keys().filter_map(|id| view(store, *id));
        let open = views.filter(|v| !v.state.is_final());
        let open = open.map(|v| format!("t{} for {} is {}", short(v.id.0), v.target, v.state.name()));
        let untold = self.batches.values().filter(|batch| self.times_told(batch.effect) == 0);
        open.chain(untold.map(|batch| format!("nobody was told of a batch, by effect {}", batch.effect)))
            .collect()
    }

    /// How many tasks with this effect there are.
    fn times_told(&self, effect: u32) -> usize {
        self.tasks.values().filter(|known| known.effect == effect).count()
    }

    /// Tasks in this state.
    pub fn those_that_are(&self, store: &MemoryStore, state: TaskState) -> Vec<TaskId> {
        let views = self.tasks.iter().filter(|(_, known)| known.ended.is_none());
        let views = views.filter_map(|(id, _)| view(store, *id));
        views.filter(|view| view.state == state).map(|view| view.id).collect()
    }

    /// Whether a person has something to do.
    pub fn has_parked(&self, store: &MemoryStore) -> bool {
        !self.those_that_are(store, TaskState::Parked).is_empty()
    }

    /// Whether all is as it must be when everything has come to rest.
    pub fn at_rest(&mut self, store: &MemoryStore) {
        let problems = store.verify().problems;
        self.must(problems.is_empty(), || format!("the store is unsound: {problems:?}"));
        let mut happened: Happened = self.paid.clone();
        for key in KEYS {
            head(store, key).2.into_iter().for_each(|effect| *happened.entry(effect).or_default() += 1);
        }
        let mut tasks: BTreeMap<u32, Vec<TaskView>> = BTreeMap::new();
        for (id, known) in &self.tasks {
            tasks.entry(known.effect).or_default().extend(view(store, *id));
        }
        let effects = std::mem::take(&mut self.effects);
        for (n, effect) in (0u32..).zip(&effects) {
            let times = happened.get(&n).copied().unwrap_or(0);
            self.must(times <= 1, || format!("effect {n} happened {times} times"));
            let there = tasks.get(&n).map(Vec::as_slice).unwrap_or_default();
            match effect.source {
                Source::Asked | Source::Called(_) => self.asked(n, effect, times, there.len()),
                _ => self.submitted(n, effect, &happened, there),
            }
        }
        self.effects = effects;
        self.batches_at_rest();
    }

    /// An effect that somebody asked for.
    fn asked(&mut self, n: u32, effect: &Effect, times: u32, tasks: usize) {
        let fits = match effect.heard {
            Heard::Nothing => true,
            Heard::Done => times == 1,
            Heard::Denied => times == 0,
        };
        self.must(fits && tasks == 0, || {
            format!("effect {n} of an ask: {:?}, and happened {times} times", effect.heard)
        });
    }

    /// The effect of a task.
    fn submitted(&mut self, n: u32, effect: &Effect, happened: &Happened, there: &[TaskView]) {
        let wanted = match (effect.source, effect.heard) {
            (Source::Turn(parent), _) => {
                let born = happened.get(&parent).map_or(0, |n| *n as usize);
                born..=born
            }
            (Source::Nominal, Heard::Nothing) | (_, Heard::Denied) => 0..=0,
            (_, Heard::Done) => 1..=1,
            (_, Heard::Nothing) => 0..=1,
        };
        self.must(wanted.contains(&there.len()), || {
            format!("effect {n}: {:?}, and {} tasks for it are there", effect.heard, there.len())
        });
        let times = happened.get(&n).copied().unwrap_or(0);
        for view in there {
            match effect.target == tool(FLOW) {
                true => self.function_ended(n, view, happened),
                false => self.ended(n, effect, view, times),
            }
        }
        self.must(!there.is_empty() || times == 0, || format!("effect {n} happened without its task"));
    }

    /// Whether a task may be cancelled.
    fn may_be_cancelled(&self, id: TaskId) -> bool {
        self.tasks.get(&id).is_some_and(|k| k.doomed || k.may_expire() || k.unwanted)
    }

    fn ended(&mut self, n: u32, effect: &Effect, view: &TaskView, times: u32) {
        let Some(known) = self.tasks.get(&view.id) else { return };
        let (lost_alone, resolved) = (known.lost_alone, known.resolved);
        let must_be_cancelled = known.cancelled || known.doomed;
        let failures = view.attempt - view.lost;
        let code = view.error.as_ref().map(|e| e.code.as_str());
        let is_tool = matches!(effect.target, Target::Tool(_));
        let fits = match view.state {
            _ if must_be_cancelled && view.state != TaskState::Cancelled => false,
            TaskState::Succeeded => times == 1,
            TaskState::Failed if resolved => is_tool && times == 0,
            TaskState::Failed if code == Some("poison") => times == 0 && lost_alone >= MAX_LOST,
            TaskState::Failed => times == 0 && !is_tool && effect.script.fails_after(failures),
            // nobody has said yet what became of it
            TaskState::Cancelled if is_tool && view.lost > 0 => self.may_be_cancelled(view.id),
            TaskState::Cancelled => times == 0 && self.may_be_cancelled(view.id),
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
        self.note(match (view.state, effect.script) {
            (TaskState::Failed, Script::Never) => "not tried again",
            (TaskState::Succeeded, Script::Later(_)) => "tried again when they said",
            _ => "ended",
        });
    }

    fn function_ended(&mut self, n: u32, view: &TaskView, happened: &Happened) {
        let Some(known) = self.tasks.get(&view.id) else { return };
        let (t, resolved) = (short(view.id.0), known.resolved);
        let must_be_cancelled = known.cancelled || known.doomed;
        let plan = self.plan_of(n);
        let failures = view.attempt - view.lost;
        let code = view.error.as_ref().map(|e| e.code.clone());
        let fits = match view.state {
            _ if must_be_cancelled && view.state != TaskState::Cancelled => false,
            TaskState::Succeeded if resolved => true,
            TaskState::Succeeded => {
                let answers = self.answers(view.id, &plan);
                let result = view.result.as_ref().map(|result| result.get().to_owned());
                let recorded = format!("[{}]", answers.join(","));
                self.must(result.as_deref() == Some(&*recorded), || {
                    format!("t{t} ends with {result:?}, and recorded {recorded}")
                });
                true
            }
            TaskState::Failed if resolved => true,
            TaskState::Failed => {
                let missed = self.missed(view.id, &plan);
                missed || (plan.errs >= MAX_ATTEMPTS && failures == MAX_ATTEMPTS)
            }
            TaskState::Cancelled => self.may_be_cancelled(view.id),
            _ => false,
        };
        self.must(fits, || {
            let (state, attempt, lost) = (view.state, view.attempt, view.lost);
            format!("t{t}, a function ({plan:?}), is {state:?} ({code:?}, attempt {attempt}, lost {lost})")
        });
        if view.state == TaskState::Succeeded && !resolved {
            for effect in plan.steps.iter().filter_map(|step| step.effect()) {
                let times = happened.get(&effect).copied().unwrap_or(0);
                self.must(times == 1, || format!("effect {effect} of t{t} happened {times} times"));
            }
            self.note("functions");
        }
    }

    /// Each batch that was accepted is told to have ended, once.
    fn batches_at_rest(&mut self) {
        let told = self.batches.values().map(|batch| (batch.effect, self.times_told(batch.effect)));
        let wrong = told.into_iter().find(|(_, times)| *times != 1);
        self.must(wrong.is_none(), || format!("the end of a batch was told, effect and times: {wrong:?}"));
    }
}
