//! Leases, claims, and what people do to tasks: everything that writes beside the commit. Each is one
//! statement; what it does stands beside its function in `migrations/postgres`.

use diesel::{
    prelude::*,
    sql_types::{Array, BigInt, Bool, Integer, Nullable, SmallInt, Text},
};
use diesel_async::{AsyncPgConnection, RunQueryDsl};
use jiff::Timestamp;
use uuid::Uuid;

use super::{
    call::ClaimCall,
    crashes, error, read,
    rows::ClaimedRow,
    values::{
        Id, Micros, lane, micros, moment,
        types::{Moment, Uid},
    },
};
use crate::{
    clock,
    model::{
        id::{AgentId, TaskId},
        task::{ClaimId, Claimed, DeadTask, TaskInput, TaskState, next},
    },
    store::{
        CancelFound, ClaimRequest, Member, Ownership, Past, StoreError, StoredStatus,
        schema::{greenroom_partitions, greenroom_tasks},
        told::DISMISSED,
    },
};

/// How many tasks one pass of `promote` moves, per reason.
const PROMOTED_AT_ONCE: i32 = 1_000;
/// How much one call of `clean` forgets, of each kind.
const FORGOTTEN_AT_ONCE: i32 = 500;
/// How many appended counts one call of `clean` folds; where there are more, it is called again.
const FOLDED_AT_ONCE: i32 = 200_000;

mod functions {
    use super::*;
    use diesel::define_sql_function;

    define_sql_function!(fn greenroom_join_1(boot: Uid, instance: Uid, name: Text, url: Nullable<Text>, version: Text, lease_ms: BigInt, max_lost: Integer) -> Nullable<BigInt>);
    define_sql_function!(fn greenroom_renew_1(boot: Uid, lease_ms: BigInt, max_lost: Integer) -> Nullable<BigInt>);
    define_sql_function!(fn greenroom_leave_1(boot: Uid) -> Bool);
    define_sql_function!(fn greenroom_give_back_3(boot: Uid, tasks: Array<Uid>, claims: Array<BigInt>, begun: Bool) -> Bool);
    define_sql_function!(fn greenroom_promote_1(now: Moment, limit: Integer) -> BigInt);
    define_sql_function!(fn greenroom_pause_1(queue: Text, paused: Bool) -> Bool);
    define_sql_function!(fn greenroom_park_1(target: Text, park: Bool) -> BigInt);
    define_sql_function!(fn greenroom_set_status_1(id: Uid, partition: SmallInt, kind: Text, key: Text, epoch: BigInt, status: SmallInt, reason: Nullable<Text>) -> Bool);
    define_sql_function!(fn greenroom_flag_1(task: Uid) -> Bool);
    define_sql_function!(fn greenroom_retry_2(task: Uid, state: SmallInt, partition: SmallInt, lane: SmallInt) -> Bool);
    define_sql_function!(fn greenroom_retry_many_1(tasks: Array<Uid>, states: Array<SmallInt>, partitions: Array<SmallInt>, lanes: Array<SmallInt>) -> BigInt);
    define_sql_function!(fn greenroom_dismiss_many_1(tasks: Array<Uid>, states: Array<SmallInt>, why: Text) -> BigInt);
    define_sql_function!(fn greenroom_clean_3(now: Moment, before: Moment, failed: Moment, limit: Integer) -> BigInt);
    define_sql_function!(fn clock_timestamp() -> Moment);
    define_sql_function!(fn greenroom_fold_counts_1(limit: Integer) -> BigInt);
}
use functions::*;

fn sql(e: diesel::result::Error) -> StoreError {
    error::of_commit(&e)
}

fn millis(member: &Member) -> i64 {
    i64::try_from(member.lease.as_millis()).unwrap_or(i64::MAX)
}

fn times(n: u32) -> i32 {
    i32::try_from(n).unwrap_or(i32::MAX)
}

