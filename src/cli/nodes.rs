//! `nodes`: who shares the store, and who owns what.

use clap::Subcommand;

use super::{Session, exit::Failure, out, table::Table};
use crate::runtime::views::{MemberInfo, Page};

#[derive(Debug, Subcommand)]
pub(super) enum Nodes {
    /// List the nodes
    #[command(alias = "list")]
    Ls,
}

pub(super) fn run(session: &Session<'_>, command: Nodes) -> Result<(), Failure> {
    match command {
        Nodes::Ls => list(session),
    }
}

fn list(session: &Session<'_>) -> Result<(), Failure> {
    let reply = session.client()?.get("/api/v1/nodes")?;
    if session.json() {
        return Ok(out::json(&reply.body)?);
    }
    let mut table = Table::new(&["NODE", "STATUS", "PARTITIONS", "URL", "LEASE UNTIL", "ID"]);
    for node in reply.read::<Page<MemberInfo>>()?.items {
        let name = if node.this { format!("{} (this one)", node.name) } else { node.name };
        let until = node.lease_until.map_or_else(|| "-".to_owned(), |until| until.to_string());
        let url = node.url.unwrap_or_else(|| "-".to_owned());
        table.row([name, node.status, node.partitions.len().to_string(), url, until, node.id]);
    }
    Ok(table.print("the store knows no node")?)
}
