//! The settings: one struct per section, one field per key. `config/default.toml` explains them.

use std::{collections::BTreeMap, net::SocketAddr, path::PathBuf, time::Duration};

use serde::{Deserialize, Deserializer, Serialize};
use serde_json::Value;

use super::{
    audit::Audit,
    cache::Cache,
    log::Log,
    secret::{HIDDEN, Secret, Url},
    show::Shown,
    supervision::{RestartOverrides, Supervision},
    tasks::{TaskOverrides, Tasks},
};
use crate::model::{
    supervision::{Restart, RestartPolicy},
    task::TaskTerms,
    units,
};

/// Everything that can be set, with what is in force.
///
/// Made by [`super::load`]; cheap enough to clone for a change at run time.
#[derive(Debug, Clone, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Settings {
    /// `[node]`.
    pub node: Node,
    /// `[store]`.
    pub store: Store,
    /// `[cache]`.
    pub cache: Cache,
    /// `[http]`.
    pub http: Http,
    /// `[log]`.
    pub log: Log,
    /// `[supervision]`.
    pub supervision: Supervision,
    /// `[agents]`.
    pub agents: Agents,
    /// `[tools]`.
    pub tools: Tools,
    /// `[tasks]`.
    pub tasks: Tasks,
    /// `[conversations]`.
    pub conversations: Conversations,
    /// `[sessions]`.
    pub sessions: Sessions,
    /// `[audit]`.
    pub audit: Audit,
    /// `[limits]`.
    pub limits: Limits,
    /// `[app.SECTION]`: the settings of the program built on the library. They may hold secrets.
    #[serde(default, skip_serializing)]
    pub(super) app: Hidden,
    /// Every key with its value and where it came from.
    #[serde(skip)]
    pub(super) shown: Vec<Shown>,
    /// The same with the secrets, to see what changes. Never printed.
    #[serde(skip)]
    pub(super) raw: Hidden,
}

/// Values by key that `{:?}` does not print.
#[derive(Clone, Default, Deserialize)]
#[serde(transparent)]
pub(super) struct Hidden(pub(super) BTreeMap<String, Value>);

impl std::fmt::Debug for Hidden {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(HIDDEN)
    }
}

/// The process and its place in the cluster.
#[derive(Debug, Clone, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Node {
    /// A label for people.
    pub name: String,
    /// The URL to which other nodes refer requests for agents of this one.
    #[serde(deserialize_with = "unless_empty")]
    pub url: Option<String>,
    /// Where the node keeps its files.
    pub data_dir: PathBuf,
    /// Threads that run agents; 0: one for each core.
    pub threads: u16,
    /// Whether the agent kind `counter` and the `probe.*` tools are registered.
    pub probe: bool,
    /// How long a silent node keeps what it owns.
    #[serde(with = "units::duration")]
    pub lease: Duration,
}

/// The store.
#[derive(Debug, Clone, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Store {
    /// Its URL, with `{data_dir}` already replaced. Shown without its password.
    pub url: Url,
    /// Connections.
    pub pool_size: u32,
    /// What an acknowledged commit survives.
    pub durability: Durability,
}

/// What an acknowledged commit survives.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Durability {
    /// A power cut.
    Full,
    /// The end of the process, perhaps not a power cut.
    Relaxed,
}

/// The API and the dashboard.
#[derive(Debug, Clone, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Http {
    /// Address and port.
    pub bind: SocketAddr,
    /// The token that clients must show.
    #[serde(deserialize_with = "unless_empty")]
    pub token: Option<Secret>,
    /// A file that holds the token.
    #[serde(deserialize_with = "unless_empty")]
    pub token_file: Option<PathBuf>,
    /// How long a client may take for the head of a request, for its body, and to take its answer.
    #[serde(with = "units::duration")]
    pub timeout: Duration,
    /// Whether a proxy in front speaks TLS.
    pub behind_proxy: bool,
    /// TLS in this process.
    pub tls: Tls,
}

impl Http {
    /// Whether browsers reach it over TLS: its own, or that of the proxy in front.
    pub fn is_encrypted(&self) -> bool {
        self.behind_proxy || self.tls.cert.is_some()
    }

    /// Whether other machines reach it, and nothing encrypts.
    pub fn is_exposed(&self) -> bool {
        !self.bind.ip().is_loopback() && !self.is_encrypted()
    }
}

/// Certificate and key; both or neither.
#[derive(Debug, Clone, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Tls {
    /// A PEM file with the certificate chain.
    #[serde(deserialize_with = "unless_empty")]
    pub cert: Option<PathBuf>,
    /// A PEM file with the private key.
    #[serde(deserialize_with = "unless_empty")]
    pub key: Option<PathBuf>,
}

/// `[agents]`: all agents, and single kinds.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct Agents {
    /// `[agents.default]`.
    pub default: AgentDefaults,
    /// `[agents.KIND]`.
    #[serde(flatten)]
    pub kinds: BTreeMap<String, AgentOverrides>,
}

