//! From units to verdicts: waves of units that do not touch each other, one statement a wave.
//!
//! The statement judges each unit by itself, so units that touch the same agent, task, batch or key
//! go one after the other. An error that is a unit's own fails its whole wave: the wave is halved
//! until the culprit is alone.

use diesel::prelude::*;
use diesel_async::{AsyncPgConnection, RunQueryDsl};
use jiff::Timestamp;
use parking_lot::Mutex;
use uuid::Uuid;

use super::{
    call::{
        CommitCall, EntityArguments, EntityCall, FireCall, MoveArguments, Refused, SubscriptionArguments,
        SubscriptionCall,
    },
    durable::{Found, stored_key},
    ends::{self, is_end_alone},
    error,
    history::History,
    journal, rows,
    states::{self, is_state_alone},
    submissions,
    values::{Id, Micros, lane, micros},
    waves::waves,
};
use crate::{
    model::{
        id::TaskId,
        snapshot,
        task::{BatchNotify, ClaimId, Illegal, NewTask, TaskInput, TaskState, next},
    },
    store::{
        Finish, FinishOutcome, Guard, KeyWrite, MIXED, Refusal, StateWrite, StoreError, Unit, Verdict,
        finish::input_of,
    },
};

/// How states are kept.
pub(super) struct Keeping {
    /// Which are kept when they are overwritten.
    pub(super) history: Mutex<History>,
    /// Those of so many bytes are compressed.
    pub(super) packed_from: usize,
}

impl Keeping {
    pub(super) fn kept(&self) -> i32 {
        wire(self.history.lock().keep)
    }

    /// Whether a state is kept that is about to be overwritten. Locked for a moment only: the writers
    /// compress side by side.
    pub(super) fn keeps(&self, write: &StateWrite, now: Micros) -> bool {
        self.history.lock().keeps(write, now)
    }
}

/// How often a call is repeated for the sake of others who were in its way.
const MAX_REPEATS: usize = 3;

/// Why a unit cannot be sent at all.
fn flaw(unit: &Unit) -> Option<Refusal> {
    if unit.is_mixed() {
        return Some(Refusal::Bad(MIXED.to_owned()));
    }
    if let (Some((partition, epoch)), Some(state)) = (unit.owner, &unit.state)
        && partition == state.id.partition()
        && epoch != state.epoch
    {
        return Some(Refusal::Fenced);
    }
    if unit.schedule.is_some() && (unit.has_entities() || !unit.subscriptions.is_empty()) {
        return Some(Refusal::Bad("who moves a schedule on does nothing else".to_owned()));
    }
    // One statement would find the task as it was for both of its ends.
    let ended = twice(unit.finished.iter().map(|finish| finish.task)).map(Refusal::ClaimLost);
    ended.or_else(|| {
        let submitted = twice(unit.accepted.iter().map(|task| task.id));
        submitted.map(|id| Refusal::Bad(format!("it submits task {id} twice")))
    })
}

/// One that is there more than once.
fn twice(ids: impl Iterator<Item = TaskId>) -> Option<TaskId> {
    let mut ids: Vec<TaskId> = ids.collect();
    ids.sort_unstable();
    ids.array_windows::<2>().find(|[a, b]| a == b).map(|[id, _]| *id)
}

pub(super) fn wire(n: usize) -> i32 {
    i32::try_from(n).unwrap_or(i32::MAX)
}

/// Text as Postgres takes it.
fn text(detail: &str) -> String {
    detail.replace('\0', "\u{FFFD}")
}

/// Where an outcome leads, and from which states it may, as bits.
fn transition(finish: &Finish) -> (TaskState, i32) {
    let to = finish.outcome.state();
    let from = |state: &TaskState| match finish.guard {
        Guard::Running { .. } => *state == TaskState::Running,
        Guard::Idle => *state != TaskState::Running,
    };
    let legal = TaskState::ALL
        .into_iter()
        .filter(from)
        .filter(|state| next(*state, input_of(&finish.outcome, finish.guard, *state)) == Ok(to))
        .fold(0, |bits, state| bits | 1 << (state as i16));
    (to, legal)
}

