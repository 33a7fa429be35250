//! Reads, once for every database.
//!
//! `reads!` makes the functions for one connection: synchronous ones for SQLite, asynchronous ones for
//! Postgres. The module that calls it gives `sql`, which turns diesel's errors into the store's.

/// At most so many rows a page.
pub(super) const MAX_PAGE: usize = 1_000;
/// So many tasks of either table are looked at for a page of those that a filter means.
pub(super) const SCAN_LIMIT: i64 = 10_000;

/// A page's size as the databases want it.
pub(super) fn page(limit: usize) -> i64 {
    i64::try_from(limit.clamp(1, MAX_PAGE)).unwrap_or(1)
}

macro_rules! reads {
    ($conn:ty, $db:ty, [$($async:tt)*], [$($wait:tt)*]) => {
        use crate::{
            model::{
                id::{AgentId, Target, TaskId},
                task::{ClaimId, Claimed, DeadTask, HeldClaim, TaskEvent, TaskState, TaskView, queue_of},
                targets::Targets,
                topic::Subscriber,
            },
            store::{
                AgentFilter, AgentRow, Doomed, KeyRow, Oldest, StoreError, StoredStatus, TaskFilter,
                TaskPage,
                listed::{ERROR_BYTES, ListedEnd, ListedTask, error_of_beginning},
                read::{SCAN_LIMIT, MAX_PAGE, page},
                rows::{ArchivedRow, StoredAgent, TaskRow, state_of, tags_of, target_of},
                told,
                sql_text::{letters, part, replace, substr, tag_places},
                schema::{
                    greenroom_agents, greenroom_idempotency, greenroom_paused, greenroom_snapshots,
                    greenroom_subscriptions, greenroom_task_archive, greenroom_task_events, greenroom_tasks,
                    greenroom_waits,
                },
                values::{FAILED, Id, Lit, Micros, OUTCOME_UNKNOWN, PARKED, QUARANTINED, READY, RUNNING, SCHEDULED, lane, moment},
            },
        };

        /// How many of the doomed one call looks at.
        const DOOMED_AT_ONCE: i64 = 1_000;
        /// Among how many of those with an unknown outcome the oldest is looked for.
        const UNKNOWN_AT_ONCE: i64 = 1_000;

        /// The first of those who are subscribed to a topic.
        pub(super) $($async)* fn first_subscribers(
            conn: &mut $conn,
            topic: &str,
            limit: usize,
        ) -> Result<Vec<Subscriber>, StoreError> {
            use greenroom_subscriptions::dsl;
            let rows: Vec<(Id, String, String, String)> = dsl::greenroom_subscriptions
                .filter(dsl::topic.eq(topic))
                .order(dsl::agent.asc())
                .limit(i64::try_from(limit).unwrap_or(i64::MAX))
                .select((dsl::agent, dsl::kind, dsl::key, dsl::message))
                .load(conn)$($wait)*
                .map_err(sql)?;
            let subscriber = |(agent, kind, key, message): (Id, String, String, String)| Subscriber {
                agent: AgentId(agent.0),
                kind: kind.into(),
                key: key.into(),
                message: message.into(),
            };
            Ok(rows.into_iter().map(subscriber).collect())
        }

        /// The same, and how many more there are: these are counted where there are any.
        pub(super) $($async)* fn subscribers(
            conn: &mut $conn,
            topic: &str,
            limit: usize,
        ) -> Result<(Vec<Subscriber>, u64), StoreError> {
            use greenroom_subscriptions::dsl;
            let first = first_subscribers(conn, topic, limit)$($wait)*?;
            let mut more = 0;
            if first.len() >= limit {
                let all = dsl::greenroom_subscriptions.filter(dsl::topic.eq(topic)).count();
                let all: i64 = all.get_result(conn)$($wait)*.map_err(sql)?;
                more = u64::try_from(all).unwrap_or(0).saturating_sub(first.len() as u64);
            }
            Ok((first, more))
        }

        /// Agents of each kind by what holds them.
        pub(super) $($async)* fn held(conn: &mut $conn) -> Result<Vec<(String, StoredStatus, u64)>, StoreError> {
            use greenroom_agents::dsl;
            let rows: Vec<(String, i16, i64)> = dsl::greenroom_agents
                .filter(dsl::status.ne(Lit::<0>))
                .group_by((dsl::kind, dsl::status))
                .order((dsl::kind.asc(), dsl::status.asc()))
                .select((dsl::kind, dsl::status, diesel::dsl::count_star()))
                .load(conn)$($wait)*
                .map_err(sql)?;
            Ok(told::held_of(rows))
        }

        /// One page of agents by (kind, key).
        pub(super) $($async)* fn agents(conn: &mut $conn, filter: &AgentFilter) -> Result<Vec<AgentRow>, StoreError> {
            use greenroom_agents::dsl;
            let limit = page(filter.limit);
            let ordered = |limit| {
                let mut query = dsl::greenroom_agents.select(StoredAgent::as_select()).into_boxed::<$db>();
                if filter.held {
                    query = query.filter(dsl::status.ne(Lit::<0>));
                }
                match filter.status {
                    Some(StoredStatus::Normal) => query = query.filter(dsl::status.eq(Lit::<0>)),
                    Some(s) => query = query.filter(dsl::status.ne(Lit::<0>)).filter(dsl::status.eq(s as i16)),
                    None => query = query.filter(dsl::status.ne(StoredStatus::Deleted as i16)),
                }
                query.order((dsl::kind.asc(), dsl::key.asc())).limit(limit)
            };
            let rows: QueryResult<Vec<StoredAgent>> = match (&filter.kind, &filter.after) {
                (None, None) => ordered(limit).load(conn)$($wait)*,
                (Some(kind), None) => ordered(limit).filter(dsl::kind.eq(kind)).load(conn)$($wait)*,
                (Some(kind), Some((after, key))) if kind == after => {
                    ordered(limit).filter(dsl::kind.eq(kind)).filter(dsl::key.gt(key)).load(conn)$($wait)*
                }
                (Some(kind), Some((after, _))) if kind > after => {
                    ordered(limit).filter(dsl::kind.eq(kind)).load(conn)$($wait)*
                }
                (Some(_), Some(_)) => Ok(Vec::new()),
                // the rest of the kind, then the kinds behind it: two seeks, where one condition would scan
                (None, Some((kind, key))) => {
                    let within = ordered(limit).filter(dsl::kind.eq(kind)).filter(dsl::key.gt(key));
                    let mut rows: Vec<StoredAgent> = within.load(conn)$($wait)*.map_err(sql)?;
                    let left = limit - i64::try_from(rows.len()).unwrap_or(limit);
                    if left > 0 {
                        let behind = ordered(left).filter(dsl::kind.gt(kind));
                        let behind: Vec<StoredAgent> = behind.load(conn)$($wait)*.map_err(sql)?;
                        rows.extend(behind);
                    }
                    Ok(rows)
                }
            };
            rows.map_err(sql)?.into_iter().map(|row: StoredAgent| row.with_state(Vec::new())).collect()
        }

        /// The current state and the kept earlier ones, newest first.
        pub(super) $($async)* fn snapshots(
            conn: &mut $conn,
            id: AgentId,
        ) -> Result<Vec<(i64, jiff::Timestamp, Vec<u8>)>, StoreError> {
            use greenroom_agents::dsl as a;
            use greenroom_snapshots::dsl as s;
            let id = Id(id.0);
            let current: Option<(i64, Micros, Vec<u8>)> = a::greenroom_agents
                .filter(a::id.eq(id))
                .filter(a::version.gt(0))
                .select((a::version, a::updated_at, a::state))
                .first(conn)$($wait)*
                .optional()
                .map_err(sql)?;
            let earlier: Vec<(i64, Micros, Vec<u8>)> = s::greenroom_snapshots
                .filter(s::agent.eq(id))
                .order(s::version.desc())
                .select((s::version, s::at, s::state))
                .load(conn)$($wait)*
                .map_err(sql)?;
            let newest = current.as_ref().map(|(version, ..)| *version);
            let earlier = earlier.into_iter().filter(|(version, ..)| Some(*version) != newest);
            let unpacked = |(version, at, state)| (version, moment(at), crate::model::snapshot::unpack(state));
            Ok(current.into_iter().chain(earlier).map(unpacked).collect())
        }

        /// A key that has not expired by `now`.
        pub(super) $($async)* fn stored_key(
            conn: &mut $conn,
            scope: uuid::Uuid,
            key: &str,
            now: Micros,
        ) -> QueryResult<Option<KeyRow>> {
            use greenroom_idempotency::dsl;
            let row: Option<(Vec<u8>, Option<Id>, Option<Vec<u8>>)> = dsl::greenroom_idempotency
                .filter(dsl::scope.eq(Id(scope)))
                .filter(dsl::key.eq(key))
                .filter(dsl::expires_at.gt(now))
                .select((dsl::request, dsl::task, dsl::reply))
                .first(conn)$($wait)*
                .optional()?;
            Ok(row.map(|(request, task, reply)| KeyRow {
                request: request.try_into().unwrap_or_default(),
                task: task.map(Into::into),
                reply,
            }))
        }

        $($async)* fn hot(conn: &mut $conn, id: TaskId) -> Result<Option<TaskRow>, StoreError> {
            use greenroom_tasks::dsl;
            let row = dsl::greenroom_tasks.filter(dsl::id.eq(Id::from(id))).select(TaskRow::as_select());
            row.first(conn)$($wait)*.optional().map_err(sql)
        }

        $($async)* fn archived(conn: &mut $conn, id: TaskId) -> Result<Option<ArchivedRow>, StoreError> {
            use greenroom_task_archive::dsl;
            let row = dsl::greenroom_task_archive.filter(dsl::id.eq(Id::from(id))).select(ArchivedRow::as_select());
            row.first(conn)$($wait)*.optional().map_err(sql)
        }

        $($async)* fn hot_view(conn: &mut $conn, id: TaskId) -> Result<Option<TaskView>, StoreError> {
            use greenroom_tasks::dsl;
            let row = dsl::greenroom_tasks.filter(dsl::id.eq(Id::from(id)));
            let row = row.select((ListedTask::as_select(), dsl::error)).first(conn)$($wait)*.optional().map_err(sql)?;
            row.map(|(task, error): (ListedTask, _)| task.whole(error)).transpose()
        }

        $($async)* fn archived_view(conn: &mut $conn, id: TaskId) -> Result<Option<TaskView>, StoreError> {
            use greenroom_task_archive::dsl;
            let row = dsl::greenroom_task_archive.filter(dsl::id.eq(Id::from(id)));
            let row = row.select((ListedEnd::as_select(), dsl::result, dsl::error));
            let row = row.first(conn)$($wait)*.optional().map_err(sql)?;
            row.map(|(task, result, error): (ListedEnd, _, _)| task.whole(result, error)).transpose()
        }

        /// A task, hot or archived.
        pub(super) $($async)* fn task(conn: &mut $conn, id: TaskId) -> Result<Option<TaskView>, StoreError> {
            // A task moves from the hot table to the archive, and seldom back: look in this order.
            if let Some(view) = hot_view(conn, id)$($wait)*? {
                return Ok(Some(view));
            }
            if let Some(view) = archived_view(conn, id)$($wait)*? {
                return Ok(Some(view));
            }
            hot_view(conn, id)$($wait)*
        }

        /// A task's data, hot or archived.
        pub(super) $($async)* fn task_data(conn: &mut $conn, id: TaskId) -> Result<Option<Claimed>, StoreError> {
            if let Some(row) = hot(conn, id)$($wait)*? {
                return row.into_claimed().map(Some);
            }
            if let Some(row) = archived(conn, id)$($wait)*? {
                return row.into_claimed().map(Some);
            }
            hot(conn, id)$($wait)*?.map(TaskRow::into_claimed).transpose()
        }

        /// A task's history: what its columns tell, and what was written down beside them.
        pub(super) $($async)* fn history(conn: &mut $conn, id: TaskId) -> Result<Vec<TaskEvent>, StoreError> {
            use greenroom_task_events::dsl;
            let Some(view) = task(conn, id)$($wait)*? else { return Ok(Vec::new()) };
            let written: Vec<told::WrittenEvent> = dsl::greenroom_task_events
                .filter(dsl::task.eq(Id::from(id)))
                .order(dsl::rowid.asc())
                .select((dsl::at, dsl::event, dsl::attempt, dsl::node, dsl::detail))
                .load(conn)$($wait)*
                .map_err(sql)?;
            Ok(told::told(&view, written))
        }

        /// The paused queues by name, and since when.
        pub(super) $($async)* fn paused(conn: &mut $conn) -> Result<Vec<(String, jiff::Timestamp)>, StoreError> {
            use greenroom_paused::dsl;
            let rows: Vec<(String, Micros)> =
                dsl::greenroom_paused.order(dsl::queue.asc()).load(conn)$($wait)*.map_err(sql)?;
            Ok(rows.into_iter().map(|(queue, at)| (queue, moment(at))).collect())
        }

        /// The targets of parked tasks, behind one, by name.
        pub(super) $($async)* fn parked(
            conn: &mut $conn,
            after: Option<&str>,
            limit: usize,
        ) -> Result<Vec<Target>, StoreError> {
            use greenroom_tasks::dsl;
            let mut query = dsl::greenroom_tasks
                .filter(dsl::state.ge(RUNNING))
                .filter(dsl::state.eq(PARKED))
                .select(dsl::target)
                .distinct()
                .into_boxed::<$db>();
            if let Some(after) = after {
                query = query.filter(dsl::target.gt(after));
            }
            let targets: Vec<String> =
                query.order(dsl::target.asc()).limit(page(limit)).load(conn)$($wait)*.map_err(sql)?;
            Ok(targets.iter().map(|target| target_of(target)).collect())
        }

        /// Since when something has waited for a person.
        pub(super) $($async)* fn oldest(conn: &mut $conn) -> Result<Oldest, StoreError> {
            use {greenroom_agents::dsl as a, greenroom_task_events::dsl as e, greenroom_tasks::dsl as t};
            let quarantined = a::greenroom_agents.filter(a::status.eq(QUARANTINED));
            let held: Option<Option<Micros>> = quarantined
                .filter(a::held_at.is_not_null())
                .order(a::held_at.asc())
                .select(a::held_at)
                .first(conn)$($wait)*
                .optional()
                .map_err(sql)?;
            // of those whose status came with them
            let made: Option<Micros> = quarantined
                .filter(a::held_at.is_null())
                .order(a::updated_at.asc())
                .select(a::updated_at)
                .first(conn)$($wait)*
                .optional()
                .map_err(sql)?;
            let unknown: Vec<Id> = t::greenroom_tasks
                .filter(t::state.eq(OUTCOME_UNKNOWN))
                .order(t::id.asc())
                .limit(UNKNOWN_AT_ONCE)
                .select(t::id)
                .load(conn)$($wait)*
                .map_err(sql)?;
            // one that a person had try again may have been interrupted before
            let told: Vec<(Id, Micros)> = e::greenroom_task_events
                .filter(e::task.eq_any(&unknown))
                .filter(e::event.eq("outcome_unknown"))
                .order(e::rowid.asc())
                .select((e::task, e::at))
                .load(conn)$($wait)*
                .map_err(sql)?;
            let last: std::collections::HashMap<uuid::Uuid, Micros> =
                told.into_iter().map(|(task, at)| (task.0, at)).collect();
            Ok(Oldest {
                quarantined: held.flatten().into_iter().chain(made).min().map(moment),
                outcome_unknown: last.into_values().min().map(moment),
            })
        }

        /// The targets of tasks of these partitions that may only run alone, and are not of a paused queue.
        pub(super) $($async)* fn suspects(
            conn: &mut $conn,
            partitions: &[i16],
        ) -> Result<Vec<Target>, StoreError> {
            use greenroom_tasks::dsl;
            let targets: Vec<String> = dsl::greenroom_tasks
                .filter(dsl::state.eq(READY))
                .filter(dsl::lane.eq(lane::SUSPECTS))
                .filter(dsl::partition.eq_any(partitions))
                .select(dsl::target)
                .load(conn)$($wait)*
                .map_err(sql)?;
            if targets.is_empty() {
                return Ok(Vec::new());
            }
            let paused = paused(conn)$($wait)*?;
            let is_paused = |target: &Target| {
                let queue = queue_of(target);
                paused.iter().any(|(paused, _)| *paused == queue)
            };
            Ok(targets.iter().map(|target| target_of(target)).filter(|target| !is_paused(target)).collect())
        }

        /// What a boot is running.
        pub(super) $($async)* fn running(conn: &mut $conn, boot: uuid::Uuid) -> Result<Vec<HeldClaim>, StoreError> {
            use greenroom_tasks::dsl;
            let rows: Vec<(Id, i64, bool)> = dsl::greenroom_tasks
                .filter(dsl::state.ge(RUNNING))
                .filter(dsl::state.eq(RUNNING))
                .filter(dsl::node.eq(Id(boot)))
                .select((dsl::id, dsl::claim, dsl::cancel))
                .load(conn)$($wait)*
                .map_err(sql)?;
            let held = |(id, claim, cancel): (Id, i64, bool)| HeldClaim { id: id.into(), claim: ClaimId(claim), cancel };
            Ok(rows.into_iter().map(held).collect())
        }

        /// When the next task is due or expires.
        pub(super) $($async)* fn next_due(conn: &mut $conn) -> QueryResult<Option<jiff::Timestamp>> {
            use greenroom_tasks::dsl;
            let due: Option<Option<Micros>> = dsl::greenroom_tasks
                .filter(dsl::state.eq(SCHEDULED))
                .filter(dsl::run_at.is_not_null())
                .order(dsl::run_at.asc())
                .select(dsl::run_at)
                .first(conn)$($wait)*
                .optional()?;
            let expires: Option<Option<Micros>> = dsl::greenroom_tasks
                .filter(dsl::expires_at.is_not_null())
                .filter(dsl::state.ne(RUNNING))
                .order(dsl::expires_at.asc())
                .select(dsl::expires_at)
                .first(conn)$($wait)*
                .optional()?;
            // those that a doom has reached just now, or that were too many, end with the next promotion
            if !doomed(conn, true)$($wait)*?.is_empty() { return Ok(Some(jiff::Timestamp::UNIX_EPOCH)); }
            use greenroom_waits::dsl as waits;
            let ends: Option<Option<Micros>> = waits::greenroom_waits
                .filter(diesel::dsl::sql::<diesel::sql_types::Bool>("open"))
                .filter(waits::until.is_not_null())
                .order(waits::until.asc())
                .select(waits::until)
                .first(conn)$($wait)*
                .optional()?;
            let next = [due, expires, ends].into_iter().filter_map(Option::flatten).min();
            Ok(next.map(moment))
        }

        /// The doomed: those that the store may end by itself, or those that it may not.
        pub(super) $($async)* fn doomed(conn: &mut $conn, untold: bool) -> QueryResult<Vec<Doomed>> {
            use greenroom_tasks::dsl;
            let all = dsl::greenroom_tasks
                .filter(dsl::lane.ge(Lit::<{ lane::DOOMED }>))
                .filter(dsl::state.ne(RUNNING))
                .order(dsl::lane.asc())
                .limit(DOOMED_AT_ONCE)
                .select((dsl::id, dsl::target, dsl::lane));
            // A tool's task that has run and was lost may have begun something that takes effect once: the runtime looks.
            let cancelled = Lit::<{ lane::CANCELLED }>;
            let of_tools = dsl::partition.lt(0).and(dsl::lost.gt(0));
            let judged = dsl::lane.eq(Lit::<{ lane::POISON }>).or(dsl::lane.eq(cancelled).and(of_tools));
            let rows: Vec<(Id, String, i16)> = if untold {
                all.filter(dsl::notify.is_null()).filter(diesel::dsl::not(judged)).load(conn)$($wait)*?
            } else {
                all.filter(dsl::notify.is_not_null().or(judged)).load(conn)$($wait)*?
            };
            let doomed = |(id, target, lane): (Id, String, i16)| Doomed {
                id: id.into(),
                target: target_of(&target),
                why: told::doom_of(lane),
            };
            Ok(rows.into_iter().map(doomed).collect())
        }
    };
}
pub(super) use reads;
