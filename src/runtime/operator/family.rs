//! The family of a task: its prerequisites and dependents, the task that submitted it, and those it submitted.

use std::collections::BTreeSet;

use jiff::Timestamp;

use super::{Operator, Result};
use crate::{
    model::{id::TaskId, task::TaskView},
    runtime::views::{Edge, EdgeKind, Family, Relative},
};

/// How many tasks of a family are shown.
pub(super) const MAX_SHOWN: usize = 100;
/// How far up it is followed, and how many steps along those who come after each other.
const FAR: usize = 16;
/// How many of the tasks that were accepted since are looked at for relatives.
const SCAN_LIMIT: usize = 5_000;
/// How long before its batch, in milliseconds, the first task of one may have got its id.
const EARLIER_MS: u64 = 1_000;

impl Operator {
    /// The family of a task, itself among it, by their ids: at most 100 of those that are found near it.
    ///
    /// # Errors
    /// [`AskError::NotFound`](crate::AskError::NotFound).
    pub async fn family(&self, id: TaskId) -> Result<Family> {
        let task = self.task(id).await?;
        let mut found = Found { ids: BTreeSet::from([id]), edges: Vec::new(), more: false };
        self.forebears(&task, &mut found).await?;
        self.after(id, &mut found).await?;
        let store = &self.node.store;
        for kin in store.kin_behind(behind(&task), SCAN_LIMIT).await? {
            let sibling = kin.batch.is_some() && kin.batch == task.batch;
            if let Some(parent) = kin.parent.filter(|parent| sibling || *parent == id) {
                found.connect(parent, kin.id, EdgeKind::Submitted);
            } else if sibling {
                found.add(kin.id);
            }
        }
        let Found { ids, edges, more } = found;
        let ids: Vec<TaskId> = ids.into_iter().collect();
        let tasks: Vec<Relative> = store.relatives(&ids).await?.into_iter().map(Relative::from).collect();
        let known = |id: TaskId| tasks.iter().any(|task| task.id == id);
        let edges = edges.into_iter().filter(|edge| known(edge.from) && known(edge.to)).collect();
        Ok(Family { tasks, edges, more })
    }

    /// The task whose turn submitted it, and its submitters in turn.
    async fn forebears(&self, task: &TaskView, found: &mut Found) -> Result<()> {
        let (mut child, mut parent) = (task.id, task.parent);
        for _ in 0..FAR {
            let Some(id) = parent else { break };
            found.connect(id, child, EdgeKind::Submitted);
            child = id;
            parent = self.node.store.relatives(&[id]).await?.pop().and_then(|task| task.parent);
        }
        Ok(())
    }

    /// The prerequisites and dependents, step by step.
    async fn after(&self, id: TaskId, found: &mut Found) -> Result<()> {
        let mut around = vec![id];
        for _ in 0..FAR {
            let pairs = self.node.store.edges(&around, MAX_SHOWN).await?;
            let known = found.ids.clone();
            pairs.into_iter().for_each(|(parent, child)| found.connect(parent, child, EdgeKind::After));
            around = found.ids.difference(&known).copied().collect();
            if around.is_empty() {
                break;
            }
        }
        Ok(())
    }
}

/// What has been found so far.
struct Found {
    ids: BTreeSet<TaskId>,
    edges: Vec<Edge>,
    more: bool,
}

impl Found {
    fn add(&mut self, id: TaskId) -> bool {
        let has = self.ids.contains(&id) || (self.ids.len() < MAX_SHOWN && self.ids.insert(id));
        self.more |= !has;
        has
    }

    fn connect(&mut self, from: TaskId, to: TaskId, how: EdgeKind) {
        let edge = Edge { from, to, how };
        if self.add(from) && self.add(to) && !self.edges.contains(&edge) {
            self.edges.push(edge);
        }
    }
}

/// Behind which id a task's relatives are: those of its batch had theirs drawn a little before it, perhaps.
fn behind(task: &TaskView) -> TaskId {
    let Some(batch) = task.batch else { return task.id };
    let drawn = batch.0.get_timestamp().and_then(|at| {
        let (seconds, nanos) = at.to_unix();
        Timestamp::new(i64::try_from(seconds).ok()?, i32::try_from(nanos).ok()?).ok()
    });
    let millis = drawn.and_then(|at| u64::try_from(at.as_millisecond()).ok()).unwrap_or_default();
    let least = uuid::Builder::from_unix_timestamp_millis(millis.saturating_sub(EARLIER_MS), &[0; 10]);
    TaskId(least.into_uuid()).min(task.id)
}
