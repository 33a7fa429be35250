//! What task functions write, as [`crate::store::Journals`] says.

use std::collections::HashSet;

use diesel::{dsl::sql as written, prelude::*, sql_types::Binary, upsert::excluded};
use jiff::Timestamp;
use uuid::Uuid;

use super::{
    claim::whole,
    commit::Stop,
    error,
    rows::state_of,
    tx::{Sync, Tx, Writer},
    values::{RUNNING, WAITING, lane, micros},
};
use crate::{
    model::{
        journal::{JournalWrite, MAX_SIGNALS, TaskNotes},
        task::{TaskInput, TaskState, next},
    },
    store::{
        Refusal, SignalFound,
        journal::{TAKING_BYTES, journal_reads, place, taking},
        schema::{greenroom_task_archive, greenroom_tasks},
    },
};

fn sql(e: diesel::result::Error) -> StoreError {
    error::of_statement(&e)
}

journal_reads!(SqliteConnection, [], []);

/// How many waits one call ends.
const ENDED_AT_ONCE: i64 = 1_000;

impl Writer {
    /// Keeps a signal.
    pub(super) fn signal(
        &mut self,
        task: TaskId,
        signal: &Signal,
    ) -> Result<Option<SignalFound>, StoreError> {
        self.transaction(Sync::Full, Timestamp::now(), |tx| tx.signal(task, signal).map_err(whole))
    }

    /// Writes down what tasks say of themselves.
    pub(super) fn note(&mut self, notes: &[TaskNotes]) -> Result<(), StoreError> {
        self.transaction(Sync::Lazy, Timestamp::now(), |tx| {
            notes.iter().try_for_each(|note| tx.note(note)).map_err(|e| error::of_statement(&e))
        })
    }
}