impl<'a> CommitCall<'a> {
    fn of(boot: Uuid, units: &'a [Unit], wave: &[usize], keeping: &Keeping) -> Self {
        let mut call = Self { node: Some(Id(boot)), history: keeping.kept(), ..Self::default() };
        let now = micros(Timestamp::now());
        for n in wave {
            if let Some(unit) = units.get(*n) {
                call.unit(wire(*n), unit, keeping, now);
            }
        }
        call
    }

    fn unit(&mut self, n: i32, unit: &'a Unit, keeping: &Keeping, now: Micros) {
        if let Some((partition, epoch)) = unit.owner {
            self.owner(n, partition, epoch);
        }
        if let Some(state) = &unit.state {
            self.owner(n, state.id.partition(), state.epoch);
            self.s_unit.push(n);
            self.s_id.push(state.id.into());
            self.s_partition.push(state.id.partition());
            self.s_kind.push(&state.kind);
            self.s_key.push(&state.key);
            self.s_epoch.push(state.epoch);
            self.s_base.push(state.base_version);
            self.s_schema.push(i64::from(state.schema_version));
            self.s_state.push(snapshot::pack(&state.bytes, keeping.packed_from));
            self.s_keep.push(state.base_version > 0 && keeping.keeps(state, now));
            if !is_state_alone(unit) {
                self.s_judged.push(state.id.into());
            }
        }
        unit.finished.iter().for_each(|finish| self.finish(n, finish));
        unit.keys.iter().for_each(|key| self.key(n, key));
        unit.accepted.iter().for_each(|task| self.task(n, task));
        for batch in &unit.batches {
            self.b_unit.push(n);
            self.b_id.push(batch.id.into());
            self.b_size.push(i64::try_from(batch.size).unwrap_or(i64::MAX));
            self.b_notify.push(rows::batch_notify_text(batch.notify.as_ref()));
            self.b_partition.push(batch.notify.as_ref().and_then(|notify| match notify {
                BatchNotify::Agent(notify) => Some(notify.target.partition()),
                BatchNotify::Function { .. } => None,
            }));
        }
    }

    fn owner(&mut self, n: i32, partition: i16, epoch: i64) {
        let known = (self.o_unit.last(), self.o_partition.last(), self.o_epoch.last());
        if known != (Some(&n), Some(&partition), Some(&epoch)) {
            self.o_unit.push(n);
            self.o_partition.push(partition);
            self.o_epoch.push(epoch);
        }
    }

    fn finish(&mut self, n: i32, finish: &'a Finish) {
        let (to, legal) = transition(finish);
        self.f_unit.push(n);
        self.f_task.push(finish.task.into());
        self.f_attempt.push(match finish.guard {
            Guard::Running { attempt } => i64::from(attempt),
            Guard::Idle => -1,
        });
        self.f_from.push(legal);
        self.f_to.push(to as i16);
        let note = finish.note.as_deref();
        let (mut run_at, mut result, mut error) = (None, None, None);
        let (event, detail) = match &finish.outcome {
            FinishOutcome::Succeeded { result: reply } => {
                result = Some(reply.as_slice());
                (note.map(|_| to.name()), note)
            }
            FinishOutcome::Failed { error: why } => {
                error = Some(rows::error_bytes(why));
                (note.map(|_| to.name()), note)
            }
            FinishOutcome::Cancelled => (note.map(|_| to.name()), note),
            FinishOutcome::Retry { run_at: at, error: why } => {
                (run_at, error) = (Some(micros(*at)), Some(rows::error_bytes(why)));
                (Some("retry"), note.or(Some(&why.message)))
            }
            FinishOutcome::OutcomeUnknown { error: why } => {
                error = Some(rows::error_bytes(why));
                (Some("outcome_unknown"), note.or(Some(&why.message)))
            }
            FinishOutcome::Parked => (Some("parked"), note),
        };
        self.f_run_at.push(run_at);
        self.f_result.push(result);
        self.f_error.push(error);
        self.f_event.push(event);
        self.f_detail.push(detail.map(text));
    }

