//! The tree of commands, and their common options.

use std::path::PathBuf;

use clap::{Args, CommandFactory as _, Parser, Subcommand};

use super::{
    agents, audit, completions, config, crashes, db, events, kinds, logs, node, nodes, schedules, schema,
    status, tasks, tokens, tools,
};
use crate::config::{Secret, Sources};

/// A durable actor runtime for agents.
#[derive(Debug, Parser)]
#[command(
    name = "greenroom",
    version,
    about = "A durable actor runtime for agents",
    arg_required_else_help = true,
    subcommand_required = true,
    infer_subcommands = false,
    max_term_width = 100,
    after_help = "Exit codes: 0 ok · 1 failed · 2 usage · 3 not found · 4 refused by state · 5 not authorised · \
                  6 unreachable · 7 degraded · 8 timed out, outcome unknown · 9 configuration invalid · 10 busy"
)]
pub(super) struct Cli {
    #[command(flatten)]
    pub common: Common,
    #[command(subcommand)]
    pub command: Command,
}

impl Cli {
    /// The tree as clap sees it.
    pub fn command_tree() -> clap::Command {
        Self::command()
    }
}

/// The options that every command has.
#[derive(Debug, Clone, Default, Args)]
pub(super) struct Common {
    /// Read this configuration file (may be repeated; later ones win)
    #[arg(long = "config", value_name = "FILE", global = true, help_heading = "Configuration")]
    pub config: Vec<PathBuf>,
    /// Set a configuration key
    #[arg(long = "set", value_name = "KEY=VALUE", global = true, help_heading = "Configuration")]
    pub set: Vec<Secret>,
    /// The directory of the node's files
    #[arg(long, value_name = "DIR", global = true, help_heading = "Configuration")]
    pub data_dir: Option<PathBuf>,
    /// The node to talk to [default: the configuration's http.bind]
    #[arg(
        long,
        env = "GREENROOM_URL",
        hide_env_values = true,
        value_name = "URL",
        global = true,
        help_heading = "Connection"
    )]
    pub url: Option<String>,
    /// The token to authenticate with [default: the file `token` in the data directory]
    #[arg(
        long,
        env = "GREENROOM_TOKEN",
        value_name = "TOKEN",
        hide_env_values = true,
        global = true,
        help_heading = "Connection"
    )]
    pub token: Option<Secret>,
    /// Also trust this certificate authority (a PEM file)
    #[arg(
        long,
        env = "GREENROOM_CACERT",
        value_name = "FILE",
        hide_env_values = true,
        global = true,
        help_heading = "Connection"
    )]
    pub cacert: Option<PathBuf>,
    /// Print JSON
    #[arg(long, global = true)]
    pub json: bool,
    /// Say nothing but data and errors; of a listing print the ids or names alone
    #[arg(short, long, global = true)]
    pub quiet: bool,
}

impl Common {
    /// Where the settings come from.
    pub fn sources(&self) -> Sources {
        Sources {
            files: self.config.clone(),
            sets: self.set.iter().map(|set| set.reveal().to_owned()).collect(),
            data_dir: self.data_dir.clone(),
            ..Sources::of_process()
        }
    }
}

/// The commands.
#[derive(Debug, Subcommand)]
pub(super) enum Command {
    /// Launch the runtime; SIGINT and SIGTERM shut it down gracefully
    Run,
    /// Show the node's health, with remedies
    Status(status::StatusArgs),
    /// Show the supervision tree
    Tree(status::TreeArgs),
    /// Shut the node down gracefully
    Stop(node::StopArgs),
    /// Nodes that share the store: list, drain, resume
    #[command(subcommand, alias = "node")]
    Nodes(nodes::Nodes),
    /// Kinds of agents: list, show their messages, pause
    #[command(subcommand, alias = "kind")]
    Kinds(kinds::Kinds),
    /// Print every wire name with its schemas, or check them for breaking changes
    Schema(schema::SchemaArgs),
    /// Agents: list, show, send messages, control, repair
    #[command(subcommand, alias = "agent")]
    Agents(agents::Agents),
    /// Tasks: submit, list, wait, cancel, retry
    #[command(subcommand, alias = "task")]
    Tasks(tasks::Tasks),
    /// Schedules: recurring tasks
    #[command(subcommand, alias = "schedule")]
    Schedules(schedules::Schedules),
    /// Tools: list, show, call
    #[command(subcommand, alias = "tool")]
    Tools(tools::Tools),
    /// Crashes, and the decisions of supervision
    #[command(subcommand, alias = "crash")]
    Crashes(crashes::Crashes),
    /// Show the last events, and follow new ones
    #[command(alias = "event")]
    Events(events::EventsArgs),
    /// Show the node's log
    #[command(alias = "log")]
    Logs(logs::LogsArgs),
    /// Access tokens: list, add, remove
    #[command(subcommand, alias = "token")]
    Tokens(tokens::Tokens),
    /// Show the audit log: operators' actions, newest first
    Audit(audit::AuditArgs),
    /// Print a link that opens the dashboard; it works once
    Login,
    /// The configuration: show, check, write a file, change settings
    #[command(subcommand)]
    Config(config::Config),
    /// The store: migrate, verify, back up (on this machine, without a node)
    #[command(subcommand)]
    Db(db::Db),
    /// Diagnose store, cache, disk, clock, port, permissions and versions
    Doctor,
    /// Print a shell completion script: `source <(greenroom completions bash)`
    Completions(completions::CompletionsArgs),
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::cli::parse_for_test as parse;

    #[test]
    fn the_tree_is_sound() {
        Cli::command_tree().debug_assert();
    }

