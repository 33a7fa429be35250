//! The command line.
//!
//! Every group of commands is a file with its arguments and its functions. Commands that look at or
//! change a node are clients of its HTTP API; `run`, `config` and `db` work on this machine. Data
//! goes to stdout, everything else to stderr; [`Exit`] says what the exit codes mean, `exit.rs` decides
//! which one an error has. Only this room names clap.
//!
//! [`main`] is given an [`App`]: how to load the settings, how to run the node. So a user's own
//! binary offers the same commands as `greenroom` itself.

mod advice;
mod again;
mod agents;
mod args;
mod audit;
mod care;
mod client;
mod completions;
mod config;
mod crashes;
mod db;
mod dead;
mod demo;
mod disk;
mod doctor;
mod events;
mod exit;
mod fitness;
mod input;
mod kinds;
mod limit;
mod login;
mod logs;
mod node;
mod nodes;
mod out;
mod period;
mod repair;
mod schedules;
mod schema;
mod sse;
mod status;
mod table;
mod task;
mod tasks;
mod tokens;
mod tools;
mod trust;
mod watch;
mod when;

use std::{ffi::OsString, path::Path, process::ExitCode};

use clap::{ArgMatches, Args as _, FromArgMatches as _, error::ErrorKind};

use self::{
    args::{Cli, Command, Common},
    client::Client,
};
pub use self::{
    demo::DemoArgs,
    exit::{Exit, Failure},
};
use crate::{
    config::{Errors, Settings, Sources},
    model::wire::Wire,
    runtime::trial::Trials,
};

/// What a program gives its command line.
pub trait App {
    /// Loads the settings and checks them, but for what the program has declared itself.
    ///
    /// # Errors
    /// Everything that is wrong.
    fn settings(&self, sources: &Sources) -> Result<Settings, Errors>;

    /// Runs a node until it is told to stop. `sources` is where the settings came from, for reloading.
    ///
    /// # Errors
    /// Why it could not start, or did not end well, with the exit code.
    fn run(self, settings: Settings, sources: Sources) -> Result<(), Failure>;

    /// Checks what the program itself has declared of its settings.
    ///
    /// # Errors
    /// Everything that is wrong.
    fn misfits(&self, _: &Settings) -> Result<(), Errors> {
        Ok(())
    }

    /// Dry runs over the stored states of the program's kinds.
    fn trials(&self, _: &Settings) -> Trials {
        Trials::default()
    }

    /// The program's wire interface: kinds, messages and tools.
    fn wire(&self, _: &Settings) -> Wire {
        Wire::default()
    }

    /// Runs the demo. A program that has none does not offer the command.
    fn demo(&self) -> Option<fn(DemoArgs) -> Result<(), Failure>> {
        None
    }
}

/// Parses the arguments of this process and does what they say.
pub fn main(app: impl App) -> ExitCode {
    // Databases, logs, backups, drafts: what is written here is for nobody else, whoever made the directory.
    rustix::process::umask(rustix::fs::Mode::from_raw_mode(0o077));
    ExitCode::from(main_with(app, std::env::args_os().collect()) as u8)
}

/// Does what `args` say, the program's name first.
pub fn main_with(app: impl App, args: Vec<OsString>) -> Exit {
    let program = program_name(args.first());
    let matches = match parse(&app, args.clone()) {
        Ok(matches) => matches,
        Err(error) => return misunderstood(&app, args, &error),
    };
    match dispatch(app, &matches, &program) {
        Ok(()) => Exit::Ok,
        Err(failure) => {
            failure.print();
            failure.exit
        }
    }
}

fn program_name(arg: Option<&OsString>) -> String {
    let name = arg.and_then(|arg| Path::new(arg).file_stem());
    name.map_or_else(|| "greenroom".to_owned(), |name| name.to_string_lossy().into_owned())
}

fn parse(app: &impl App, args: Vec<OsString>) -> Result<ArgMatches, clap::Error> {
    tree(app).try_get_matches_from(args)
}

/// The tree of commands that this program has.
fn tree(app: &impl App) -> clap::Command {
    let command = Cli::command_tree();
    if app.demo().is_none() {
        return command;
    }
    // Second, behind `run`.
    command.subcommand(DemoArgs::augment_args(clap::Command::new("demo")).display_order(1))
}

/// Help that was asked for goes to stdout; what is wrong, and help in its place, to stderr.
fn misunderstood(app: &impl App, mut args: Vec<OsString>, error: &clap::Error) -> Exit {
    if error.kind() == ErrorKind::MissingSubcommand {
        args.push("--help".into());
        if let Err(help) = parse(app, args) {
            out::note(help.to_string().trim_end());
            return Exit::Usage;
        }
    }
    // Where the stream is closed, nobody wants to know.
    let _ = error.print();
    if error.use_stderr() { Exit::Usage } else { Exit::Ok }
}

