//! `nodes`: the nodes that share the store, what they own, and draining them.

use clap::Subcommand;

use super::{
    Session,
    again::Again,
    client::{Client, encode},
    exit::{Exit, Failure},
    out,
    table::Table,
    when,
};
use crate::runtime::{
    operator::named,
    views::{MemberInfo, Page},
};

#[derive(Debug, Subcommand)]
pub(super) enum Nodes {
    /// List the nodes
    #[command(alias = "list")]
    Ls(Again),
    /// Drain a node: it starts no tasks but still takes messages. Reset by a restart
    Drain(Which),
    /// Let a drained node start tasks again
    Resume(Which),
}

#[derive(Debug, clap::Args)]
pub(super) struct Which {
    /// The node: its id or a prefix of it, its name if unique, or `self`
    #[arg(value_name = "ID")]
    id: String,
}

pub(super) fn run(session: &Session<'_>, command: Nodes) -> Result<(), Failure> {
    match command {
        Nodes::Ls(again) => again.show(|| list(session)),
        Nodes::Drain(which) => act(session, &which.id, "drain", |node| {
            let owned = node.partitions.len();
            format!(
                "begins no tasks any more; it keeps its {owned} partitions, and takes their agents' messages"
            )
        }),
        Nodes::Resume(which) => act(session, &which.id, "resume", |_| "begins tasks again".to_owned()),
    }
}

fn nodes(client: &Client) -> Result<Vec<MemberInfo>, Failure> {
    Ok(client.get("/api/v1/nodes")?.read::<Page<MemberInfo>>()?.items)
}

/// Asks the node that is meant, which may be another one than the one that is asked who there is.
fn act(
    session: &Session<'_>,
    id: &str,
    action: &str,
    done: impl Fn(&MemberInfo) -> String,
) -> Result<(), Failure> {
    let client = session.client()?;
    let nodes = nodes(&client)?;
    let hint = format!("{} nodes ls", session.program);
    let node = match named(&nodes, id).as_slice() {
        [one] => (*one).clone(),
        [] => return Err(Failure::new(Exit::NotFound, format!("there is no node `{id}`")).hint(hint)),
        _ => return Err(Failure::new(Exit::Refused, format!("`{id}` may be several nodes")).hint(hint)),
    };
    let there = match &node.url {
        _ if node.this => client,
        // It is the store that says so, and whoever writes there: a token goes over no open line for that.
        Some(url) if !client.may_tell(url) => {
            let why =
                format!("`{}` is reached at {url}, without TLS: the token is not sent there", node.name);
            return Err(Failure::new(Exit::Refused, why).hint("give that node's --url and token yourself"));
        }
        Some(url) => client.at(url),
        None => {
            let why = format!("`{}` does not say where it is reached", node.name);
            return Err(Failure::new(Exit::Unreachable, why).hint("set node.url there, or give its --url"));
        }
    };
    let reply = there.post(&format!("/api/v1/nodes/{}/{action}", encode(&node.id)), Vec::new())?;
    if session.json() {
        return Ok(out::json(&reply.body)?);
    }
    out::note(&format!("{} {}", node.name, done(&node)));
    Ok(())
}

fn list(session: &Session<'_>) -> Result<(), Failure> {
    let reply = session.client()?.get("/api/v1/nodes")?;
    if session.json() {
        return Ok(out::json(&reply.body)?);
    }
    let mut table = Table::new(&["NODE", "STATUS", "PARTITIONS", "URL", "STARTED", "LEASE UNTIL", "ID"]);
    for node in reply.read::<Page<MemberInfo>>()?.items {
        let name = if node.this { format!("{} (this one)", node.name) } else { node.name };
        let until = node.lease_until.map_or_else(|| "-".to_owned(), when::exact);
        let url = node.url.unwrap_or_else(|| "-".to_owned());
        let (owned, started) = (node.partitions.len().to_string(), when::ago(node.started_at));
        table.row([name, node.status, owned, url, started, until, node.id]);
    }
    Ok(table.print("the store knows no node")?)
}
