//! Task functions: what they recorded, what they waited for, which signals they were sent.

use std::collections::{BTreeMap, BTreeSet};

use greenroom::{
    model::{
        id::TaskId,
        journal::{Answer, CallId, Entry, JournalWrite, Signal},
        task::TaskState,
    },
    store::{MemoryStore, SignalFound},
};
use jiff::{SignedDuration, Timestamp};
use uuid::Uuid;

use super::{Commit, Ledger, claims::view};
use crate::{
    op::short,
    work::{Plan, Step},
};

/// A signal that a client sends until it has heard.
pub struct Sent {
    pub task: TaskId,
    pub signal: Signal,
    pub heard: bool,
}

/// What the store holds of a task function.
#[derive(Default)]
pub struct Written {
    /// The targets and answers of its calls; of those that were begun, none.
    calls: BTreeMap<CallId, (String, Option<String>)>,
    /// Its signals, in the order in which they came.
    signals: Vec<(Uuid, String)>,
    /// Those that have answered a wait.
    taken: BTreeSet<Uuid>,
    /// How many of each name must have answered one before a wait for another ends without.
    due: BTreeMap<String, usize>,
    /// Until when each wait lasts.
    until: BTreeMap<(String, u32), Option<Timestamp>>,
    /// What it waits for.
    waits: Option<String>,
}

impl Written {
    fn came(&self, name: &str) -> usize {
        self.signals.iter().filter(|(_, of)| of == name).count()
    }

    fn taken(&self, name: &str) -> usize {
        self.signals.iter().filter(|(id, of)| of == name && self.taken.contains(id)).count()
    }
}

#[derive(Default)]
pub struct Functions {
    plans: BTreeMap<u32, Plan>,
    written: BTreeMap<TaskId, Written>,
    sent: Vec<Sent>,
    /// Under which keys tools took effect that know a repetition by it.
    served: BTreeMap<u32, BTreeSet<String>>,
}

impl Ledger {
    pub fn set_plan(&mut self, effect: u32, plan: Plan) {
        self.functions.plans.insert(effect, plan);
    }

    pub fn plan_of(&self, effect: u32) -> Plan {
        self.functions.plans.get(&effect).cloned().unwrap_or_default()
    }

    /// The steps of a task function; `None`: the task is none.
    pub fn steps(&self, effect: u32) -> Option<&[Step]> {
        self.functions.plans.get(&effect).map(|plan| &*plan.steps)
    }

    /// A tool takes effect that knows a repetition by its key.
    pub fn serves(&mut self, effect: u32, key: &str) {
        let keys = self.functions.served.entry(effect).or_default();
        if !keys.insert(key.to_owned()) {
            return;
        }
        let times = keys.len();
        self.must(times <= 1, || format!("effect {effect} of a call was asked for under {times} keys"));
        self.paid.insert(effect, 1);
    }

    /// A client is to send this signal until it has heard; its number.
    pub fn sends(&mut self, task: TaskId, signal: Signal) -> usize {
        self.functions.sent.push(Sent { task, signal, heard: false });
        self.functions.sent.len() - 1
    }

    pub fn sent(&self, n: usize) -> Option<&Sent> {
        self.functions.sent.get(n)
    }

    /// Whoever sent a signal has heard what it met.
    pub fn hears_of_signal(&mut self, id: Uuid) {
        let of = |sent: &&mut Sent| sent.signal.id == id;
        self.functions.sent.iter_mut().filter(of).for_each(|sent| sent.heard = true);
    }

    /// What a waiting task waits for without end, where no signal is there that should have ended it.
    pub fn wants(&self, task: TaskId) -> Option<&str> {
        let written = self.functions.written.get(&task)?;
        let name = written.waits.as_deref()?;
        let open = |((of, _), until): (&(String, u32), &Option<Timestamp>)| of == name && until.is_none();
        (written.until.iter().any(open) && written.came(name) == written.taken(name)).then_some(name)
    }

    /// The once-effect of a task function that was begun and not seen to end.
    pub fn begun(&self, task: TaskId) -> Option<u32> {
        let written = self.functions.written.get(&task)?;
        let plan = self.functions.plans.get(&self.tasks.get(&task)?.effect)?;
        plan.steps.iter().find_map(|step| match step {
            Step::Pays(effect) => {
                let call = crate::function::call_of(*step, 1)?;
                written.calls.get(&call).filter(|(_, answer)| answer.is_none()).map(|_| *effect)
            }
            _ => None,
        })
    }

    /// A run is about to read the journal: it finds all signals that have come.
    pub(super) fn reads_its_journal(&mut self, task: TaskId) {
        if let Some(written) = self.functions.written.get_mut(&task) {
            for (_, name) in &written.signals {
                let came = written.signals.iter().filter(|(_, of)| of == name).count();
                written.due.insert(name.clone(), came);
            }
        }
    }

    /// What task functions have come to.
    pub(super) fn journaled(&mut self, commit: Commit<'_>, wall: Timestamp) {
        for write in commit.durable().filter_map(|unit| unit.journal.as_ref()) {
            let open = self.tasks.get(&write.task).and_then(|known| known.open);
            let holds = open.is_some_and(|o| (o.boot, o.claim) == (commit.boot, write.claim));
            let t = short(write.task.0);
            self.must(holds, || format!("t{t} was written under claim {}, not {open:?}", write.claim.0));
            write.entries.iter().for_each(|entry| self.recorded(write.task, entry, wall));
            self.waits(write);
        }
    }

