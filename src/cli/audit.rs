//! `audit`: the audit log of operators' actions.

use clap::Args;

use super::{Session, client::typed, exit::Failure, period::Period, table::Table, when};
use crate::model::act::Act;

#[derive(Debug, Args)]
pub(super) struct AuditArgs {
    /// Only actions with the token of this name
    #[arg(long, value_name = "NAME")]
    pub who: Option<String>,
    /// Only actions on this: KIND/KEY, task:ID, token:NAME, …
    #[arg(long, value_name = "SUBJECT")]
    pub subject: Option<String>,
    /// Only this action, such as agent.stop
    #[arg(long, value_name = "ACTION")]
    pub action: Option<String>,
    #[command(flatten)]
    period: Period,
    /// How many
    #[arg(short = 'n', long, value_name = "N", default_value_t = 50, conflicts_with = "all")]
    pub limit: usize,
    /// All of them
    #[arg(long)]
    pub all: bool,
}

/// `audit`: the latest first.
pub(super) fn audit(session: &Session<'_>, args: &AuditArgs) -> Result<(), Failure> {
    let AuditArgs { who, subject, action, .. } = args;
    let [since, until] = args.period.query();
    let wanted =
        [("who", who.clone()), ("subject", subject.clone()), ("action", action.clone()), since, until];
    let limit = if args.all { None } else { Some(args.limit) };
    let (items, rest) = session.client()?.pages("/api/v1/audit", &wanted, limit)?;
    if session.json() {
        return Ok(rest.json(&items)?);
    }
    let mut table = Table::new(&["WHEN", "WHO", "FROM", "ACTION", "SUBJECT", "OUTCOME", "BEFORE", "AFTER"]);
    let text = |value: Option<serde_json::Value>| value.map(|value| value.to_string()).unwrap_or_default();
    for act in typed::<Act>(items)? {
        table.row([
            when::ago(act.at),
            act.who,
            act.by.unwrap_or_default(),
            act.action,
            act.subject,
            act.outcome.unwrap_or_else(|| "unknown".to_owned()),
            text(act.before),
            text(act.after),
        ]);
    }
    table.print("nobody has done anything")?;
    rest.tell();
    Ok(())
}
