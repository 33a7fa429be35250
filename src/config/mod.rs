//! Configuration: layers, validation, and the origin of every value.
//!
//! Later wins: the built-in `config/default.toml` < `greenroom.toml` or the files that were given <
//! what `config set` keeps in the store < the environment < what the program's code sets <
//! `--set`. Each layer keeps its flat list of keys with origins; the `config` crate merges them;
//! the structs of [`Settings`] say what is valid. Every error is reported, not the first.

mod app;
mod audit;
mod cache;
mod check;
mod error;
mod layer;
mod live;
mod log;
mod schema;
mod secret;
mod settings;
mod show;
mod supervision;
mod tasks;

use std::{fmt, path::PathBuf, time::Duration};

use serde_json::Value;

pub use self::{
    audit::Audit,
    cache::{Cache, CacheMessages, CacheRoom},
    check::MIN_TOKEN_BYTES,
    error::{Errors, Problem},
    live::{Change, is_live, patched},
    log::{Log, LogConsole, LogFile, LogFormat},
    schema::settings_schema,
    secret::{Disclosed, HIDDEN, Secret, Url, without_password},
    settings::*,
    show::{Origin, Shown},
    supervision::{GroupOverrides, RestartOverrides, Supervision},
    tasks::{TaskOverrides, Tasks},
};
use self::{
    check::{Checked, holds_secret},
    layer::{Entry, Key, Layer},
};
use crate::{model::units::parse_duration, secrets};

/// The built-in defaults, every key with a comment.
pub const DEFAULTS: &str = include_str!("../../config/default.toml");
/// A commented example for a node in earnest.
pub const PRODUCTION: &str = include_str!("../../config/production.toml");
/// The file that is read from the working directory where no other is named.
pub const FILE: &str = "greenroom.toml";

/// Where a configuration comes from. Nothing else is read: no variable, no directory.
#[derive(Clone, Default)]
pub struct Sources {
    /// The working directory: where [`FILE`] is looked for, and what relative files start from.
    pub cwd: PathBuf,
    /// Files named with `--config`, in order; none: [`FILE`], if it is there.
    pub files: Vec<PathBuf>,
    /// What `config set` keeps in the store: dotted keys. Never `store.*` or `node.*`.
    pub stored: Vec<(String, Value)>,
    /// The environment.
    pub env: Vec<(String, String)>,
    /// What the program's code sets: above the environment, so that a test is not diverted by a
    /// variable; below `--set`, so that an operator has the last word.
    pub overrides: Vec<(String, String)>,
    /// `--set` arguments, `section.key=value`.
    pub sets: Vec<String>,
    /// `--data-dir`.
    pub data_dir: Option<PathBuf>,
}

/// Without what the layers set: nobody has said yet what of it is secret.
impl fmt::Debug for Sources {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { cwd, files, data_dir, .. } = self;
        f.debug_struct("Sources")
            .field("cwd", cwd)
            .field("files", files)
            .field("data_dir", data_dir)
            .finish_non_exhaustive()
    }
}

impl Sources {
    /// The working directory and the environment of this process.
    pub fn of_process() -> Self {
        let env = std::env::vars_os()
            .map(|(name, text)| (name.to_string_lossy().into_owned(), text.to_string_lossy().into_owned()))
            .collect();
        Self { cwd: std::env::current_dir().unwrap_or_default(), env, ..Self::default() }
    }
}

/// Reads, merges and checks all layers.
///
/// # Errors
/// Everything that is wrong, with its place and key; exit code 9 is the caller's.
pub fn load(sources: &Sources) -> Result<Settings, Errors> {
    let mut problems = Vec::new();
    let layers = layers(sources, &mut problems);
    let checked = Checked::new(layers, &mut problems);
    match checked.settings(&mut problems) {
        Some(settings) if problems.is_empty() => {
            // whatever is told from now on is told without them
            secrets::hide(settings.secrets());
            Ok(settings)
        }
        _ => Err(Errors(problems)),
    }
}