/// This process goes by the database's clock, as leases do: it said so since then.
fn heard(before: Timestamp, there: Micros) {
    clock::heard(before, moment(there), Timestamp::now());
}

/// Begins a lease and takes what nobody owns.
pub(super) async fn join(conn: &mut AsyncPgConnection, member: &Member) -> Result<Ownership, StoreError> {
    let call = greenroom_join_1(
        Id(member.boot),
        Id(member.instance),
        &member.name,
        member.url.as_deref(),
        env!("CARGO_PKG_VERSION"),
        millis(member),
        times(member.max_lost),
    );
    let before = Timestamp::now();
    let answer = diesel::select((call, clock_timestamp())).get_result(conn).await;
    let (rescued, there): (Option<i64>, Micros) = answer.map_err(sql)?;
    heard(before, there);
    let over = || StoreError::Refused("a later boot on the same data directory has taken over".to_owned());
    owned(conn, member.boot, rescued.ok_or_else(over)?).await
}

/// Renews a lease and takes over what has lost its owner; `None`: it had ended.
pub(super) async fn renew(
    conn: &mut AsyncPgConnection,
    member: &Member,
) -> Result<Option<Ownership>, StoreError> {
    let call = greenroom_renew_1(Id(member.boot), millis(member), times(member.max_lost));
    let before = Timestamp::now();
    let answer = diesel::select((call, clock_timestamp())).get_result(conn).await;
    let (rescued, there): (Option<i64>, Micros) = answer.map_err(sql)?;
    heard(before, there);
    match rescued {
        Some(rescued) => owned(conn, member.boot, rescued).await.map(Some),
        None => Ok(None),
    }
}

/// Ends a lease.
pub(super) async fn leave(conn: &mut AsyncPgConnection, boot: Uuid) -> Result<(), StoreError> {
    diesel::select(greenroom_leave_1(Id(boot))).get_result::<bool>(conn).await.map(drop).map_err(sql)
}

async fn owned(conn: &mut AsyncPgConnection, boot: Uuid, rescued: i64) -> Result<Ownership, StoreError> {
    use greenroom_partitions::dsl;
    use greenroom_tasks::dsl as tasks;
    let rows: Vec<(Option<Id>, i64)> = dsl::greenroom_partitions
        .filter(dsl::id.ge(0))
        .order(dsl::id.asc())
        .select((dsl::node, dsl::epoch))
        .load(conn)
        .await
        .map_err(sql)?;
    let poison: Vec<Id> = tasks::greenroom_tasks
        .filter(tasks::lane.eq(lane::POISON))
        .order(tasks::seq.asc())
        .select(tasks::id)
        .load(conn)
        .await
        .map_err(sql)?;
    let epoch = |(node, epoch)| if node == Some(Id(boot)) { epoch } else { 0 };
    Ok(Ownership {
        epochs: rows.into_iter().map(epoch).collect(),
        rescued: u64::try_from(rescued).unwrap_or(0),
        poison: poison.into_iter().map(Into::into).collect(),
    })
}

fn room(n: usize) -> i32 {
    i32::try_from(n).unwrap_or(i32::MAX)
}

/// Claims the best ready tasks.
pub(super) async fn claim(
    conn: &mut AsyncPgConnection,
    boot: Uuid,
    request: &ClaimRequest,
) -> Result<Vec<Claimed>, StoreError> {
    let wanted = if request.alone {
        vec![(lane::SUSPECTS, 1)]
    } else {
        vec![(lane::AGENTS, request.agents), (lane::TOOLS, request.tools)]
    };
    let wanted = wanted.into_iter().filter(|(_, limit)| *limit > 0);
    let (lane, limit) = wanted.map(|(lane, limit)| (lane, room(limit))).unzip();
    let call = ClaimCall {
        boot: Some(Id(boot)),
        lane,
        limit,
        except: request.except.iter().map(String::as_str).collect(),
        alone: request.alone,
        queue: request.queues.iter().map(|queue| queue.name.as_str()).collect(),
        at_most: request.queues.iter().map(|queue| room(queue.at_most)).collect(),
        durable: request.durable.iter().map(String::as_str).collect(),
        each: room(request.each.unwrap_or(usize::MAX)),
        look: room(request.look.unwrap_or(usize::MAX)),
    };
    let rows: Vec<ClaimedRow> = RunQueryDsl::load(call, conn).await.map_err(sql)?;
    let mut claimed = rows.into_iter().map(ClaimedRow::into_claimed).collect::<Result<Vec<_>, _>>()?;
    claimed.sort_by_key(|c: &Claimed| (std::cmp::Reverse(c.priority), c.seq));
    Ok(claimed)
}