    #[test]
    fn commands_and_their_aliases_are_understood() {
        for line in [
            "run --config a.toml --config b.toml --set http.bind=127.0.0.1:0 --data-dir d",
            "status --strict --json",
            "tree",
            "tree -w",
            "status --watch 500ms",
            "agents ls -w 1s --kind counter",
            "tasks ls --watch --state failed",
            "stop",
            "nodes ls",
            "node list",
            "nodes ls -w -q",
            "tools ls -w",
            "schedules ls -w 1s -n 5",
            "crashes ls -w --groups",
            "tasks dead -w",
            "tokens rm ci --yes",
            "schedules rm nightly -y --dry-run",
            "tasks cancel x y --yes --dry-run",
            "agents stop counter/a --clear --yes --dry-run",
            "agents rollback counter/a --to 3 --yes",
            "agents delete counter/a --dry-run",
            "nodes drain self",
            "nodes resume 0190",
            "kinds ls",
            "schema --check schema.json",
            "kind get counter",
            "agents ls --kind counter --status active -n 5 --all",
            "agents list",
            "agent describe counter/a",
            "agents send counter/a Add {\"n\":1} --timeout 5s --idempotency-key k",
            "agents send counter/a Get --submit",
            "agents state counter/a --version 3",
            "agents snapshots counter/a",
            "agents stop counter/a",
            "agents restart counter/a",
            "agents pause counter/a",
            "agents resume counter/a",
            "agents quarantine counter/a",
            "agents release counter/a",
            "agents edit counter/a @state.json --if-version 3",
            "agents edit counter/a",
            "agents edit counter/a {} --if-version 3 -y --dry-run",
            "agents release counter/a --version 3 -y --dry-run",
            "tasks resolve x --failed no -y --dry-run",
            "tasks retry x --dry-run",
            "tasks dismiss x y --yes --dry-run",
            "stop --yes --dry-run",
            "agents rollback counter/a --to 3 --dry-run",
            "agents delete counter/a --yes --cancel-tasks",
            "tasks submit counter/a Add {\"n\":1} --in 5m --priority 3 --max-attempts 2 --timeout 5s --after x --wait",
            "tasks submit tool:fs.read @in.json",
            "tasks ls --state failed --target counter/a -n 3",
            "tasks show x",
            "tasks history x",
            "tasks batch [] --idempotency-key k",
            "tasks wait x y --timeout 10s",
            "task cancel x y",
            "tasks retry x",
            "schedules ls",
            "schedule get nightly",
            "schedules add nightly @daily counter/a Add {\"n\":1} --overlap queue_one --misfire all --priority -3 --paused",
            "schedules add often @hourly tool:fs.read @in.json --max-attempts 2 --timeout 5s --tag a --tag b",
            "schedules pause nightly",
            "schedules resume nightly",
            "schedules run nightly --idempotency-key k",
            "schedules rm nightly",
            "tools ls",
            "tool show fs.read",
            "tools call fs.read -",
            "crashes ls",
            "crashes ls --groups --since 1h",
            "crashes show x",
            "events -f -n 20 --event agent.crashed,task.* --subject counter/* --since 10m --jsonl",
            "logs -f -n 20 --level warn --subject counter/a --since 10m",
            "tokens ls",
            "tokens add ci --scope read --expires 30d",
            "token rm ci",
            "login",
            "audit --who ci --subject counter/a --action agent.stop -n 5 --since 7d --until 2030-01-01T00:00:00Z",
            "audit --all",
            "config show --origin",
            "config check",
            "db migrate",
            "db status",
            "db verify",
            "db backup copy.db",
            "config check --connect",
            "config init --production --force --yes --dry-run",
            "config set log.level debug --dry-run",
            "config unset log.level",
            "config unset log --yes --dry-run",
            "doctor --json",
            "completions zsh",
        ] {
            let words: Vec<&str> = line.split(' ').collect();
            assert!(parse(&words).is_ok(), "{line}: {}", parse(&words).unwrap_err());
        }
    }

    #[test]
    fn no_secret_of_a_command_line_is_printed() {
        const CANARY: &str = "canary-0a9c";
        let (token, set) = (format!("--token={CANARY}"), format!("--set=http.token={CANARY}"));
        let mut read = parse(&["status", &token, &set]).unwrap();
        read.common.data_dir = Some("here".into());
        let sources = Sources {
            env: vec![("DATABASE_URL".into(), CANARY.into())],
            stored: vec![("app.x".into(), CANARY.into())],
            overrides: vec![("app.y".into(), CANARY.into())],
            ..read.common.sources()
        };
        assert_eq!(sources.sets, [format!("http.token={CANARY}")]);
        let printed = format!("{read:?} {sources:?}");
        assert!(!printed.contains(CANARY) && printed.contains("here"), "{printed}");
    }

    #[test]
    fn what_is_wrong_is_a_usage_error() {
        for line in [
            "agents show counter",
            "agents show tool:fs.read",
            "agents show Counter/a",
            "agents send counter/a",
            "agents send counter/a Add {} --tell --submit",
            "agents send counter/a Add {} --tell --idempotency-key k",
            "agents send counter/a Add {} --timeout 30",
            "tasks submit nowhere Add",
            "tasks submit counter/a Add --at 2030-01-01T00:00:00Z --in 5m",
            "tasks wait",
            "audit --since yesterday",
            "schedules add nightly @daily",
            "schedules add nightly @daily counter/a Add {} --overlap never",
            "nonsense",
        ] {
            let words: Vec<&str> = line.split(' ').collect();
            let error = parse(&words).map(|_| ()).unwrap_err();
            assert_eq!(error.exit_code(), 2, "{line}");
        }
        assert_eq!(parse(&["--help"]).map(|_| ()).unwrap_err().exit_code(), 0);
    }
}
