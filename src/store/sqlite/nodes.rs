//! Joining and leaving: ownership of the file, and rescuing what the previous boot was running.

use diesel::prelude::*;
use jiff::Timestamp;
use uuid::Uuid;

use super::{
    claim::whole,
    commit::Stop,
    error,
    tx::{Sync, Tx, Writer},
    values::{Id, Lit, Micros, READY, RUNNING, SUSPECT_FROM, lane, moment},
};
use crate::{
    model::{id::TaskId, task::TaskState},
    store::{
        Member, NodeRow, Ownership, StoreError,
        schema::{greenroom_meta, greenroom_nodes, greenroom_partitions, greenroom_tasks},
    },
};

impl Writer {
    /// Takes every partition under a new epoch and rescues what a dead boot was running.
    pub(super) fn join(&mut self, member: &Member) -> Result<Ownership, StoreError> {
        self.transaction(Sync::Full, Timestamp::now(), |tx| tx.join(member).map_err(whole))
    }

    /// Writes down that a boot has ended.
    pub(super) fn leave(&mut self, boot: Uuid) -> Result<(), StoreError> {
        use greenroom_nodes::dsl;
        self.transaction(Sync::Lazy, Timestamp::now(), |tx| {
            let mine = dsl::greenroom_nodes.filter(dsl::id.eq(Id(boot))).filter(dsl::ended_at.is_null());
            diesel::update(mine)
                .set(dsl::ended_at.eq(tx.now))
                .execute(tx.conn)
                .map(drop)
                .map_err(|e| error::of_statement(&e))
        })
    }
}

/// What a boot owns; `None`: a later one has taken over.
pub(super) fn owned(conn: &mut SqliteConnection, boot: Uuid) -> Result<Option<Ownership>, StoreError> {
    let epochs = epochs(conn, boot).map_err(|e| error::of_statement(&e))?;
    let any = epochs.iter().any(|epoch| *epoch > 0);
    Ok(any.then(|| Ownership { epochs, ..Ownership::default() }))
}

fn epochs(conn: &mut SqliteConnection, boot: Uuid) -> QueryResult<Vec<i64>> {
    use greenroom_partitions::dsl;
    let rows = dsl::greenroom_partitions
        .filter(dsl::id.ge(0))
        .order(dsl::id.asc())
        .select((dsl::node, dsl::epoch))
        .load::<(Option<Id>, i64)>(conn)?;
    Ok(rows.into_iter().map(|(node, epoch)| if node == Some(Id(boot)) { epoch } else { 0 }).collect())
}

/// The nodes that have not ended: one at most, and it owns everything.
pub(super) fn nodes(conn: &mut SqliteConnection) -> Result<Vec<NodeRow>, StoreError> {
    use greenroom_nodes::dsl;
    use greenroom_partitions::dsl as partitions;
    let of = |e| error::of_statement(&e);
    let rows = dsl::greenroom_nodes
        .filter(dsl::ended_at.is_null())
        .select((dsl::id, dsl::name, dsl::started_at))
        .load::<(Id, String, Micros)>(conn)
        .map_err(of)?;
    let mut found = Vec::with_capacity(rows.len());
    for (id, name, started_at) in rows {
        let partitions = partitions::greenroom_partitions
            .filter(partitions::node.eq(id))
            .filter(partitions::id.ge(0))
            .order(partitions::id.asc())
            .select(partitions::id)
            .load(conn)
            .map_err(of)?;
        found.push(NodeRow {
            boot: id.0,
            name,
            url: None,
            started_at: moment(started_at),
            lease_until: None,
            drained_at: None,
            partitions,
        });
    }
    Ok(found)
}

impl Tx<'_> {
    fn join(&mut self, member: &Member) -> Result<Ownership, Stop> {
        let boot = member.boot;
        use greenroom_nodes::dsl as nodes;
        use greenroom_partitions::dsl as partitions;
        let epoch = {
            use greenroom_meta::dsl;
            diesel::update(dsl::greenroom_meta.filter(dsl::name.eq("epoch")))
                .set(dsl::value.eq(dsl::value + 1))
                .returning(dsl::value)
                .get_result::<i64>(self.conn)?
        };
        diesel::update(nodes::greenroom_nodes.filter(nodes::ended_at.is_null()))
            .set(nodes::ended_at.eq(self.now))
            .execute(self.conn)?;
        diesel::replace_into(nodes::greenroom_nodes)
            .values((nodes::id.eq(Id(boot)), nodes::name.eq(&member.name), nodes::started_at.eq(self.now)))
            .execute(self.conn)?;
        diesel::update(partitions::greenroom_partitions.filter(partitions::id.ge(0)))
            .set((partitions::node.eq(Id(boot)), partitions::epoch.eq(epoch)))
            .execute(self.conn)?;
        let epochs = epochs(self.conn, boot)?;
        let rescued = self.rescue()?;
        let poison = self.find_poison(member.max_lost)?;
        Ok(Ownership { epochs, rescued, poison })
    }

    fn rescue(&mut self) -> Result<u64, Stop> {
        use greenroom_tasks::dsl;
        let running = dsl::greenroom_tasks
            .filter(dsl::state.ge(RUNNING))
            .filter(dsl::state.eq(RUNNING))
            .select((
                dsl::id,
                dsl::rowid,
                dsl::lane,
                dsl::attempt,
                dsl::lost,
                dsl::alone,
                dsl::cancel,
                dsl::node,
                dsl::started_at,
            ))
            .load::<(Id, i64, i16, i64, i64, bool, bool, Option<Id>, Option<Micros>)>(self.conn)?;
        let rescued = running.len() as u64;
        for (id, rowid, mut lane, attempt, lost, alone, cancel, node, started_at) in running {
            if cancel {
                lane = lane::CANCELLED;
            } else if lost + 1 >= SUSPECT_FROM {
                lane = lane::SUSPECTS;
            }
            diesel::update(dsl::greenroom_tasks.filter(dsl::rowid.eq(rowid)))
                .set((
                    dsl::state.eq(READY),
                    dsl::lane.eq(lane),
                    dsl::lost.eq(lost + 1),
                    dsl::lost_alone.eq(dsl::lost_alone + i64::from(alone)),
                    dsl::alone.eq(false),
                    dsl::node.eq(None::<Id>),
                ))
                .execute(self.conn)?;
            let node = node.map(|n| n.0);
            self.began(id, started_at, attempt, node)?;
            self.event(id, "rescued", attempt, node, Some("its node ended without a word"))?;
            self.deltas.task(TaskState::Running, -1);
            self.deltas.task(TaskState::Ready, 1);
        }
        Ok(rescued)
    }

    fn find_poison(&mut self, max_lost: u32) -> Result<Vec<TaskId>, Stop> {
        use greenroom_tasks::dsl;
        let found = dsl::greenroom_tasks
            .filter(dsl::state.eq(READY))
            .filter(dsl::lane.eq(Lit::<{ lane::SUSPECTS }>))
            .filter(dsl::lost_alone.ge(i64::from(max_lost)))
            .select((dsl::rowid, dsl::id))
            .load::<(i64, Id)>(self.conn)?;
        for (rowid, _) in &found {
            self.doom(*rowid, lane::POISON)?;
        }
        let known = dsl::greenroom_tasks
            .filter(dsl::lane.ge(Lit::<{ lane::DOOMED }>))
            .filter(dsl::lane.eq(lane::POISON))
            .order(dsl::rowid.asc())
            .select(dsl::id)
            .load::<Id>(self.conn)?;
        Ok(known.into_iter().map(Into::into).collect())
    }
}