/// Gives back what did not start, or may have and was broken off.
pub(super) async fn give_back(
    conn: &mut AsyncPgConnection,
    boot: Uuid,
    claims: &[(TaskId, ClaimId)],
    begun: bool,
) -> Result<(), StoreError> {
    let (tasks, claims): (Vec<Id>, Vec<i64>) =
        claims.iter().map(|(id, claim)| (Id::from(*id), claim.0)).unzip();
    let call = diesel::select(greenroom_give_back_3(Id(boot), tasks, claims, begun));
    call.get_result::<bool>(conn).await.map(drop).map_err(sql)
}

/// Makes ready what is due and dooms what has expired; says how many became ready.
pub(super) async fn promote(conn: &mut AsyncPgConnection, now: Timestamp) -> Result<u64, StoreError> {
    let call = diesel::select(greenroom_promote_1(micros(now), PROMOTED_AT_ONCE));
    let promoted: i64 = call.get_result(conn).await.map_err(sql)?;
    Ok(u64::try_from(promoted).unwrap_or(0))
}

/// Pauses a queue, or lets it go on; says whether that changed anything.
pub(super) async fn pause(
    conn: &mut AsyncPgConnection,
    queue: &str,
    paused: bool,
) -> Result<bool, StoreError> {
    diesel::select(greenroom_pause_1(queue, paused)).get_result(conn).await.map_err(sql)
}

/// Parks or unparks the tasks of a target.
pub(super) async fn park(conn: &mut AsyncPgConnection, target: &str, park: bool) -> Result<u64, StoreError> {
    let n: i64 = diesel::select(greenroom_park_1(target, park)).get_result(conn).await.map_err(sql)?;
    Ok(u64::try_from(n).unwrap_or(0))
}

/// Keeps since when a node begins no tasks.
pub(super) async fn drain(
    conn: &mut AsyncPgConnection,
    boot: Uuid,
    since: Option<Timestamp>,
) -> Result<(), StoreError> {
    diesel::sql_query("UPDATE greenroom_nodes SET drained_at = $2 WHERE id = $1")
        .bind::<Uid, _>(Id(boot))
        .bind::<Nullable<Moment>, _>(since.map(micros))
        .execute(conn)
        .await
        .map(drop)
        .map_err(sql)
}

/// Writes something of no meaning: whether there is room.
pub(super) async fn try_room(conn: &mut AsyncPgConnection) -> Result<(), StoreError> {
    let write = "INSERT INTO greenroom_room AS r (id, n, bytes) VALUES (1, 1, decode(repeat('00', 65536), 'hex')) \
                 ON CONFLICT (id) DO UPDATE SET n = r.n + 1, bytes = excluded.bytes";
    diesel::sql_query(write).execute(conn).await.map(drop).map_err(sql)
}

/// Keeps a lasting status.
pub(super) async fn set_status(
    conn: &mut AsyncPgConnection,
    id: AgentId,
    (kind, key): (&str, &str),
    epoch: i64,
    status: StoredStatus,
    reason: Option<&str>,
) -> Result<(), StoreError> {
    let reason = reason.map(|r| r.replace('\0', "\u{FFFD}"));
    let call = greenroom_set_status_1(Id::from(id), id.partition(), kind, key, epoch, status as i16, reason);
    match diesel::select(call).get_result::<bool>(conn).await.map_err(sql)? {
        true => Ok(()),
        false => Err(StoreError::Refused("fenced: another node owns the agent".to_owned())),
    }
}