fn dispatch(app: impl App, matches: &ArgMatches, program: &str) -> Result<(), Failure> {
    if let (Some(("demo", given)), Some(demo)) = (matches.subcommand(), app.demo()) {
        let common = Common::from_arg_matches(given).map_err(Failure::usage)?;
        let args = DemoArgs::from_arg_matches(given).map_err(Failure::usage)?;
        return demo(DemoArgs { data_dir: common.data_dir, ..args });
    }
    let cli = Cli::from_arg_matches(matches).map_err(Failure::usage)?;
    out::be_quiet(cli.common.quiet);
    if let Command::Run = cli.command {
        let sources = cli.common.sources();
        let settings = app.settings(&sources)?;
        return app.run(settings, sources);
    }
    let load = |sources: &Sources| app.settings(sources);
    let trials = |settings: &Settings| app.trials(settings);
    let wire = |settings: &Settings| app.wire(settings);
    let misfits = |settings: &Settings| app.misfits(settings);
    let session = Session {
        common: &cli.common,
        program,
        load: &load,
        misfits: &misfits,
        trials: &trials,
        wire: &wire,
    };
    match cli.command {
        Command::Run => Ok(()), // done above
        Command::Status(args) => status::status(&session, &args),
        Command::Tree(args) => status::tree(&session, &args),
        Command::Stop(args) => node::stop(&session, &args),
        Command::Nodes(command) => nodes::run(&session, command),
        Command::Kinds(command) => kinds::run(&session, command),
        Command::Schema(args) => schema::run(&session, &args),
        Command::Agents(command) => agents::run(&session, command),
        Command::Tasks(command) => tasks::run(&session, command),
        Command::Schedules(command) => schedules::run(&session, command),
        Command::Tools(command) => tools::run(&session, command),
        Command::Crashes(command) => crashes::run(&session, command),
        Command::Events(args) => events::events(&session, &args),
        Command::Logs(args) => logs::logs(&session, &args),
        Command::Tokens(command) => tokens::run(&session, command),
        Command::Audit(args) => audit::audit(&session, &args),
        Command::Login => login::login(&session),
        Command::Config(command) => config::run(&session, command),
        Command::Db(command) => db::run(&session, command),
        Command::Doctor => doctor::run(&session),
        Command::Completions(args) => completions::run(tree(&app), program, &args),
    }
}

/// What every command may use.
struct Session<'a> {
    common: &'a Common,
    program: &'a str,
    load: &'a dyn Fn(&Sources) -> Result<Settings, Errors>,
    misfits: &'a dyn Fn(&Settings) -> Result<(), Errors>,
    trials: &'a dyn Fn(&Settings) -> Trials,
    wire: &'a dyn Fn(&Settings) -> Wire,
}

impl Session<'_> {
    fn settings(&self) -> Result<Settings, Failure> {
        Ok((self.load)(&self.common.sources())?)
    }

    fn client(&self) -> Result<Client, Failure> {
        Client::of(self)
    }

    fn json(&self) -> bool {
        self.common.json
    }
}

/// Reads a command line of its own, for tests.
#[cfg(test)]
fn parse_for_test(args: &[&str]) -> Result<Cli, clap::Error> {
    let mut words = vec!["greenroom"];
    words.extend(args);
    let matches = Cli::command_tree().try_get_matches_from(words)?;
    Cli::from_arg_matches(&matches)
}

#[cfg(test)]
mod tests {
    use super::*;

    /// A program that checks what it is given.
    struct Fake {
        demo: bool,
    }

    impl App for Fake {
        fn settings(&self, sources: &Sources) -> Result<Settings, Errors> {
            crate::config::load(&Sources { env: Vec::new(), ..sources.clone() })
        }

        fn run(self, settings: Settings, _: Sources) -> Result<(), Failure> {
            match settings.node.name.as_str() {
                "eu-1" => Ok(()),
                _ => Err(Failure::new(Exit::Refused, "the data directory is in use")),
            }
        }

        fn demo(&self) -> Option<fn(DemoArgs) -> Result<(), Failure>> {
            self.demo.then_some(|args| {
                let as_given =
                    args.kills == 3 && args.once && args.data_dir.as_deref() == Some(Path::new("d"));
                if as_given { Ok(()) } else { Err(Failure::silent(Exit::Failed)) }
            })
        }
    }

    fn end(demo: bool, line: &str) -> Exit {
        main_with(Fake { demo }, line.split(' ').map(OsString::from).collect())
    }

    #[test]
    fn a_node_is_run_with_its_settings() {
        assert_eq!(end(false, "greenroom run --set node.name=eu-1"), Exit::Ok);
        assert_eq!(end(false, "greenroom run --set node.name=us-1"), Exit::Refused);
        assert_eq!(end(false, "greenroom run --set node.nme=eu-1"), Exit::Config);
        assert_eq!(end(false, "greenroom run --nonsense"), Exit::Usage);
    }

    #[test]
    fn the_demo_is_offered_by_programs_that_have_one() {
        assert_eq!(end(false, "mine demo --kills 3 --once --data-dir d"), Exit::Usage);
        assert_eq!(end(true, "greenroom demo --kills 3 --once --data-dir d"), Exit::Ok);
        assert_eq!(end(true, "greenroom demo . --limit 5"), Exit::Failed);
    }

    #[test]
    fn hints_name_the_program_that_was_called() {
        assert_eq!(program_name(Some(&"/usr/bin/mine".into())), "mine");
        assert_eq!(program_name(None), "greenroom");
    }
}