    fn recorded(&mut self, task: TaskId, entry: &Entry, wall: Timestamp) {
        let (t, skew) = (short(task.0), SignedDuration::from_millis(2 * self.skew_ms));
        let written = self.functions.written.entry(task).or_default();
        let text = entry.answer.as_ref().and_then(|answer| serde_json::to_string(answer).ok());
        let known = written.calls.entry(entry.call).or_insert_with(|| (entry.target.clone(), None));
        let before = known.1.clone();
        if before.is_none() {
            known.1.clone_from(&text);
        }
        let again = before.is_some();
        let same = before.is_none() || text.is_none() || before == text;
        let name = entry.target.strip_prefix("wait ");
        let mut wrong = None;
        let mut what = (!again && text.is_some()).then_some("recorded");
        match (&entry.answer, name) {
            (Some(Answer::Signal { id, .. }), Some(name)) if !again => {
                what = Some("signals taken");
                let is_there = written.signals.contains(&(*id, name.to_owned()));
                if !is_there || !written.taken.insert(*id) {
                    wrong = Some("is answered by a signal that was not sent, or twice");
                }
            }
            (Some(Answer::TimedOut), Some(name)) if !again => {
                what = Some("timed out");
                let due = written.due.get(name).copied().unwrap_or(0);
                if written.taken(name) < due {
                    wrong = Some("waits in vain, although its signal has come");
                }
                let until = written.until.get(&(name.to_owned(), entry.call.occurrence)).copied().flatten();
                if until.is_none_or(|until| until > wall + skew) {
                    wrong = Some("has its wait end before its time");
                }
            }
            _ => {}
        }
        what.into_iter().for_each(|what| self.note(what));
        self.must(same, || format!("t{t} recorded {} twice: {before:?} and {text:?}", entry.target));
        self.must(wrong.is_none(), || format!("t{t} {}", wrong.unwrap_or_default()));
    }

    fn waits(&mut self, write: &JournalWrite) {
        let t = short(write.task.0);
        let written = self.functions.written.entry(write.task).or_default();
        for call in &write.undone {
            if written.calls.get(call).is_some_and(|(_, answer)| answer.is_none()) {
                written.calls.remove(call);
            }
        }
        // one at a time
        let Some(wait) = write.waits.first() else { return };
        let came = written.came(&wait.name);
        written.due.insert(wait.name.clone(), came);
        let is_early = came > written.taken(&wait.name);
        written.waits = Some(wait.name.clone()).filter(|_| !is_early);
        let first = *written.until.entry((wait.name.clone(), wait.occurrence)).or_insert(wait.until);
        let exact = |at: Option<Timestamp>| at.map(Timestamp::as_microsecond);
        let same = exact(first) == exact(wait.until);
        self.must(same, || format!("t{t} waits until {:?}, and once until {first:?}", wait.until));
        self.note(if is_early { "signals while it was about to wait" } else { "waits" });
    }

    /// A task was sent a signal.
    pub(super) fn signalled(
        &mut self,
        store: &MemoryStore,
        task: TaskId,
        signal: &Signal,
        found: SignalFound,
    ) {
        let SignalFound::Kept(state) = found else { return };
        let written = self.functions.written.entry(task).or_default();
        if written.signals.iter().any(|(id, _)| *id == signal.id) {
            return;
        }
        written.signals.push((signal.id, signal.name.clone()));
        let waited = state == TaskState::Waiting && written.waits.as_deref() == Some(&*signal.name);
        if waited {
            let came = written.came(&signal.name);
            written.due.insert(signal.name.clone(), came);
            written.waits = None;
            let now = view(store, task).map(|view| view.state);
            self.must(now == Some(TaskState::Ready), || {
                format!("t{} is {now:?}, although its signal has come", short(task.0))
            });
        }
        self.note(if waited { "signals that were waited for" } else { "signals that came before" });
    }

    /// The answers that a function must have had which has succeeded, as far as they are recorded.
    pub(super) fn answers(&self, task: TaskId, plan: &Plan) -> Vec<String> {
        let Some(written) = self.functions.written.get(&task) else { return Vec::new() };
        let mut occurrences: BTreeMap<(String, String), u32> = BTreeMap::new();
        let calls = plan.steps.iter().filter_map(|step| {
            let n = occurrences.entry(step.asks()?).or_default();
            *n += 1;
            crate::function::call_of(*step, *n)
        });
        let answer = |call: CallId| written.calls.get(&call).and_then(|(_, answer)| answer.clone());
        calls.map(|call| answer(call).unwrap_or_else(|| "nothing".to_owned())).collect()
    }

    /// Whether it ended without a signal where it needed one.
    pub(super) fn missed(&self, task: TaskId, plan: &Plan) -> bool {
        let answers = self.answers(task, plan);
        let steps = plan.steps.iter().filter(|step| step.asks().is_some());
        let timed_out = serde_json::to_string(&Answer::TimedOut).unwrap_or_default();
        steps.zip(answers).any(|(step, answer)| matches!(step, Step::Needs(..)) && answer == timed_out)
    }
}
