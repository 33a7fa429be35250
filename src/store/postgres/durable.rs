//! Which refused units are in fact durable since an earlier try.

use std::collections::{HashMap, HashSet};

use diesel::prelude::*;
use diesel_async::{AsyncPgConnection, RunQueryDsl};
use uuid::Uuid;

use super::{
    entities, read, schedules,
    values::{Id, micros},
};
use crate::{
    clock,
    model::snapshot,
    store::{
        Finish, KeyRow, KeyWrite, Unit,
        finish::is_own,
        schema::{greenroom_agents, greenroom_idempotency, greenroom_task_archive, greenroom_tasks},
    },
};

/// A key that has not expired.
pub(super) async fn stored_key(
    conn: &mut AsyncPgConnection,
    scope: Uuid,
    key: &str,
) -> QueryResult<Option<KeyRow>> {
    read::stored_key(conn, scope, key, micros(clock::now())).await
}

/// What the store has of some units. A lost answer is that of a whole batch: they are looked up together,
/// in a few statements however many they are.
#[derive(Default)]
pub(super) struct Found {
    /// Epoch, version and state: an operator may have written that version too.
    states: HashMap<Id, (i64, i64, Vec<u8>)>,
    /// State and attempt.
    hot: HashMap<Id, (i16, i64)>,
    /// State, attempt, and who ended it.
    archived: HashMap<Id, (i16, i64, Option<Id>)>,
    keys: HashMap<(Id, String), KeyRow>,
    /// With their conversations.
    messages: HashSet<(Id, Id)>,
    schedules: schedules::Places,
}

/// What a unit is known by: the first of these that it has decides.
enum Mark<'a> {
    State(Id, (i64, i64), &'a [u8]),
    Accepted(Vec<Id>),
    Rest(&'a Unit),
}

fn mark(unit: &Unit) -> Mark<'_> {
    match &unit.state {
        Some(write) => {
            let made = (write.epoch, write.base_version.saturating_add(1));
            Mark::State(write.id.into(), made, &write.bytes)
        }
        None if !unit.accepted.is_empty() => {
            Mark::Accepted(unit.accepted.iter().map(|task| task.id.into()).collect())
        }
        None => Mark::Rest(unit),
    }
}

impl Found {
    /// Looks units up.
    pub(super) async fn of(conn: &mut AsyncPgConnection, units: &[&Unit]) -> QueryResult<Self> {
        let (mut states, mut epochs, mut tasks, mut keys, mut messages, mut moved) =
            (Vec::new(), Vec::new(), Vec::new(), Vec::new(), Vec::new(), Vec::new());
        for unit in units {
            match mark(unit) {
                Mark::State(id, (epoch, _), _) => {
                    states.push(id);
                    epochs.push(epoch);
                }
                Mark::Accepted(ids) => tasks.extend(ids),
                Mark::Rest(unit) => {
                    tasks.extend(unit.finished.iter().map(|finish| Id::from(finish.task)));
                    keys.extend(&unit.keys);
                    messages.extend(unit.messages.iter().map(|message| Id(message.id.0)));
                    moved.extend(unit.schedule.iter().map(|to| &*to.name));
                }
            }
        }
        let mut found = Self::default();
        if !states.is_empty() {
            use greenroom_agents::dsl;
            // of a former owner's units none is read: the rows are of another epoch
            let rows = dsl::greenroom_agents.filter(dsl::id.eq_any(states)).filter(dsl::epoch.eq_any(epochs));
            let rows = rows.select((dsl::id, (dsl::epoch, dsl::version, dsl::state)));
            let rows = RunQueryDsl::load::<(Id, (i64, i64, Vec<u8>))>(rows, conn).await?;
            let unpacked = |(id, (e, v, state))| (id, (e, v, snapshot::unpack(state)));
            found.states.extend(rows.into_iter().map(unpacked));
        }
        if !tasks.is_empty() {
            use greenroom_task_archive::dsl as a;
            use greenroom_tasks::dsl as t;
            let hot = t::greenroom_tasks.filter(t::id.eq_any(&tasks)).select((t::id, (t::state, t::attempt)));
            found.hot.extend(RunQueryDsl::load::<(Id, (i16, i64))>(hot, conn).await?);
            let archived = a::greenroom_task_archive.filter(a::id.eq_any(&tasks));
            let archived = archived.select((a::id, (a::state, a::attempt, a::node)));
            found.archived.extend(RunQueryDsl::load::<(Id, (i16, i64, Option<Id>))>(archived, conn).await?);
        }
        if !keys.is_empty() {
            found.keys = stored_keys(conn, &keys).await?;
        }
        if !messages.is_empty() {
            found.messages = entities::appended(conn, messages).await?;
        }
        if !moved.is_empty() {
            found.schedules = schedules::places(conn, &moved).await?;
        }
        Ok(found)
    }