    fn key(&mut self, n: i32, key: &'a KeyWrite) {
        self.k_unit.push(n);
        self.k_scope.push(Id(key.scope));
        self.k_key.push(&key.key);
        self.k_request.push(&key.request);
        self.k_task.push(key.task.map(Id::from));
        self.k_reply.push(key.reply.as_deref());
        self.k_expires_at.push(micros(key.expires_at));
    }

    fn task(&mut self, n: i32, task: &'a NewTask) {
        let texts = rows::Texts::of(task);
        self.n_unit.push(n);
        self.n_id.push(task.id.into());
        self.n_partition.push(task.target.partition());
        self.n_lane.push(lane::of(&task.target));
        self.n_target.push(texts.target);
        self.n_message.push(&task.message);
        self.n_priority.push(task.priority);
        self.n_run_at.push(task.run_at.map(micros));
        self.n_max_attempts.push(i64::from(task.max_attempts.max(1)));
        self.n_timeout_ms.push(task.timeout.map(|t| i64::try_from(t.as_millis()).unwrap_or(i64::MAX)));
        self.n_run_after_failure.push(task.on_parent_failed == crate::model::task::OnParentFailed::Run);
        self.n_notify.push(texts.notify);
        self.n_batch.push(task.batch.map(Id::from));
        self.n_parent.push(task.parent.map(Id::from));
        self.n_tags.push(texts.tags);
        self.n_expires_at.push(task.expires_at.map(micros));
        self.n_idempotency_key.push(task.idempotency_key.as_deref());
        self.n_input.push(task.input.get().as_bytes());
        for parent in &task.after {
            self.d_unit.push(n);
            self.d_child.push(task.id.into());
            self.d_parent.push((*parent).into());
        }
    }

    /// What a row of the answer means.
    fn refusal(&self, units: &[Unit], (n, reason, id, code): Refused) -> Why {
        let of = |id: Option<Id>| id.map_or(TaskId(Uuid::nil()), Into::into);
        match reason {
            1 => Why::Refused(Refusal::Fenced),
            2 => Why::Refused(Refusal::ClaimLost(of(id))),
            3 => Why::Refused(Refusal::Bad(illegal(units, n, of(id), code))),
            4 => Why::Refused(Refusal::ParentUnknown(of(id))),
            5 => {
                let at = usize::try_from(code).ok().and_then(|o| o.checked_sub(1));
                let key =
                    at.and_then(|at| Some((self.k_scope.get(at)?.0, (*self.k_key.get(at)?).to_owned())));
                Why::KeyTaken(key.unwrap_or_default())
            }
            _ => Why::Known,
        }
    }
}

/// The words for an end that a task's state does not allow.
fn illegal(units: &[Unit], n: i32, task: TaskId, state: i32) -> String {
    let finish = usize::try_from(n).ok().and_then(|n| units.get(n)?.finished.iter().find(|f| f.task == task));
    let state = i16::try_from(state).ok().and_then(TaskState::from_code);
    match (finish, state) {
        (Some(finish), Some(state)) => {
            let input: TaskInput = input_of(&finish.outcome, finish.guard, state);
            Illegal { state, input }.to_string()
        }
        _ => format!("task {task} cannot end so"),
    }
}

/// The reason of a unit whose schedule is not as it was read.
const MOVED: i16 = 10;

/// What a statement said of its units; of those that it does not name, that they are durable.
#[derive(Default)]
pub(super) struct Said {
    pub(super) refused: Vec<(usize, Why)>,
    /// Which have begun their task: its place, and the claim.
    pub(super) begun: Vec<(usize, i64, i64)>,
}

impl Said {
    fn refused(refused: impl IntoIterator<Item = (usize, Why)>) -> Self {
        Self { refused: refused.into_iter().collect(), begun: Vec::new() }
    }
}

/// Why the statement refused a unit.
pub(super) enum Why {
    Refused(Refusal),
    KeyTaken((Uuid, String)),
    /// Something that it brings is there already.
    Known,
}

