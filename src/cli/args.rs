//! The tree of commands, and the options that all of them have.

use std::path::PathBuf;

use clap::{Args, CommandFactory as _, Parser, Subcommand};

use super::{
    agents, audit, completions, config, crashes, db, events, kinds, logs, node, nodes, schedules, schema,
    status, tasks, tokens, tools,
};
use crate::config::Sources;

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
    pub set: Vec<String>,
    /// Where the node keeps its files
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
    /// The token to show [default: the file `token` in the data directory]
    #[arg(
        long,
        env = "GREENROOM_TOKEN",
        value_name = "TOKEN",
        hide_env_values = true,
        global = true,
        help_heading = "Connection"
    )]
    pub token: Option<String>,
    /// Trust this certificate authority too: a PEM file
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
}

impl Common {
    /// Where the settings come from.
    pub fn sources(&self) -> Sources {
        Sources {
            files: self.config.clone(),
            sets: self.set.clone(),
            data_dir: self.data_dir.clone(),
            ..Sources::of_process()
        }
    }
}

/// What to do.
#[derive(Debug, Subcommand)]
pub(super) enum Command {
    /// Launch the runtime; SIGINT and SIGTERM end it in good order
    Run,
    /// Show how the node is, and what to do about it
    Status(status::StatusArgs),
    /// Show the supervision tree
    Tree(status::TreeArgs),
    /// Stop the node in good order
    Stop(node::StopArgs),
    /// The nodes that share the store
    #[command(subcommand, alias = "node")]
    Nodes(nodes::Nodes),
    /// Kinds of agents and their messages
    #[command(subcommand, alias = "kind")]
    Kinds(kinds::Kinds),
    /// Every wire name of this program with its schemas, and whether it keeps what an earlier one promised
    Schema(schema::SchemaArgs),
    /// Agents: look at them, send to them, act on them
    #[command(subcommand, alias = "agent")]
    Agents(agents::Agents),
    /// Tasks: durable work
    #[command(subcommand, alias = "task")]
    Tasks(tasks::Tasks),
    /// Schedules: tasks again and again
    #[command(subcommand, alias = "schedule")]
    Schedules(schedules::Schedules),
    /// Tools: look at them, call them
    #[command(subcommand, alias = "tool")]
    Tools(tools::Tools),
    /// Crashes, and what supervision did
    #[command(subcommand, alias = "crash")]
    Crashes(crashes::Crashes),
    /// Show what happened last, and follow what happens
    #[command(alias = "event")]
    Events(events::EventsArgs),
    /// Show the node's log
    #[command(alias = "log")]
    Logs(logs::LogsArgs),
    /// Tokens: who may come in, and what they may do
    #[command(subcommand, alias = "token")]
    Tokens(tokens::Tokens),
    /// Show what operators did, the latest first
    Audit(audit::AuditArgs),
    /// Print a link that opens the dashboard, once
    Login,
    /// The configuration, as it is read on this machine
    #[command(subcommand)]
    Config(config::Config),
    /// The store: migrate it, check it (on this machine, without a node)
    #[command(subcommand)]
    Db(db::Db),
    /// Look at what a node needs: store, cache, disk, clock, port, permissions, versions
    Doctor,
    /// Print a completion script: `source <(greenroom completions bash)`
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
            "agents rollback counter/a --to 3 --dry-run",
            "agents delete counter/a --yes --cancel-tasks",
            "tasks submit counter/a Add {\"n\":1} --in 5m --priority 3 --max-attempts 2 --timeout 5s --after x --wait",
            "tasks submit tool:fs.read @in.json",
            "tasks ls --state failed --target counter/a -n 3",
            "tasks show x",
            "tasks history x",
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
            "crashes ls --groups",
            "crashes show x",
            "events -f -n 20 --event agent.crashed,task.* --subject counter/* --since 10m --jsonl",
            "logs -f -n 20 --level warn --subject counter/a --since 10m",
            "tokens ls",
            "tokens add ci --scope read --expires 30d",
            "token rm ci",
            "login",
            "audit --who ci --subject counter/a --action agent.stop -n 5",
            "audit --all",
            "config show --origin",
            "config check",
            "db migrate",
            "db status",
            "db verify",
            "db backup copy.db",
            "config check --connect",
            "config init --production --force",
            "config set log.level debug --dry-run",
            "config unset log.level",
            "doctor --json",
            "completions zsh",
        ] {
            let words: Vec<&str> = line.split(' ').collect();
            assert!(parse(&words).is_ok(), "{line}: {}", parse(&words).unwrap_err());
        }
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