    /// Whether this very unit has been committed before.
    pub(super) fn is_durable(&self, boot: Uuid, unit: &Unit) -> bool {
        match mark(unit) {
            Mark::State(id, (epoch, version), bytes) => self
                .states
                .get(&id)
                .is_some_and(|(e, v, state)| (*e, *v) == (epoch, version) && state == bytes),
            Mark::Accepted(ids) => {
                ids.iter().all(|id| self.hot.contains_key(id) || self.archived.contains_key(id))
            }
            Mark::Rest(Unit { schedule: Some(to), .. }) => schedules::is_moved(&self.schedules, to),
            Mark::Rest(Unit { finished, keys, messages, .. }) => {
                let key = |write: &KeyWrite| (Id(write.scope), write.key.clone());
                finished.iter().all(|finish| self.is_finished(boot, finish))
                    && keys
                        .iter()
                        .all(|write| self.keys.get(&key(write)).is_some_and(|row| is_own(row, write)))
                    && messages.iter().all(|m| self.messages.contains(&(Id(m.id.0), Id(m.conversation.0))))
                    && !(finished.is_empty() && keys.is_empty() && messages.is_empty())
            }
        }
    }

    /// Whether this very finish has been committed before.
    fn is_finished(&self, boot: Uuid, finish: &Finish) -> bool {
        let (id, to) = (Id::from(finish.task), finish.outcome.state());
        let wanted = finish.attempt_after();
        if !to.is_final() {
            let row = self.hot.get(&id);
            return row.is_some_and(|(s, n)| *s == to as i16 && wanted.is_none_or(|w| w == *n));
        }
        let by_us = |node: &Option<Id>| *node == Some(Id(boot));
        let row = self.archived.get(&id);
        row.is_some_and(|(s, n, node)| *s == to as i16 && wanted.is_none_or(|w| w == *n && by_us(node)))
    }
}

/// Those of the keys that have not expired.
async fn stored_keys(
    conn: &mut AsyncPgConnection,
    writes: &[&KeyWrite],
) -> QueryResult<HashMap<(Id, String), KeyRow>> {
    use greenroom_idempotency::dsl;
    type Row = (Id, String, Vec<u8>, Option<Id>, Option<Vec<u8>>);
    // each scope with each key: a few too many do no harm
    let (scopes, keys): (Vec<Id>, Vec<&str>) = writes.iter().map(|w| (Id(w.scope), &*w.key)).unzip();
    let rows = dsl::greenroom_idempotency
        .filter(dsl::scope.eq_any(scopes))
        .filter(dsl::key.eq_any(keys))
        .filter(dsl::expires_at.gt(micros(clock::now())))
        .select((dsl::scope, dsl::key, dsl::request, dsl::task, dsl::reply));
    let rows: Vec<Row> = RunQueryDsl::load(rows, conn).await?;
    let row = |(scope, key, request, task, reply): Row| {
        let request = request.try_into().unwrap_or_default();
        ((scope, key), KeyRow { request, task: task.map(Into::into), reply })
    };
    Ok(rows.into_iter().map(row).collect())
}
