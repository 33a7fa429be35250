//! What is known from outside: what clients were told, what the store did, what everybody believed. It
//! finds what must never be.

mod agents;
mod beliefs;
mod claims;
mod families;
mod functions;
mod rest;
mod schedules;

use std::collections::BTreeMap;

use greenroom::{
    model::{
        id::{Target, TaskId},
        task::NewTask,
    },
    store::{MemoryStore, Unit, Verdict},
};
use uuid::Uuid;

use self::{agents::Heads, beliefs::Beliefs, claims::Known, functions::Functions, schedules::Fired};
use crate::{
    op::{Answer, Op, Said},
    work::{Script, effect_of},
    world::{Sender, World},
};
pub use families::Batch;

/// What a client has heard.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Heard {
    /// Nothing: it may or may not happen.
    Nothing,
    Done,
    /// It did not happen, and will not.
    Denied,
}

/// Who makes an effect happen.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Source {
    /// A client asks an agent for it.
    Asked,
    /// A client submits its task.
    Submitted,
    /// The turn with this effect submits its task.
    Turn(u32),
    /// The task function with this effect submits its task.
    Child(u32),
    /// The task function with this effect calls a tool, or asks an agent.
    Called(u32),
    /// A schedule submits its task.
    Nominal,
}

/// An effect on an agent's state, or of a tool.
struct Effect {
    script: Script,
    /// Whom it is for.
    target: Target,
    source: Source,
    heard: Heard,
}

/// Whose commit it was, its units, and the verdicts on them.
#[derive(Clone, Copy)]
struct Commit<'a> {
    boot: Uuid,
    units: &'a [Unit],
    verdicts: &'a [Verdict],
}

impl<'a> Commit<'a> {
    fn durable(self) -> impl Iterator<Item = &'a Unit> {
        let judged = self.units.iter().zip(self.verdicts);
        judged.filter(|(_, verdict)| **verdict == Verdict::Durable).map(|(unit, _)| unit)
    }
}

#[derive(Default)]
pub struct Ledger {
    /// What must never be, and was.
    pub broken: Option<String>,
    effects: Vec<Effect>,
    insisted: Vec<u32>,
    tasks: BTreeMap<TaskId, Known>,
    batches: BTreeMap<TaskId, Batch>,
    beliefs: Beliefs,
    functions: Functions,
    schedules: BTreeMap<&'static str, Fired>,
    paused: BTreeMap<String, bool>,
    /// How often a tool's effect happened.
    paid: BTreeMap<u32, u32>,
    /// By how much wall clocks were off at most, in milliseconds.
    skew_ms: i64,
    /// How often what happened, for those who want to know whether a world was busy.
    pub busy: BTreeMap<&'static str, u64>,
}

impl Ledger {
    pub fn must(&mut self, holds: bool, what: impl FnOnce() -> String) {
        if !holds && self.broken.is_none() {
            self.broken = Some(what());
        }
    }

    /// Notes that something happened.
    pub fn note(&mut self, what: &'static str) {
        *self.busy.entry(what).or_default() += 1;
    }

    /// A wall clock is off by so much.
    pub fn sets_clock(&mut self, off_ms: i64) {
        self.skew_ms = self.skew_ms.max(off_ms.abs());
    }

    /// A new effect; its number.
    pub fn plan(&mut self, target: Target, source: Source) -> u32 {
        self.effects.push(Effect { script: Script::Plain, target, source, heard: Heard::Nothing });
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

    /// The same to somebody who asks again, and may have heard before.
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

    /// A tool takes effect.
    pub fn pays(&mut self, effect: u32) {
        let times = self.paid.entry(effect).or_default();
        *times += 1;
        let times = *times;
        self.must(times <= 1, || format!("the tool's effect {effect} happened {times} times"));
    }

    /// What the store holds before a call.
    pub fn before(&self, store: &MemoryStore, op: &Op) -> Option<Heads> {
        match op {
            Op::Commit(units) => Some(Heads::of(store, units)),
            _ => None,
        }
    }
}

impl World {
    /// Looks at what a call has done.
    pub fn look_at(&mut self, from: Sender, op: &Op, answer: &Answer, before: Option<Heads>) {
        let (now, wall) = (self.now, self.wall(0));
        let (ledger, store) = (&mut self.ledger, &*self.store);
        match (op, answer) {
            (Op::Join(_) | Op::Renew(_), Ok(Said::Owned(owned))) => {
                let Some(ownership) = owned.as_ref() else { return };
                ledger.owned(&ownership.epochs);
                let rescued = ledger.settle(store, None, op);
                ledger.must(rescued == ownership.rescued, || {
                    format!("{} tasks were said to be rescued, and {rescued} were", ownership.rescued)
                });
            }
            (Op::Commit(units), Ok(Said::Verdicts(verdicts))) => {
                let commit = Commit { boot: from.boot, units, verdicts };
                if let Some(before) = before {
                    ledger.committed(store, commit, &before);
                }
                commit.durable().flat_map(|unit| &unit.accepted).for_each(|task| ledger.accepted(task));
                ledger.joins(commit);
                ledger.journaled(commit, wall);
                ledger.moved(store, commit, now);
                ledger.settle(store, Some(commit), op);
                ledger.ended_by(store, commit, now);
            }
            (Op::GiveBack(_), _) => drop(ledger.settle(store, None, op)),
            (Op::Promote(_), _) => ledger.swept(store, now),
            (Op::Claim(request), Ok(Said::Claims(claims))) => {
                claims.iter().for_each(|claim| ledger.claimed(from.boot, request.alone, claim, wall));
            }
            (Op::Signal(task, signal), Ok(Said::Signalled(Some(found)))) => {
                ledger.signalled(store, *task, signal, *found);
            }
            (Op::Cancel(task), Ok(Said::Cancel(Some(found)))) => ledger.cancels(*task, *found),
            (Op::Retry(task), Ok(Said::Retried(Some(Ok(()))))) => ledger.brought_back(*task),
            (Op::Park(target, true), Ok(_)) => ledger.parked(target),
            (Op::Pause(queue, paused), Ok(_)) => drop(ledger.paused.insert(queue.clone(), *paused)),
            (Op::PutSchedule(schedule, _), Ok(Said::Put(true))) => ledger.put(schedule),
            _ => {}
        }
    }
}

impl Ledger {
    /// A task is accepted.
    fn accepted(&mut self, task: &NewTask) {
        let effect = effect_of(&task.message, &task.input);
        if self.tasks.contains_key(&task.id) {
            return; // sent again
        }
        self.tasks.insert(task.id, Known::of(task, effect));
        self.waits_for(task);
    }
}
