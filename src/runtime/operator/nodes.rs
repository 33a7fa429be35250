//! The nodes that share the store.

use super::{Operator, Result};
use crate::clock;
use crate::runtime::views::MemberInfo;

impl Operator {
    /// The nodes that have not ended, with what they own: as the store knows them, or, while it does
    /// not answer, as it knew them last.
    ///
    /// # Errors
    /// A store that does not answer for the first time.
    pub async fn nodes(&self) -> Result<Vec<MemberInfo>> {
        let (node, now) = (&self.node, clock::now());
        let rows =
            if node.is_troubled(false) { node.owned.nodes().to_vec() } else { node.store.nodes().await? };
        let info = |row: crate::store::NodeRow| {
            let this = row.boot == node.boot;
            let status = match row.lease_until {
                _ if this && node.owned.is_past(node.uptime()) => "suspended",
                Some(until) if until < now => "expired",
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
            }
        };
        Ok(rows.into_iter().map(info).collect())
    }
}