/// Commits units, each with its own verdict.
pub(super) async fn commit(
    conn: &mut AsyncPgConnection,
    keeping: &Keeping,
    boot: Uuid,
    units: &[Unit],
) -> Result<Vec<Verdict>, StoreError> {
    let mut verdicts = vec![Verdict::Durable; units.len()];
    for wave in waves(units) {
        let mut sound = Vec::with_capacity(wave.len());
        for n in wave {
            match units.get(n).and_then(flaw) {
                Some(refusal) => set(&mut verdicts, n, Verdict::Refused(refusal)),
                None => sound.push(n),
            }
        }
        // Journals have a statement of their own; whoever moves a schedule on is judged with it, and goes alone.
        let is_journal = |n: &usize| units.get(*n).is_some_and(|unit| unit.journal.is_some());
        let fires = |n: &usize| units.get(*n).is_some_and(|unit| unit.schedule.is_some());
        let (journals, rest): (Vec<_>, Vec<_>) = sound.into_iter().partition(is_journal);
        let (firing, rest): (Vec<_>, Vec<_>) = rest.into_iter().partition(fires);
        let alone = firing.into_iter().map(|n| vec![n]);
        for wave in [rest, journals].into_iter().filter(|wave| !wave.is_empty()).chain(alone) {
            halve(conn, keeping, boot, units, wave, &mut verdicts).await?;
        }
    }
    Ok(verdicts)
}

fn set(verdicts: &mut [Verdict], n: usize, verdict: Verdict) {
    if let Some(v) = verdicts.get_mut(n) {
        *v = verdict;
    }
}

/// Sends a wave; where one of its units breaks the statement, looks for it.
async fn halve(
    conn: &mut AsyncPgConnection,
    keeping: &Keeping,
    boot: Uuid,
    units: &[Unit],
    wave: Vec<usize>,
    verdicts: &mut [Verdict],
) -> Result<(), StoreError> {
    let mut open = vec![wave];
    let mut repeats = 0;
    while let Some(mut wave) = open.pop() {
        if wave.is_empty() {
            continue;
        }
        match send(conn, keeping, boot, units, &wave).await {
            Ok(Said { refused, begun }) => {
                for (n, seq, claim) in begun {
                    set(verdicts, n, Verdict::Begun { seq, claim: ClaimId(claim) });
                }
                judge(conn, boot, units, refused, verdicts).await?;
            }
            // The loser of a deadlock, or a race that a second look decides.
            Err(e) if error::is_race(&e) && repeats < MAX_REPEATS => {
                repeats += 1;
                open.push(wave);
            }
            Err(e) if error::is_units_own(&e) => {
                if wave.len() == 1 && repeats < MAX_REPEATS {
                    // what broke it may have been another's row, which a second look judges
                    repeats = MAX_REPEATS;
                    open.push(wave);
                } else if let [n] = *wave {
                    judge(conn, boot, units, vec![(n, Why::Refused(Refusal::Bad(e.to_string())))], verdicts)
                        .await?;
                } else {
                    let behind = wave.split_off(wave.len() / 2);
                    open.push(behind);
                    open.push(wave);
                }
            }
            Err(e) => return Err(error::of_commit(&e)),
        }
    }
    Ok(())
}