/// `[agents.default]`: every agent.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct AgentDefaults {
    /// How many messages may wait.
    pub mailbox: u32,
    /// How long it may be idle.
    #[serde(with = "units::duration")]
    pub idle_timeout: Duration,
    /// How many of a kind may be in memory before idle ones leave; 0: any number.
    pub max_live: u32,
    /// How long a caller waits who does not say.
    #[serde(with = "units::duration")]
    pub ask_timeout: Duration,
    /// Optional keys that were set for all agents.
    #[serde(flatten)]
    pub more: AgentOverrides,
}

/// `[agents.KIND]`: overrides for one kind; unset keys are as for all.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
#[serde(default)]
pub struct AgentOverrides {
    /// How many messages may wait.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub mailbox: Option<u32>,
    /// How long it may be idle.
    #[serde(with = "units::duration_option", skip_serializing_if = "Option::is_none")]
    pub idle_timeout: Option<Duration>,
    /// How many may be in memory before idle ones leave; 0: any number.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub max_live: Option<u32>,
    /// How long a caller waits who does not say.
    #[serde(with = "units::duration_option", skip_serializing_if = "Option::is_none")]
    pub ask_timeout: Option<Duration>,
    /// How long a turn may take.
    #[serde(with = "units::duration_option", skip_serializing_if = "Option::is_none")]
    pub turn_timeout: Option<Duration>,
    /// How long a turn or a hook may go on whose agent is to leave.
    #[serde(with = "units::duration_option", skip_serializing_if = "Option::is_none")]
    pub stop_timeout: Option<Duration>,
    /// How often and how fast they are restarted.
    #[serde(flatten)]
    pub intensity: RestartOverrides,
    /// Which ends are followed by a restart.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub restart: Option<Restart>,
    /// The group that it is supervised in.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub group: Option<String>,
    /// When state is written.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub persistence: Option<Persistence>,
    /// With relaxed persistence: a snapshot every so many turns …
    #[serde(skip_serializing_if = "Option::is_none")]
    pub snapshot_turns: Option<u32>,
    /// … or after this long, whichever comes first.
    #[serde(with = "units::duration_option", skip_serializing_if = "Option::is_none")]
    pub snapshot_every: Option<Duration>,
    /// The tasks for them.
    #[serde(flatten)]
    pub tasks: TaskOverrides,
}

/// As long as a child of OTP's supervisors has.
const STOP_TIMEOUT: Duration = Duration::from_secs(5);

/// The keys that `[agents.KIND]` knows.
pub(super) const AGENT_KEYS: [&str; 11] = [
    "group",
    "mailbox",
    "idle_timeout",
    "max_live",
    "ask_timeout",
    "turn_timeout",
    "stop_timeout",
    "restart",
    "persistence",
    "snapshot_turns",
    "snapshot_every",
];

/// When an agent's state is written.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Persistence {
    /// With every turn.
    EveryTurn,
    /// After some turns, or some time.
    Relaxed,
    /// Never.
    Volatile,
}

/// The effective settings of one kind of agent.
#[derive(Debug, Clone, PartialEq)]
pub struct AgentSettings {
    /// How many messages may wait.
    pub mailbox: u32,
    /// How long it may be idle.
    pub idle_timeout: Duration,
    /// How many of the kind may be in memory before idle ones leave; 0: any number.
    pub max_live: u32,
    /// How long a caller waits who does not say.
    pub ask_timeout: Duration,
    /// How long a turn may take, where that was set.
    pub turn_timeout: Option<Duration>,
    /// How long a turn or a hook may go on whose agent is to leave.
    pub stop_timeout: Duration,
    /// How often and how fast it is restarted.
    pub restart: RestartPolicy,
    /// Priority, attempts and delays of the tasks for it.
    pub terms: TaskTerms,
    /// When its state is written, where that was set.
    pub persistence: Option<Persistence>,
    /// With relaxed persistence: a snapshot every so many turns …
    pub snapshot_turns: u32,
    /// … or after this long.
    pub snapshot_every: Duration,
}

impl AgentSettings {
    /// These settings, with `over` on top.
    #[must_use]
    pub fn with(&self, over: &AgentOverrides) -> Self {
        Self {
            mailbox: over.mailbox.unwrap_or(self.mailbox),
            idle_timeout: over.idle_timeout.unwrap_or(self.idle_timeout),
            max_live: over.max_live.unwrap_or(self.max_live),
            ask_timeout: over.ask_timeout.unwrap_or(self.ask_timeout),
            turn_timeout: over.turn_timeout.or(self.turn_timeout),
            stop_timeout: over.stop_timeout.unwrap_or(self.stop_timeout),
            restart: RestartPolicy {
                restart: over.restart.unwrap_or(self.restart.restart),
                ..over.intensity.over(self.restart)
            },
            terms: self.terms.with(over.tasks.terms()),
            persistence: over.persistence.or(self.persistence),
            snapshot_turns: over.snapshot_turns.unwrap_or(self.snapshot_turns),
            snapshot_every: over.snapshot_every.unwrap_or(self.snapshot_every),
        }
    }
}

