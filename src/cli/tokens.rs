//! `tokens`: access tokens and their scopes.

use std::time::Duration;

use clap::{Args, Subcommand};

use super::{
    Session,
    care::Care,
    client::encode,
    exit::{Exit, Failure},
    input, out,
    table::Table,
    when,
};
use crate::{
    model::{access::Scope, units::print_duration},
    runtime::views::{NewToken, Page, TokenRequest, TokenView},
};

#[derive(Debug, Subcommand)]
pub(super) enum Tokens {
    /// List tokens (names and scopes, never the secrets)
    #[command(alias = "list")]
    Ls,
    /// Create a token; it is printed only now
    Add(AddArgs),
    /// Revoke a token
    #[command(alias = "remove", alias = "delete")]
    Rm {
        /// The token's name
        name: String,
        #[command(flatten)]
        care: Care,
    },
}

#[derive(Debug, Args)]
pub(super) struct AddArgs {
    /// Its name: who or what uses it
    pub name: String,
    /// What it may do: read, operate or admin
    #[arg(long, value_name = "SCOPE", default_value_t = Scope::Read)]
    pub scope: Scope,
    /// Expires after this time, such as 30d [default: never]
    #[arg(long, value_name = "TIME", value_parser = input::duration)]
    pub expires: Option<Duration>,
}

pub(super) fn run(session: &Session<'_>, command: Tokens) -> Result<(), Failure> {
    match command {
        Tokens::Ls => list(session),
        Tokens::Add(args) => add(session, args),
        Tokens::Rm { name, care } => remove(session, &name, &care),
    }
}

fn remove(session: &Session<'_>, name: &str, care: &Care) -> Result<(), Failure> {
    let client = session.client()?;
    if care.dry_run {
        let known = client.get("/api/v1/tokens")?.read::<Page<TokenView>>()?.items;
        let token = known.iter().find(|token| token.name == name);
        let token =
            token.ok_or_else(|| Failure::new(Exit::NotFound, format!("there is no token `{name}`")))?;
        if session.json() {
            return Ok(out::line(&serde_json::json!(token).to_string())?);
        }
        let used = token.last_used.map_or_else(|| "never".to_owned(), when::ago);
        let name = out::plain(&token.name);
        return Ok(out::line(&format!(
            "{name}  would be revoked: it may {}, last used {used}",
            token.scope
        ))?);
    }
    care.confirm(&format!(
        "revoke the token `{}`? Whoever uses it is refused from then on.",
        out::plain(name)
    ))?;
    client.delete(&format!("/api/v1/tokens/{}", encode(name))).map(drop)
}

fn list(session: &Session<'_>) -> Result<(), Failure> {
    let reply = session.client()?.get("/api/v1/tokens")?;
    if session.json() {
        return Ok(out::json(&reply.body)?);
    }
    let mut table = Table::new(&["NAME", "SCOPE", "MADE", "EXPIRES", "LAST USED"]);
    for token in reply.read::<Page<TokenView>>()?.items {
        table.row([
            token.name,
            token.scope.to_string(),
            when::ago(token.created_at),
            token.expires_at.map_or_else(|| "never".to_owned(), when::ago),
            token.last_used.map_or_else(|| "never".to_owned(), when::ago),
        ]);
    }
    Ok(table.print("no tokens but the node's own")?)
}

fn add(session: &Session<'_>, args: AddArgs) -> Result<(), Failure> {
    let AddArgs { name, scope, expires } = args;
    let request = TokenRequest { name, scope, expires_in: expires.map(print_duration) };
    let body = serde_json::to_vec(&request).map_err(Failure::usage)?;
    let reply = session.client()?.post("/api/v1/tokens", body)?;
    if session.json() {
        return Ok(out::json(&reply.body)?);
    }
    let made: NewToken = reply.read()?;
    out::line(&out::plain(made.token.reveal()))?;
    let name = out::plain(&made.kept.name);
    out::note(&format!("`{name}` may {scope}; this is the only time that its token is shown"));
    Ok(())
}