/// Looks a task up for cancellation, and flags it where it runs.
pub(super) async fn cancel(
    conn: &mut AsyncPgConnection,
    id: TaskId,
) -> Result<Option<CancelFound>, StoreError> {
    diesel::select(greenroom_flag_1(Id::from(id))).get_result::<bool>(conn).await.map_err(sql)?;
    Ok(read::task(conn, id).await?.map(|task| match task.state {
        TaskState::Running => CancelFound::Running,
        state if state.is_final() => CancelFound::Final(state),
        _ => CancelFound::Idle,
    }))
}

/// Brings a task back.
pub(super) async fn retry(
    conn: &mut AsyncPgConnection,
    id: TaskId,
) -> Result<Option<Result<(), TaskState>>, StoreError> {
    let Some(task) = read::task(conn, id).await? else { return Ok(None) };
    if next(task.state, TaskInput::RetryByPerson).is_err() {
        return Ok(Some(Err(task.state)));
    }
    let (partition, lane) = (task.target.partition(), lane::of(&task.target));
    let call = diesel::select(greenroom_retry_2(Id::from(id), task.state as i16, partition, lane));
    if call.get_result::<bool>(conn).await.map_err(sql)? {
        return Ok(Some(Ok(())));
    }
    // it has moved meanwhile
    Ok(read::task(conn, id).await?.map(|task| Err(task.state)))
}

/// Brings those back that stand as they were seen; says how many.
pub(super) async fn retry_many(conn: &mut AsyncPgConnection, dead: &[DeadTask]) -> Result<u64, StoreError> {
    let ids: Vec<Id> = dead.iter().map(|task| Id::from(task.id)).collect();
    let states: Vec<i16> = dead.iter().map(|task| task.state as i16).collect();
    let partitions: Vec<i16> = dead.iter().map(|task| task.target.partition()).collect();
    let lanes: Vec<i16> = dead.iter().map(|task| lane::of(&task.target)).collect();
    let call = diesel::select(greenroom_retry_many_1(ids, states, partitions, lanes));
    let back: i64 = call.get_result(conn).await.map_err(sql)?;
    Ok(u64::try_from(back).unwrap_or(0))
}

/// Lets those of them rest that stand as they were seen; says how many.
pub(super) async fn dismiss_many(conn: &mut AsyncPgConnection, dead: &[DeadTask]) -> Result<u64, StoreError> {
    let ids: Vec<Id> = dead.iter().map(|task| Id::from(task.id)).collect();
    let states: Vec<i16> = dead.iter().map(|task| task.state as i16).collect();
    let call = diesel::select(greenroom_dismiss_many_1(ids, states, DISMISSED));
    let dismissed: i64 = call.get_result(conn).await.map_err(sql)?;
    Ok(u64::try_from(dismissed).unwrap_or(0))
}

/// Forgets what has had its time.
pub(super) async fn clean(
    conn: &mut AsyncPgConnection,
    now: Timestamp,
    past: Past,
) -> Result<u64, StoreError> {
    let fold = diesel::select(greenroom_fold_counts_1(FOLDED_AT_ONCE));
    let folded: i64 = fold.get_result(conn).await.map_err(sql)?;
    let unfolded = i64::from(folded >= i64::from(FOLDED_AT_ONCE));
    let (ended, failed) = (micros(past.ended), micros(past.failed));
    let call = diesel::select(greenroom_clean_3(micros(now), ended, failed, FORGOTTEN_AT_ONCE));
    let forgotten: i64 = call.get_result(conn).await.map_err(sql)?;
    let crashes = crashes::clean(conn, past.ended).await?;
    Ok(u64::try_from(forgotten.saturating_add(crashes).saturating_add(unfolded)).unwrap_or(0))
}