/// The tools.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct Tools {
    /// `[tools.fs]`: the built-in ones.
    pub fs: Files,
    /// `[tools.NAME]`, where a name with dots is one part: `[tools."fs.read"]`.
    #[serde(flatten)]
    pub named: BTreeMap<String, ToolOverrides>,
}

/// Overrides for one tool; unset keys are as for all.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
#[serde(default)]
pub struct ToolOverrides {
    /// How often it may crash, and how long it pauses then.
    #[serde(flatten)]
    pub intensity: RestartOverrides,
    /// The tasks for it.
    #[serde(flatten)]
    pub tasks: TaskOverrides,
}

/// The file tools.
#[derive(Debug, Clone, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Files {
    /// The directories that they may read. Empty: every call is refused.
    #[serde(deserialize_with = "one_or_many")]
    pub roots: Vec<PathBuf>,
}

/// Conversations.
#[derive(Debug, Clone, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Conversations {
    /// How long one is kept after its last message; 0: for ever.
    #[serde(with = "units::duration")]
    pub retention: Duration,
}

/// Sessions.
#[derive(Debug, Clone, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Sessions {
    /// The time to live after its last use, by default.
    #[serde(with = "units::duration")]
    pub ttl: Duration,
}

/// Limits.
#[derive(Debug, Clone, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Limits {
    /// The largest message.
    #[serde(with = "units::size")]
    pub message_bytes: u64,
    /// The largest state.
    #[serde(with = "units::size")]
    pub state_bytes: u64,
    /// How long an idempotency key is remembered.
    #[serde(with = "units::duration")]
    pub idempotency_ttl: Duration,
}

impl Settings {
    /// The settings of all agents: the base below a kind's policy in code, with
    /// [`AgentSettings::with`]`(`[`Settings::overrides`]`(kind))` on top of both.
    pub fn agent_base(&self) -> AgentSettings {
        let (default, supervision) = (&self.agents.default, &self.supervision);
        AgentSettings {
            mailbox: default.mailbox,
            idle_timeout: default.idle_timeout,
            max_live: default.max_live,
            ask_timeout: default.ask_timeout,
            turn_timeout: None,
            stop_timeout: STOP_TIMEOUT,
            restart: supervision.policy(),
            terms: self.tasks.terms(),
            persistence: None,
            snapshot_turns: 100,
            snapshot_every: Duration::from_secs(1),
        }
        .with(&default.more)
    }

    /// The overrides in `[agents.KIND]`.
    pub fn overrides(&self, kind: &str) -> AgentOverrides {
        self.agents.kinds.get(kind).cloned().unwrap_or_default()
    }

    /// The overrides in `[tools.NAME]`.
    pub fn tool(&self, name: &str) -> ToolOverrides {
        self.tools.named.get(name).cloned().unwrap_or_default()
    }

    /// The configuration of a kind: `[agents.KIND]` over `[agents.default]` over `[supervision]`.
    pub fn agent(&self, kind: &str) -> AgentSettings {
        self.agent_base().with(&self.overrides(kind))
    }

    /// `[app.SECTION]` as it was set; an empty object where nothing was.
    pub fn app(&self, section: &str) -> Value {
        self.app.0.get(section).cloned().unwrap_or_else(|| Value::Object(serde_json::Map::new()))
    }

    /// Every key with its value and where it came from, by name; secrets as `***`.
    pub fn show(&self) -> &[Shown] {
        &self.shown
    }
}

/// `""` is read as `None`.
pub(super) fn unless_empty<'de, D, T>(d: D) -> Result<Option<T>, D::Error>
where
    D: Deserializer<'de>,
    T: From<String>,
{
    let text = Option::<String>::deserialize(d)?.unwrap_or_default();
    Ok(if text.is_empty() { None } else { Some(T::from(text)) })
}

/// One path, or a list of them.
fn one_or_many<'de, D: Deserializer<'de>>(d: D) -> Result<Vec<PathBuf>, D::Error> {
    struct Paths;
    impl<'de> serde::de::Visitor<'de> for Paths {
        type Value = Vec<PathBuf>;
        fn expecting(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
            f.write_str("a path or a list of paths")
        }
        fn visit_str<E: serde::de::Error>(self, one: &str) -> Result<Self::Value, E> {
            Ok(if one.is_empty() { Vec::new() } else { vec![PathBuf::from(one)] })
        }
        fn visit_seq<A: serde::de::SeqAccess<'de>>(self, mut list: A) -> Result<Self::Value, A::Error> {
            let mut paths = Vec::new();
            while let Some(path) = list.next_element()? {
                paths.push(path);
            }
            Ok(paths)
        }
    }
    d.deserialize_any(Paths)
}