/// One statement: what it said of the wave.
async fn send(
    conn: &mut AsyncPgConnection,
    keeping: &Keeping,
    boot: Uuid,
    units: &[Unit],
    wave: &[usize],
) -> QueryResult<Said> {
    if wave.iter().all(|n| units.get(*n).is_some_and(is_state_alone)) {
        let fenced = states::write(conn, keeping, units, wave).await?;
        return Ok(Said::refused(fenced.into_iter().map(|n| (n, Why::Refused(Refusal::Fenced)))));
    }
    if wave.iter().all(|n| units.get(*n).is_some_and(is_end_alone)) {
        let lost = ends::end(conn, boot, units, wave).await?;
        return Ok(Said::refused(lost.into_iter().map(claim_lost)));
    }
    if wave.iter().all(|n| units.get(*n).is_some_and(Unit::is_submission_alone)) {
        let tasks = CommitCall::of(boot, units, wave, keeping);
        return submissions::submit(conn, tasks, units).await;
    }
    if wave.iter().any(|n| units.get(*n).is_some_and(|unit| unit.journal.is_some())) {
        let lost = journal::record(conn, boot, units, wave).await?;
        return Ok(Said::refused(lost.into_iter().map(claim_lost)));
    }
    let rest = CommitCall::of(boot, units, wave, keeping);
    if let [n] = *wave
        && let Some(to) = units.get(n).and_then(|unit| unit.schedule.as_ref())
    {
        let call = FireCall { to: MoveArguments::of(n, to), rest };
        let refused: Vec<Refused> = RunQueryDsl::load(&call, conn).await?;
        let why = |row: Refused| match row.1 {
            MOVED => (n, Why::Refused(Refusal::ScheduleMoved(to.name.clone()))),
            _ => (n, call.rest.refusal(units, row)),
        };
        return Ok(Said::refused(refused.into_iter().map(why)));
    }
    let rest = EntityCall { entities: EntityArguments::of(units, wave), rest };
    let call = SubscriptionCall { subscriptions: SubscriptionArguments::of(units, wave), rest };
    let EntityCall { entities, rest } = &call.rest;
    // The smallest call that does it: the more arguments, the more there is to read.
    let refused: Vec<Refused> = if !call.subscriptions.is_empty() {
        RunQueryDsl::load(&call, conn).await?
    } else if !entities.is_empty() {
        RunQueryDsl::load(&call.rest, conn).await?
    } else {
        RunQueryDsl::load(rest, conn).await?
    };
    let why = |row: Refused| {
        let found = entities.refusal(row).map(Why::Refused);
        Some((usize::try_from(row.0).ok()?, found.unwrap_or_else(|| rest.refusal(units, row))))
    };
    Ok(Said::refused(refused.into_iter().filter_map(why)))
}

fn claim_lost((n, task): (usize, TaskId)) -> (usize, Why) {
    (n, Why::Refused(Refusal::ClaimLost(task)))
}

/// Refused units may be durable since an earlier try.
async fn judge(
    conn: &mut AsyncPgConnection,
    boot: Uuid,
    units: &[Unit],
    refused: Vec<(usize, Why)>,
    verdicts: &mut [Verdict],
) -> Result<(), StoreError> {
    let statement = |e| error::of_statement(&e);
    let refused: Vec<_> = refused.into_iter().filter_map(|(n, why)| Some((n, units.get(n)?, why))).collect();
    let those: Vec<&Unit> = refused.iter().map(|(_, unit, _)| *unit).collect();
    let found = Found::of(conn, &those).await.map_err(statement)?;
    for (n, unit, why) in refused {
        if found.is_durable(boot, unit) {
            continue;
        }
        let refusal = match why {
            Why::Refused(refusal) => refusal,
            Why::Known => Refusal::Bad("something that it submits is known already".to_owned()),
            Why::KeyTaken((scope, key)) => match stored_key(conn, scope, &key).await.map_err(statement)? {
                Some(row) => Refusal::KeyTaken(row),
                None => return Err(StoreError::NotDone("an idempotency key expired meanwhile".to_owned())),
            },
        };
        set(verdicts, n, Verdict::Refused(refusal));
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn legal_origins_are_what_the_machine_says() {
        let finish = |guard, outcome| Finish { task: TaskId::fresh(), guard, outcome, note: None };
        let bit = |state: TaskState| 1 << (state as i16);
        let running = finish(Guard::Running { attempt: 1 }, FinishOutcome::Cancelled);
        assert_eq!(transition(&running), (TaskState::Cancelled, bit(TaskState::Running)));
        let resolved = finish(Guard::Idle, FinishOutcome::Succeeded { result: Vec::new() });
        assert_eq!(transition(&resolved), (TaskState::Succeeded, bit(TaskState::OutcomeUnknown)));
        let parked = finish(Guard::Idle, FinishOutcome::Parked);
        let expected = bit(TaskState::Scheduled) | bit(TaskState::Ready);
        assert_eq!(transition(&parked), (TaskState::Parked, expected));
    }
}
