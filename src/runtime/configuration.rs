//! Configuration changes while the node runs: read, planned, checked, and applied as one generation; or refused as
//! a whole.

use std::{any::TypeId, collections::HashMap, sync::Arc, time::Duration};

use arc_swap::ArcSwap;
use parking_lot::Mutex;
use serde::Serialize;
use serde_json::Value;
use tokio_util::sync::CancellationToken;

use super::node::Node;
use crate::{
    config::{self, Change, Errors, LogFormat, Origin, Settings, Sources},
    log::{Format, Rules, Transport},
    model::event::{self, Event, Level},
    store::{KeptSettings, StoreError},
};

/// How often a node looks whether another one has changed what they share.
const POLL_INTERVAL: Duration = Duration::from_secs(5);
/// How often a change is tried that others overtake.
const TRIES: usize = 5;
/// How long the store may take to say what it keeps, before what it last said is good enough.
const STORE_TIMEOUT: Duration = Duration::from_secs(5);

/// Where a node's settings came from.
#[derive(Debug, Clone, Default)]
pub(crate) struct Layers {
    pub sources: Sources,
    /// The generation of what the store keeps of them.
    pub kept: i64,
}

/// A section of the program's own settings, as it is read.
pub(crate) type Section = Arc<dyn std::any::Any + Send + Sync>;
/// Reads one.
pub(crate) type ReadSection = fn(&Settings) -> Result<Section, Errors>;
/// All of them.
pub(crate) type App = HashMap<TypeId, Section>;

/// The program's own settings.
pub(crate) struct Sections {
    pub declared: Vec<(TypeId, ReadSection)>,
    pub read: ArcSwap<App>,
}

/// What a change came to.
#[derive(Debug, Clone, PartialEq, Serialize, schemars::JsonSchema)]
pub struct Applied {
    /// Counts the changes that this process has applied, from 0.
    pub generation: u64,
    /// Every key that has another value now, or will have.
    pub changed: Vec<Change>,
    /// Those of them that are in force.
    pub applied: Vec<String>,
    /// Every key whose new value waits for a restart, also from earlier changes.
    pub needs_restart: Vec<String>,
    /// Keys that were set here and have no effect, with the source that overrides each.
    pub overruled: Vec<Overruled>,
    /// Keys that the store keeps no more, whatever is in force here.
    pub removed: Vec<String>,
    /// Names what the store keeps of it then, or of a dry run what it was made upon: for `If-Match`.
    #[serde(skip)]
    pub tag: String,
}

/// A key that another source overrides.
#[derive(Debug, Clone, PartialEq, Serialize, schemars::JsonSchema)]
pub struct Overruled {
    /// The dotted key.
    pub key: String,
    /// The overriding source.
    #[schemars(with = "String")]
    pub by: Origin,
}

/// Why a change was refused.
#[derive(Debug, thiserror::Error)]
pub enum ConfigureError {
    /// What is wrong with it.
    #[error("{0}")]
    Invalid(Errors),
    /// It was made for another generation than this.
    #[error("the configuration has been changed since it was read: read it again")]
    Stale,
    /// Others went on changing it.
    #[error("other nodes go on changing the configuration: try again")]
    Overtaken,
    /// The store could not take it.
    #[error(transparent)]
    Store(#[from] StoreError),
}

impl From<Errors> for ConfigureError {
    fn from(errors: Errors) -> Self {
        Self::Invalid(errors)
    }
}

/// What is wanted, beside what is in force.
pub(crate) struct Configuration {
    sections: Sections,
    state: Mutex<State>,
    /// Held by whoever changes it.
    change: tokio::sync::Mutex<()>,
}

#[derive(Clone)]
struct State {
    layers: Layers,
    /// What would be in force after a restart.
    wanted: Arc<Settings>,
    generation: u64,
}

/// A change that was checked.
struct Plan {
    layers: Layers,
    wanted: Settings,
    in_force: Settings,
    app: App,
}

impl Configuration {
    pub(crate) fn new(layers: Layers, settings: Arc<Settings>, sections: Sections) -> Self {
        let state = State { layers, wanted: settings, generation: 0 };
        Self { sections, state: Mutex::new(state), change: tokio::sync::Mutex::default() }
    }

    /// The program's section of that type.
    pub(crate) fn section(&self, of: TypeId) -> Option<Section> {
        self.sections.read.load().get(&of).cloned()
    }

    /// What the store keeps, as it was last read.
    fn known(&self) -> KeptSettings {
        let Layers { sources, kept } = self.state.lock().layers.clone();
        KeptSettings { generation: kept, values: sources.stored.into_iter().collect() }
    }