/// The layers, least first.
fn layers(sources: &Sources, problems: &mut Vec<Problem>) -> Vec<Layer> {
    let mut layers = vec![layer::from_toml(DEFAULTS, |_| Origin::Default, problems)];
    layers.push(host_name(&sources.env));
    if sources.files.is_empty() {
        layers.push(layer::from_file(&sources.cwd, FILE.as_ref(), true, problems));
    }
    for file in &sources.files {
        layers.push(layer::from_file(&sources.cwd, file, false, problems));
    }
    layers.push(stored(&sources.stored, problems));
    layers.push(layer::from_environment(&sources.env));
    layers.push(overrides(&sources.overrides, problems));
    layers.push(layer::from_sets(&sources.sets, problems));
    if let Some(dir) = &sources.data_dir {
        let key = Key(vec!["node".to_owned(), "data_dir".to_owned()]);
        let value = Value::String(dir.to_string_lossy().into_owned());
        layers.push(Layer(vec![Entry { key, value, origin: Origin::Option("--data-dir") }]));
    }
    layers
}

/// A node is named for its host, where the environment tells it.
fn host_name(env: &[(String, String)]) -> Layer {
    let name = env.iter().find(|(name, text)| name == "HOSTNAME" && !text.trim().is_empty());
    let entry = name.map(|(name, text)| Entry {
        key: Key(vec!["node".to_owned(), "name".to_owned()]),
        value: Value::String(text.trim().to_owned()),
        origin: Origin::Environment(name.clone()),
    });
    Layer(entry.into_iter().collect())
}

/// What a node's door, the files of its machine and the keeper of its states hang on: set where it stands, and by
/// nobody who has a token.
const LOCAL: [&str; 8] = [
    "http.bind",
    "http.tls",
    "http.token_file",
    "http.behind_proxy",
    "cache.url",
    "cache.tls_ca",
    "tools.fs.roots",
    "log.file.path",
];
/// What operators did is kept at least so long: who changes settings is not to hide what they did.
const LEAST_AUDIT: Duration = Duration::from_secs(24 * 3_600);

/// Whether a key is one of these, or a part of one, or has one as its part.
fn is_local(key: &str) -> bool {
    let lies_in = |inner: &str, outer: &str| {
        inner.strip_prefix(outer).is_some_and(|rest| rest.is_empty() || rest.starts_with('.'))
    };
    LOCAL.iter().any(|local| lies_in(key, local) || lies_in(local, key))
}

/// Whether this is a time, and shorter than acts are to be kept; 0 is for ever.
fn is_short(value: &Value) -> bool {
    let time = value.as_str().and_then(|text| parse_duration(text).ok());
    time.is_some_and(|time| !time.is_zero() && time < LEAST_AUDIT)
}

fn stored(pairs: &[(String, Value)], problems: &mut Vec<Problem>) -> Layer {
    let mut layer = Layer::default();
    for (name, value) in pairs {
        let mut refuse = |message: &str| {
            problems.push(Problem {
                origin: Some(Origin::Stored),
                key: name.clone(),
                message: message.to_owned(),
                hint: Some(format!("greenroom config unset {name}; set it in {FILE}")),
            });
        };
        match Key::parse(name) {
            None => refuse("this is not a key"),
            Some(key) if matches!(key.parts().first(), Some(&("store" | "node"))) => {
                refuse("this key cannot be kept in the store, which it leads to");
            }
            Some(_) if holds_secret(name, value) => refuse("a secret is not kept in the store"),
            Some(_) if is_local(name) => {
                refuse(
                    "this key is not kept in the store: it opens files or the door of the machine that reads it, or sends states elsewhere",
                );
            }
            Some(_) if name == "audit.retention" && is_short(value) => {
                refuse("what operators did is kept for a day at least where this is kept in the store");
            }
            Some(key) => layer.0.push(Entry { key, value: value.clone(), origin: Origin::Stored }),
        }
    }
    layer
}

fn overrides(pairs: &[(String, String)], problems: &mut Vec<Problem>) -> Layer {
    let mut layer = Layer::default();
    for (name, text) in pairs {
        match Key::parse(name) {
            Some(key) => {
                layer.0.push(Entry { key, value: layer::plain(text), origin: Origin::Program });
            }
            None => problems.push(Problem {
                origin: Some(Origin::Program),
                key: name.clone(),
                message: "this is not a key".to_owned(),
                hint: Some("write section.key".to_owned()),
            }),
        }
    }
    layer
}

/// Text from a command line as a value: JSON where it is a list or an object.
pub fn plain(text: &str) -> Value {
    layer::plain(text)
}

#[cfg(test)]
mod tests;
