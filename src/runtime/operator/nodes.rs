//! The nodes that share the store.

use super::{Operator, OperatorError, Result, not_found, wrong_state};
use crate::{
    clock,
    model::event::{self, Event, Level},
    runtime::views::MemberInfo,
    store::NodeRow,
};

impl Operator {
    /// The nodes that have not ended, with what they own: as the store knows them, or, while it does
    /// not answer, as it knew them last.
    ///
    /// # Errors
    /// The store has never answered yet.
    pub async fn nodes(&self) -> Result<Vec<MemberInfo>> {
        let node = &self.node;
        let rows =
            if node.is_troubled(false) { node.owned.nodes().to_vec() } else { node.store.nodes().await? };
        Ok(rows.into_iter().map(|row| self.member(row)).collect())
    }

    fn member(&self, row: NodeRow) -> MemberInfo {
        let (node, now) = (&self.node, clock::now());
        let this = row.boot == node.boot;
        let drained_at = if this { node.draining.since() } else { row.drained_at };
        let status = match row.lease_until {
            _ if this && node.owned.is_past(node.uptime()) => "suspended",
            Some(until) if until < now => "expired",
            _ if drained_at.is_some() => "draining",
            _ => "active",
        };
        MemberInfo {
            id: row.boot.to_string(),
            name: row.name,
            // A store whose lock is the lease keeps no URL: there is nobody else to read it.
            url: row.url.or_else(|| node.settings.load().node.url.clone().filter(|_| this)),
            started_at: row.started_at,
            lease_until: row.lease_until,
            partitions: row.partitions,
            this,
            status: status.to_owned(),
            drained_at,
        }
    }

    /// Checks that `id` means the answering node: by `self`, by its boot id or a prefix of it, or
    /// by its name if that is unique.
    ///
    /// # Errors
    /// [`OperatorError::Elsewhere`] if another node is meant, with its URL;
    /// [`AskError::NotFound`](crate::AskError::NotFound) if none is, and
    /// [`AskError::WrongState`](crate::AskError::WrongState) if it is ambiguous.
    pub async fn is_meant(&self, id: &str) -> Result<()> {
        let own = self.node.boot.to_string();
        if id == "self" || id == own {
            return Ok(());
        }
        let nodes = self.nodes().await?;
        match named(&nodes, id).as_slice() {
            [one] if one.id == own => Ok(()),
            [one] => {
                let at = one.url.as_ref().map(|url| format!(": ask it at {url}")).unwrap_or_default();
                let why = format!("`{}` is another node{at}", one.name);
                Err(OperatorError::Elsewhere { why, owner: one.url.clone() })
            }
            [] => Err(not_found(format!(
                "there is no node `{}`; `self` is the one that answers",
                id.escape_debug()
            ))),
            several => {
                let ids: Vec<&str> = several.iter().map(|node| node.id.as_str()).collect();
                Err(wrong_state(format!("`{}` may be {}", id.escape_debug(), ids.join(" or "))))
            }
        }
    }

    /// Drains the node, so that it starts no tasks, or resumes it. Running tasks end; messages are accepted, since
    /// no other node may take them for the partitions that it owns; load balancers are told to send it none
    /// (`/health/ready`). A restart resets it.
    ///
    /// # Errors
    /// It took effect, but the store did not record it: other nodes do not show it.
    pub async fn drain(&self, on: bool) -> Result<()> {
        let node = &self.node;
        if node.draining.set(on, clock::now()) {
            self.tell_drained(on);
        }
        match node.store.shared() {
            Some(shared) => Ok(shared.drain(node.boot, node.draining.since()).await?),
            None => Ok(()),
        }
    }

    fn tell_drained(&self, on: bool) {
        let node = &self.node;
        let name = if on { event::NODE_DRAINING } else { event::NODE_RESUMED };
        let event = Event::new(Level::Warn, name, format!("node:{}", node.settings.load().node.name));
        let event = event.field("by", "operator");
        node.logger.emit(if on { event.hint("greenroom nodes resume self") } else { event });
        if !on {
            node.wake_dispatcher(true);
        }
    }
}

/// So much of a boot id says which is meant: a shorter slip of the hand must not stop a node.
const LEAST: usize = 8;

/// Those that a person may mean, from the surest way to name one to the least.
pub(crate) fn named<'a>(nodes: &'a [MemberInfo], id: &str) -> Vec<&'a MemberInfo> {
    let such = |is: &dyn Fn(&MemberInfo) -> bool| nodes.iter().filter(|node| is(node)).collect::<Vec<_>>();
    let whole = such(&|node| node.id == id || (id == "self" && node.this));
    if !whole.is_empty() {
        return whole;
    }
    let name = such(&|node| node.name == id);
    if name.is_empty() && id.len() >= LEAST { such(&|node| node.id.starts_with(id)) } else { name }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn node(id: &str, name: &str) -> MemberInfo {
        MemberInfo {
            id: id.to_owned(),
            name: name.to_owned(),
            url: None,
            started_at: jiff::Timestamp::UNIX_EPOCH,
            lease_until: None,
            partitions: Vec::new(),
            this: id == "0000001-a",
            status: "active".to_owned(),
            drained_at: None,
        }
    }

    #[test]
    fn a_node_is_named_by_its_boot_its_beginning_or_its_name() {
        let nodes = [node("0000001-a", "eu"), node("0000001-b", "us"), node("00000002-c", "us")];
        for (id, found) in [
            ("self", &["0000001-a"][..]),
            ("0000001-b", &["0000001-b"]),
            ("00000002", &["00000002-c"]),
            ("0000001-", &["0000001-a", "0000001-b"]),
            ("0", &[]),
            ("eu", &["0000001-a"]),
            ("us", &["0000001-b", "00000002-c"]),
            ("", &[]),
            ("x", &[]),
        ] {
            let ids: Vec<&str> = named(&nodes, id).iter().map(|node| node.id.as_str()).collect();
            assert_eq!(ids, found, "{id}");
        }
    }
}