    fn app(&self, settings: &Settings) -> Result<App, Errors> {
        let (mut app, mut wrong) = (App::new(), Vec::new());
        for (of, read) in &self.sections.declared {
            match read(settings) {
                Ok(section) => {
                    app.insert(*of, section);
                }
                Err(errors) => wrong.extend(errors.0),
            }
        }
        if wrong.is_empty() { Ok(app) } else { Err(Errors(wrong)) }
    }
}

impl Node {
    /// Counts the changes that were applied.
    pub(crate) fn generation(&self) -> u64 {
        self.configuration.state.lock().generation
    }

    /// Names what the store keeps of the settings, as this node last read it: the same on every node that shares it.
    pub(crate) fn settings_tag(&self) -> String {
        self.configuration.state.lock().layers.kept.to_string()
    }

    /// The keys whose new values wait for a restart.
    pub(crate) fn needs_restart(&self) -> Vec<String> {
        let wanted = self.configuration.state.lock().wanted.clone();
        keys(&self.settings.load().changes(&wanted))
    }

    /// Reads all layers again. What a store that does not answer keeps is taken for what it last was: during an
    /// outage more than ever somebody may want to see more in the log.
    ///
    /// # Errors
    /// Why everything stays as it is.
    pub(crate) async fn reload(&self, why: &str) -> Result<Applied, Errors> {
        let _alone = self.configuration.change.lock().await;
        let kept = match tokio::time::timeout(STORE_TIMEOUT, self.store.settings()).await {
            Ok(Ok(kept)) => kept,
            Ok(Err(_)) | Err(_) => self.configuration.known(),
        };
        let plan = self.plan(kept)?;
        Ok(self.apply(plan, why))
    }

    /// Keeps a change in the store, and applies it: see [`config::patched`]. `over`: only upon what
    /// [`settings_tag`](Self::settings_tag) named. `dry_run`: says what it would come to, and changes nothing.
    ///
    /// # Errors
    /// Why everything stays as it is.
    pub(crate) async fn configure(
        &self,
        patch: &Value,
        over: Option<&str>,
        dry_run: bool,
        why: &str,
    ) -> Result<Applied, ConfigureError> {
        let _alone = self.configuration.change.lock().await;
        let (tries, overtaken) = match over {
            Some(_) => (1, ConfigureError::Stale),
            None => (TRIES, ConfigureError::Overtaken),
        };
        for _ in 0..tries {
            let kept = self.store.settings().await?;
            // what another node has set may not be known here yet
            if over.is_some_and(|over| over != kept.generation.to_string()) {
                return Err(ConfigureError::Stale);
            }
            let values = config::patched(&kept.values, patch)?;
            let next = KeptSettings { generation: kept.generation + 1, values };
            let unchanged = next.values == kept.values;
            let plan = self.plan(if unchanged { kept.clone() } else { next.clone() })?;
            let set = next.values.iter().filter(|(key, value)| kept.values.get(*key) != Some(*value));
            let overruled = set.filter_map(|(key, _)| overruled(&plan.wanted, key)).collect();
            let removed = next.lacks(&kept);
            if dry_run {
                let tag = kept.generation.to_string();
                return Ok(Applied { overruled, removed, tag, ..self.outlook(&plan) });
            }
            if unchanged || self.store.keep_settings(&next).await? {
                return Ok(Applied { overruled, removed, ..self.apply(plan, why) });
            }
        }
        Err(overtaken)
    }

    /// What would be in force, with that from the store.
    fn plan(&self, kept: KeptSettings) -> Result<Plan, Errors> {
        let mut layers = self.configuration.state.lock().layers.clone();
        layers.kept = kept.generation;
        layers.sources.stored = kept.values.into_iter().collect();
        let wanted = config::load(&layers.sources)?;
        if wanted.http.is_exposed() && !self.settings.load().http.is_exposed() {
            // the next start would refuse it; a node that is exposed already serves no HTTP
            let why = "other machines reach this address, and the token would travel in the clear: set http.tls.cert and http.tls.key, or http.behind_proxy where a proxy speaks TLS";
            return Err(Errors::one("http.bind", why));
        }
        let in_force = self.settings.load().adopt(&wanted)?;
        let app = self.configuration.app(&in_force)?;
        Ok(Plan { layers, wanted, in_force, app })
    }

    /// What it comes to.
    fn outlook(&self, plan: &Plan) -> Applied {
        let state = self.configuration.state.lock();
        let changed = state.wanted.changes(&plan.wanted);
        let applied = changed.iter().filter(|change| change.live).map(|change| change.key.clone()).collect();
        Applied {
            generation: state.generation + u64::from(!changed.is_empty()),
            changed,
            applied,
            needs_restart: keys(&plan.in_force.changes(&plan.wanted)),
            overruled: Vec::new(),
            removed: Vec::new(),
            tag: plan.layers.kept.to_string(),
        }
    }

