//! The supervision tree: supervisors, their children, and what each is doing.

use super::{Operator, OperatorError, Result, page_limit, status::status_name};
use crate::model::id::check_key;
use crate::runtime::{
    dispatcher::RunningTasks,
    kind::AnyKind,
    persistence::Health,
    running_cell::LiveInfo,
    views::{Page, TreeNode},
};
use crate::store::{AgentFilter, AgentRow};

/// How many children of a tree node are shown at most.
const MAX_CHILDREN: usize = 1_000;
/// How many pages of held agents are looked through for those that this node is to run.
const MAX_PAGES: usize = 8;

impl Operator {
    /// The supervision tree, with up to the maximum of children of each node.
    pub async fn tree(&self) -> TreeNode {
        self.small_tree(MAX_CHILDREN).await
    }

    /// The supervision tree with the first few children of each: of a kind by their keys.
    /// [`Operator::branch`] has the others.
    pub async fn small_tree(&self, children: usize) -> TreeNode {
        let children = children.min(MAX_CHILDREN);
        let node = &self.node;
        let (mut up, mut waiting, mut tasks) = (node.persistence.is_up(), 0, Vec::new());
        if let Some(actors) = node.actors() {
            (up, waiting) = actors.persistence.send(Health).await.unwrap_or((false, 0));
            tasks = actors.dispatcher.send(RunningTasks).await.unwrap_or_default();
        }
        let mut dispatcher = leaf("dispatcher", "dispatcher", "active", 0);
        dispatcher.more = tasks.len().saturating_sub(children) as u64;
        dispatcher.children = tasks
            .into_iter()
            .take(children)
            .map(|(id, target, attempt)| {
                let mut task = leaf("task", &id.to_string(), "running", 0);
                task.current = Some(format!("{target}, attempt {attempt}"));
                task
            })
            .collect();
        let mut root = leaf("orchestrator", &node.settings.load().node.name, "active", 0);
        root.children = vec![
            leaf("persistence", "persistence", if up { "active" } else { "down" }, waiting as u64),
            leaf("cache", "cache", if node.cache.health().up { "active" } else { "down" }, 0),
            dispatcher,
        ];
        for tool in node.tools.values() {
            let info = tool.info();
            let mut child = leaf("tool", &info.name, &info.status, info.waiting);
            child.restarts = info.crashed + info.restarts;
            child.current = info.reason;
            root.children.push(child);
        }
        let mut groups: Vec<_> = node.groups.iter().map(|g| leaf("group", &g.name, "active", 0)).collect();
        for kind in &node.kinds {
            let mut group = leaf("kind", kind.name(), "active", kind.backlog() as u64);
            let (shown, others) =
                (running(&**kind, None, children), self.held(&**kind, None, MAX_CHILDREN).await);
            let all = kind.running() + others.len();
            group.children = beside(shown, others, children);
            group.more = all.saturating_sub(group.children.len()) as u64;
            let member_of = kind.policy().group.as_deref();
            match groups.iter_mut().find(|g| member_of == Some(&*g.name)) {
                Some(supervisor) => {
                    supervisor.depth += group.depth;
                    supervisor.children.push(group);
                }
                None => root.children.push(group),
            }
        }
        for (supervisor, declared) in groups.iter_mut().zip(&node.groups) {
            supervisor.current = Some(declared.policy.strategy.name().to_owned());
        }
        root.children.extend(groups);
        root
    }

    /// One page of the agents of a kind that run, or do not because they are held, by their keys. The cursor is the
    /// key before it.
    ///
    /// # Errors
    /// An unknown kind, or an invalid cursor or limit.
    pub async fn branch(
        &self,
        kind: &str,
        cursor: Option<&str>,
        limit: Option<usize>,
    ) -> Result<Page<TreeNode>> {
        let (_, found) = self.kind_of(kind)?;
        let limit = page_limit(limit)?;
        if cursor.is_some_and(|cursor| check_key(cursor).is_err()) {
            return Err(OperatorError::Malformed("`cursor` is not one of ours".to_owned()));
        }
        let (shown, others) = (running(&**found, cursor, limit), self.held(&**found, cursor, limit).await);
        let full = shown.len() == limit || others.len() == limit || shown.len() + others.len() > limit;
        let items = beside(shown, others, limit);
        let last = items.last().filter(|_| full);
        let next_cursor = last.and_then(|last| last.name.split_once('/')).map(|(_, key)| key.to_owned());
        Ok(Page { items, next_cursor })
    }
}

impl Operator {
    /// The first agents of a kind behind a key that are paused, stopped or quarantined and not in memory, where this
    /// node is to run them. A store that does not answer tells of none: the tree is what memory knows.
    async fn held(&self, kind: &dyn AnyKind, after: Option<&str>, limit: usize) -> Vec<TreeNode> {
        let (name, mut found) = (kind.name(), Vec::new());
        let mut after = after.map(|key| (name.to_owned(), key.to_owned()));
        for _ in 0..MAX_PAGES {
            let filter = AgentFilter {
                kind: Some(name.to_owned()),
                held: true,
                after,
                limit,
                ..AgentFilter::default()
            };
            let rows = self.node.store.agents(&filter).await.unwrap_or_default();
            let is_last = rows.len() < limit;
            after = rows.last().map(|row| (row.kind.clone(), row.key.clone()));
            let ours = |row: &AgentRow| self.node.epoch(row.id) != 0 && kind.live(&row.key).is_none();
            found.extend(rows.into_iter().filter(ours).map(|row| {
                let mut agent = leaf("agent", &format!("{name}/{}", row.key), status_name(row.status), 0);
                agent.current = row.reason;
                agent
            }));
            if is_last || found.len() >= limit {
                break;
            }
        }
        found.truncate(limit);
        found
    }
}

/// The first of both, by their names.
fn beside(running: Vec<TreeNode>, held: Vec<TreeNode>, limit: usize) -> Vec<TreeNode> {
    let mut all = running;
    all.extend(held);
    all.sort_by(|a, b| a.name.cmp(&b.name));
    all.truncate(limit);
    all
}

fn leaf(role: &str, name: &str, status: &str, depth: u64) -> TreeNode {
    TreeNode {
        role: role.to_owned(),
        name: name.to_owned(),
        status: status.to_owned(),
        restarts: 0,
        depth,
        current: None,
        message: None,
        since_ms: None,
        children: Vec::new(),
        more: 0,
    }
}

fn running(kind: &dyn AnyKind, after: Option<&str>, limit: usize) -> Vec<TreeNode> {
    let agent = |(key, info): (std::sync::Arc<str>, LiveInfo)| {
        let name = format!("{}/{key}", kind.name());
        let mut agent = leaf("agent", &name, info.status, info.mailbox.depth as u64);
        agent.restarts = info.restarts;
        if let Some((message, since_ms)) = info.current {
            agent.current = Some(format!("{message} for {since_ms} ms"));
            (agent.message, agent.since_ms) = (Some(message.to_owned()), Some(since_ms));
        }
        agent
    };
    kind.page(after, limit, &|_| true).into_iter().map(agent).collect()
}