impl Tx<'_> {
    /// Records what a task function has come to, under the guard of its claim.
    pub(super) fn record(&mut self, boot: Uuid, write: &JournalWrite) -> Result<(), Stop> {
        use greenroom_tasks::dsl;
        let id = Id::from(write.task);
        let mine = dsl::greenroom_tasks
            .filter(dsl::id.eq(id))
            .filter(dsl::state.eq(RUNNING))
            .filter(dsl::claim.eq(write.claim.0))
            .filter(dsl::node.eq(Id(boot)))
            .select((dsl::rowid, dsl::cancel));
        let claim = mine.first::<(i64, bool)>(self.conn).optional()?;
        let (rowid, cancel) = claim.ok_or(Refusal::ClaimLost(write.task))?;
        for entry in &write.entries {
            self.entry(id, entry)?;
        }
        for call in &write.undone {
            let key = (id, call.hash.as_slice(), i64::from(call.occurrence));
            diesel::delete(greenroom_journal::table.find(key).filter(greenroom_journal::answer.is_null()))
                .execute(self.conn)?;
        }
        if write.waits.is_empty() { Ok(()) } else { self.wait(rowid, cancel, write) }
    }

    fn entry(&mut self, task: Id, entry: &Entry) -> Result<(), Stop> {
        use greenroom_journal::dsl;
        let answer = entry.answer.as_ref().map(serde_json::to_vec).transpose();
        let answer = answer.map_err(|e| Refusal::Bad(e.to_string()))?;
        let row = (
            dsl::task.eq(task),
            dsl::hash.eq(entry.call.hash.as_slice()),
            dsl::occurrence.eq(i64::from(entry.call.occurrence)),
            dsl::target.eq(&entry.target),
            dsl::ordinal.eq(place(entry)),
            dsl::answer.eq(&answer),
            dsl::at.eq(self.now),
        );
        let made = diesel::insert_into(dsl::greenroom_journal)
            .values(row)
            .on_conflict_do_nothing()
            .execute(self.conn)?;
        if made == 0 && answer.is_some() {
            let known = dsl::greenroom_journal
                .find((task, entry.call.hash.as_slice(), i64::from(entry.call.occurrence)))
                .filter(dsl::answer.is_null());
            diesel::update(known).set(dsl::answer.eq(answer)).execute(self.conn)?;
        }
        Ok(())
    }

    /// The attempt ends, and is given back: the task waits, or is ready where a signal has come meanwhile.
    fn wait(&mut self, rowid: i64, cancel: bool, write: &JournalWrite) -> Result<(), Stop> {
        use greenroom_signals::dsl as s;
        use greenroom_tasks::dsl;
        use greenroom_waits::dsl as w;
        let id = Id::from(write.task);
        let mut come = false;
        for wait in &write.waits {
            let sent = s::greenroom_signals.filter(s::task.eq(id)).filter(s::name.eq(&wait.name));
            come |= sent.count().get_result::<i64>(self.conn)? > i64::from(wait.seen);
        }
        // what it waited for before is over
        let earlier = w::greenroom_waits.filter(w::task.eq(id)).filter(w::open.eq(true));
        diesel::update(earlier).set(w::open.eq(false)).execute(self.conn)?;
        for wait in &write.waits {
            diesel::insert_into(w::greenroom_waits)
                .values((
                    w::task.eq(id),
                    w::name.eq(&wait.name),
                    w::occurrence.eq(i64::from(wait.occurrence)),
                    w::until.eq(wait.until.map(micros)),
                    w::open.eq(!come),
                ))
                .on_conflict((w::task, w::name, w::occurrence))
                .do_update()
                .set((w::until.eq(excluded(w::until)), w::open.eq(excluded(w::open))))
                .execute(self.conn)?;
        }
        let to = step(TaskState::Running, TaskInput::WaitFor)?;
        let to = if come { step(to, TaskInput::Signalled)? } else { to };
        let seq = if come { Some(self.next_seq()?) } else { None };
        let row = dsl::greenroom_tasks.filter(dsl::rowid.eq(rowid));
        let running = row.select((dsl::attempt, dsl::started_at, dsl::node));
        let (attempt, started_at, node) = running.first::<(i64, Option<Micros>, Option<Id>)>(self.conn)?;
        diesel::update(row)
            .set((
                dsl::state.eq(to as i16),
                seq.map(|seq| (dsl::seq.eq(seq), dsl::run_at.eq(self.now))),
                // It has started in time.
                dsl::expires_at.eq(None::<Micros>),
                dsl::attempt.eq(attempt - 1),
                dsl::node.eq(None::<Id>),
                dsl::alone.eq(false),
                cancel.then_some(dsl::lane.eq(lane::CANCELLED)),
            ))
            .execute(self.conn)?;
        self.deltas.task(TaskState::Running, -1);
        self.deltas.task(to, 1);
        let mut names: Vec<&str> = write.waits.iter().map(|wait| &*wait.name).collect();
        names.sort_unstable();
        names.dedup();
        self.began(id, started_at, attempt, node.map(|n| n.0))?;
        self.event(id, "waiting", attempt, None, Some(&format!("for {}", names.join(", "))))?;
        Ok(())
    }

    fn signal(&mut self, task: TaskId, signal: &Signal) -> Result<Option<SignalFound>, Stop> {
        use greenroom_signals::dsl as s;
        use greenroom_task_archive::dsl as a;
        use greenroom_tasks::dsl;
        let id = Id::from(task);
        let hot = dsl::greenroom_tasks
            .filter(dsl::id.eq(id))
            .select((dsl::rowid, dsl::state, dsl::attempt))
            .first::<(i64, i16, i64)>(self.conn)
            .optional()?;
        let Some((rowid, state, attempt)) = hot else {
            let archived = a::greenroom_task_archive.filter(a::id.eq(id)).select(a::state);
            let ended = archived.first::<i16>(self.conn).optional()?;
            return Ok(ended.map(state_of).transpose()?.map(SignalFound::Final));
        };
        let state = state_of(state)?;
        let sent: Vec<Id> = s::greenroom_signals.filter(s::task.eq(id)).select(s::id).load(self.conn)?;
        if sent.contains(&Id(signal.id)) {
            return Ok(Some(SignalFound::Kept(state)));
        }
        if sent.len() >= MAX_SIGNALS && self.untaken(id, &sent)? >= MAX_SIGNALS {
            return Ok(Some(SignalFound::TooMany));
        }
        self.keep_signal(id, signal)?;
        self.event(id, "signalled", attempt, None, Some(&signal.name))?;
        if state == TaskState::Waiting && self.is_wanted(id, &signal.name)? {
            self.wake(rowid, id, TaskInput::Signalled)?;
        }
        Ok(Some(SignalFound::Kept(state)))
    }

    /// How many of a task's signals have answered none of its waits.
    fn untaken(&mut self, task: Id, sent: &[Id]) -> QueryResult<usize> {
        use greenroom_journal::dsl;
        let begins = written::<Binary>(&format!("substr(answer, 1, {TAKING_BYTES})"));
        let answered = dsl::greenroom_journal.filter(dsl::task.eq(task)).filter(dsl::answer.is_not_null());
        let taken: HashSet<Vec<u8>> =
            answered.select(begins).load_iter(self.conn)?.collect::<Result<_, _>>()?;
        Ok(sent.iter().filter(|signal| !taken.contains(&taking(signal.0))).count())
    }

    /// Keeps the signal that a batch has ended for the function that submitted it, also where that has ended.
    pub(super) fn keep_joined(&mut self, task: TaskId, signal: &Signal) -> Result<(), Stop> {
        use greenroom_task_archive::dsl as a;
        use greenroom_tasks::dsl;
        let id = Id::from(task);
        let row = dsl::greenroom_tasks.filter(dsl::id.eq(id)).select((dsl::rowid, dsl::state));
        let hot = row.first::<(i64, i16)>(self.conn).optional()?;
        let archived = a::greenroom_task_archive.filter(a::id.eq(id)).count();
        if hot.is_none() && archived.get_result::<i64>(self.conn)? == 0 {
            return Ok(());
        }
        self.keep_signal(id, signal)?;
        match hot {
            Some((rowid, state))
                if state == TaskState::Waiting as i16 && self.is_wanted(id, &signal.name)? =>
            {
                self.wake(rowid, id, TaskInput::Signalled)
            }
            _ => Ok(()),
        }
    }

    fn keep_signal(&mut self, task: Id, signal: &Signal) -> QueryResult<()> {
        use greenroom_signals::dsl as s;
        diesel::insert_into(s::greenroom_signals)
            .values((
                s::task.eq(task),
                s::name.eq(&signal.name),
                s::id.eq(Id(signal.id)),
                s::body.eq(signal.body.get().as_bytes()),
                s::at.eq(self.now),
            ))
            .on_conflict_do_nothing()
            .execute(self.conn)
            .map(drop)
    }

    /// Whether a task waits for a signal of this name.
    fn is_wanted(&mut self, task: Id, name: &str) -> QueryResult<bool> {
        use greenroom_waits::dsl as w;
        let open = w::greenroom_waits.filter(w::task.eq(task)).filter(w::open.eq(true));
        Ok(open.filter(w::name.eq(name)).count().get_result::<i64>(self.conn)? > 0)
    }

    /// A task that waits goes on.
    fn wake(&mut self, rowid: i64, id: Id, why: TaskInput) -> Result<(), Stop> {
        use greenroom_tasks::dsl;
        let to = step(TaskState::Waiting, why)?;
        let seq = self.next_seq()?;
        diesel::update(dsl::greenroom_tasks.filter(dsl::rowid.eq(rowid)))
            .set((dsl::state.eq(to as i16), dsl::seq.eq(seq), dsl::run_at.eq(self.now)))
            .execute(self.conn)?;
        self.deltas.task(TaskState::Waiting, -1);
        self.deltas.task(to, 1);
        self.close_waits(id)?;
        Ok(())
    }

    fn close_waits(&mut self, id: Id) -> QueryResult<usize> {
        use greenroom_waits::dsl;
        let open = dsl::greenroom_waits.filter(dsl::task.eq(id)).filter(dsl::open.eq(true));
        diesel::update(open).set(dsl::open.eq(false)).execute(self.conn)
    }

    /// Lets tasks go on whose wait has ended without a signal; says how many.
    pub(super) fn end_waits(&mut self) -> Result<u64, Stop> {
        use greenroom_tasks::dsl;
        let mut woken = 0;
        let mut due = due_waits(self.conn, self.now, ENDED_AT_ONCE)?;
        due.sort_unstable_by_key(|id| id.0);
        for id in due {
            let waits = dsl::greenroom_tasks.filter(dsl::id.eq(id)).filter(dsl::state.eq(WAITING));
            match waits.select(dsl::rowid).first::<i64>(self.conn).optional()? {
                Some(rowid) => {
                    self.wake(rowid, id, TaskInput::WaitEnded)?;
                    woken += 1;
                }
                None => drop(self.close_waits(id)?),
            }
        }
        Ok(woken)
    }

    fn note(&mut self, note: &TaskNotes) -> QueryResult<()> {
        use greenroom_task_logs::dsl as l;
        use greenroom_task_progress::dsl as p;
        let (id, at) = (Id::from(note.task), micros(note.at));
        if let Some(progress) = &note.progress {
            diesel::insert_into(p::greenroom_task_progress)
                .values((p::task.eq(id), p::at.eq(at), p::progress.eq(progress.get().as_bytes())))
                .on_conflict(p::task)
                .do_update()
                .set((p::at.eq(excluded(p::at)), p::progress.eq(excluded(p::progress))))
                .execute(self.conn)?;
        }
        for line in &note.logs {
            diesel::insert_into(l::greenroom_task_logs)
                .values((
                    l::task.eq(id),
                    l::at.eq(micros(line.at)),
                    l::level.eq(line.level as i16),
                    l::text.eq(&line.text),
                ))
                .execute(self.conn)?;
        }
        Ok(())
    }

    /// Forgets what tasks wrote that are forgotten themselves.
    pub(super) fn forget_written(&mut self, tasks: &[Id]) -> QueryResult<()> {
        for id in tasks {
            let id = *id;
            diesel::delete(greenroom_journal::table.filter(greenroom_journal::task.eq(id)))
                .execute(self.conn)?;
            diesel::delete(greenroom_waits::table.filter(greenroom_waits::task.eq(id))).execute(self.conn)?;
            diesel::delete(greenroom_signals::table.filter(greenroom_signals::task.eq(id)))
                .execute(self.conn)?;
            diesel::delete(greenroom_task_progress::table.filter(greenroom_task_progress::task.eq(id)))
                .execute(self.conn)?;
            diesel::delete(greenroom_task_logs::table.filter(greenroom_task_logs::task.eq(id)))
                .execute(self.conn)?;
        }
        Ok(())
    }

    /// Forgets what a task had begun: a person has said that it may be done again.
    pub(super) fn forget_begun(&mut self, id: Id) -> QueryResult<()> {
        use greenroom_journal::dsl;
        let begun = dsl::greenroom_journal.filter(dsl::task.eq(id)).filter(dsl::answer.is_null());
        diesel::delete(begun).execute(self.conn).map(drop)
    }
}

fn step(from: TaskState, input: TaskInput) -> Result<TaskState, Stop> {
    next(from, input).map_err(|e| Refusal::Bad(e.to_string()).into())
}

/// Tasks with waits that have ended without a signal.
pub(super) fn due_waits(conn: &mut SqliteConnection, now: Micros, limit: i64) -> QueryResult<Vec<Id>> {
    use greenroom_waits::dsl;
    dsl::greenroom_waits
        .filter(diesel::dsl::sql::<diesel::sql_types::Bool>("open"))
        .filter(dsl::until.is_not_null())
        .filter(dsl::until.le(now))
        .select(dsl::task)
        .distinct()
        .limit(limit)
        .load(conn)
}