    /// Puts it in force. Nothing of it can fail.
    fn apply(&self, plan: Plan, why: &str) -> Applied {
        let applied = self.outlook(&plan);
        let Plan { layers, wanted, in_force, app } = plan;
        let generation = applied.generation;
        *self.configuration.state.lock() = State { layers, wanted: Arc::new(wanted), generation };
        if !applied.applied.is_empty() {
            self.logger.set_rules(&log_rules(&in_force));
            self.configuration.sections.read.store(Arc::new(app));
            self.kinds.iter().for_each(|kind| kind.reconfigure(&in_force));
        }
        self.settings.store(Arc::new(in_force));
        // there may be more slots
        self.wake_dispatcher(false);
        if !applied.changed.is_empty() {
            self.logger.emit(changed_event(self, &applied, why));
        }
        applied
    }
}

fn keys(changes: &[Change]) -> Vec<String> {
    changes.iter().map(|change| change.key.clone()).collect()
}

/// The source that overrides a key which was just set, if there is one.
fn overruled(wanted: &Settings, key: &str) -> Option<Overruled> {
    let by = wanted.origin(key).filter(|origin| *origin != Origin::Stored)?;
    Some(Overruled { key: key.to_owned(), by })
}

fn changed_event(node: &Node, applied: &Applied, why: &str) -> Event {
    let told = applied.changed.iter().map(|change| match &change.value {
        Some(value) => format!("{} = {value}", change.key),
        None => format!("{} is unset", change.key),
    });
    let subject = format!("node:{}", node.settings.load().node.name);
    let event = Event::new(Level::Info, event::CONFIG_CHANGED, subject)
        .field("changed", told.collect::<Vec<_>>().join(", "))
        .field("generation", applied.generation)
        .field("by", why);
    if applied.needs_restart.is_empty() {
        return event;
    }
    event
        .field("needs_restart", applied.needs_restart.join(", "))
        .hint("the rest is in force after a restart")
}

/// That a change was not taken.
fn refused_event(node: &Node, error: &Errors, why: &str) -> Event {
    let subject = format!("node:{}", node.settings.load().node.name);
    Event::new(Level::Error, event::CONFIG_REFUSED, subject)
        .field("error", error.to_string())
        .field("by", why)
        .hint("nothing has changed; `greenroom config check` shows what is wrong")
}

/// Reads all layers again, and says in the log where they are refused.
pub(crate) async fn reload(node: &Node, why: &str) -> Result<Applied, Errors> {
    let reloaded = node.reload(why).await;
    if let Err(error) = &reloaded {
        node.logger.emit(refused_event(node, error, why));
    }
    reloaded
}

/// Takes over what other nodes have set, until `end`.
pub(crate) async fn keep(node: Arc<Node>, end: CancellationToken) {
    const WHY: &str = "another node";
    if node.store.shared().is_none() {
        return;
    }
    let mut refused = None;
    loop {
        tokio::select! {
            () = end.cancelled() => return,
            () = tokio::time::sleep(POLL_INTERVAL) => {}
        }
        let known = node.configuration.state.lock().layers.kept;
        // an outage is told elsewhere
        let Ok(kept) = node.store.settings().await else { continue };
        if kept.generation == known || refused == Some(kept.generation) {
            continue;
        }
        match node.reload(WHY).await {
            Ok(_) => refused = None,
            Err(error) => {
                refused = Some(kept.generation);
                node.logger.emit(refused_event(&node, &error, WHY));
            }
        }
    }
}

/// What is logged where, as the settings have it.
pub(crate) fn log_rules(settings: &Settings) -> Rules {
    let log = &settings.log;
    let format = |format| match format {
        LogFormat::Pretty => Format::Pretty,
        LogFormat::Compact => Format::Compact,
        LogFormat::Json => Format::Json,
    };
    let (console, file) = (&log.console, &log.file);
    Rules {
        console: Transport {
            level: console.level.unwrap_or(log.level),
            format: format(console.format.unwrap_or(log.format)),
        },
        file: Transport { level: file.level.unwrap_or(log.level), format: format(file.format) },
        levels: log.levels.clone(),
        subjects: log.subjects.clone(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn rules(set: &[(&str, &str)]) -> Rules {
        let overrides = set.iter().map(|(key, value)| ((*key).to_owned(), (*value).to_owned())).collect();
        log_rules(&config::load(&Sources { overrides, ..Sources::default() }).unwrap())
    }

    #[test]
    fn console_and_file_follow_the_one_level_until_each_has_its_own() {
        let levels = |rules: Rules| (rules.console.level, rules.file.level);
        assert_eq!(levels(rules(&[("log.level", "warn")])), (Level::Warn, Level::Warn));
        let own = [("log.level", "warn"), ("log.console.level", "error"), ("log.file.level", "debug")];
        assert_eq!(levels(rules(&own)), (Level::Error, Level::Debug));
        assert_eq!(levels(rules(&own[..2])), (Level::Error, Level::Warn));
    }

    #[test]
    fn console_and_file_have_formats_of_their_own() {
        let rules = rules(&[("log.format", "pretty"), ("log.file.format", "compact")]);
        assert_eq!((rules.console.format, rules.file.format), (Format::Pretty, Format::Compact));
    }
}
