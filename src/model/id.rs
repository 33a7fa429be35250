//! Names and identities: kinds, keys, targets, ids and the partition an agent belongs to.

use std::{fmt, str::FromStr};

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};
use uuid::Uuid;

/// How many partitions the agents hash to.
pub const PARTITIONS: i16 = 64;
/// The partition of tasks that are addressed to a tool: any node may claim them.
pub const TOOL_PARTITION: i16 = -1;
/// Longest agent key, in bytes.
pub const MAX_KEY_BYTES: usize = 256;
/// Longest kind, tool or topic name, in bytes.
pub const MAX_NAME_BYTES: usize = 128;
/// Longest idempotency key, in bytes.
pub const MAX_IDEMPOTENCY_KEY_BYTES: usize = 255;

/// The fixed namespace under which agent ids are derived (UUIDv5). Never changes.
const NAMESPACE: Uuid = Uuid::from_u128(0x6772_6565_6e72_4f6f_8d61_6765_6e74_7321);
const RESERVED_KINDS: [&str; 3] = ["default", "tool", "task"];

/// What is wrong with a name that was given.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum NameError {
    /// Not `[a-z][a-z0-9]*(_[a-z0-9]+)*`, too long, or a reserved word.
    #[error(
        "`{0}` is not a kind: use lower-case letters, digits and single underscores, starting with a letter (and not `default`, `tool` or `task`)"
    )]
    Kind(String),
    /// Not a tool name.
    #[error("`{0}` is not a tool name: use lower-case words joined by `.` or `_`, such as `fs.read`")]
    Tool(String),
    /// Not the name of a topic.
    #[error("`{0}` is not a topic: use lower-case words joined by `.` or `_`, such as `stock.low`")]
    Topic(String),
    /// Not the name of a token, or that of the node's own.
    #[error(
        "`{0}` is not a name for a token: use up to 64 lower-case letters, digits, `.`, `_` and `-` (and not `node`)"
    )]
    Token(String),
    /// Empty, too long, or with characters that a key may not have.
    #[error("`{key}` is not a key: {why}")]
    Key {
        /// What was given.
        key: String,
        /// Which rule it breaks.
        why: &'static str,
    },
    /// Neither `KIND/KEY` nor `tool:NAME`.
    #[error("`{0}` is not a target: write KIND/KEY for an agent or tool:NAME for a tool")]
    Target(String),
    /// Neither a target nor the beginning of some.
    #[error(
        "`{0}` names no targets: write KIND/KEY or tool:NAME, or with a `*` at the end all that begin so, such as KIND/*"
    )]
    Targets(String),
}

/// Whether `kind` follows the rules for kinds: `[a-z][a-z0-9]*(_[a-z0-9]+)*`, not reserved.
pub fn check_kind(kind: &str) -> Result<(), NameError> {
    let word = |w: &str| !w.is_empty() && w.bytes().all(|b| b.is_ascii_lowercase() || b.is_ascii_digit());
    let good = kind.len() <= MAX_NAME_BYTES
        && kind.starts_with(|c: char| c.is_ascii_lowercase())
        && kind.split('_').all(word)
        && !RESERVED_KINDS.contains(&kind);
    if good { Ok(()) } else { Err(NameError::Kind(kind.to_owned())) }
}

/// Whether `name` follows the rules for tools: kinds joined by dots.
pub fn check_tool(name: &str) -> Result<(), NameError> {
    if is_dotted(name) { Ok(()) } else { Err(NameError::Tool(name.to_owned())) }
}

/// Whether `name` may name a topic: as a tool.
pub fn check_topic(name: &str) -> Result<(), NameError> {
    if is_dotted(name) { Ok(()) } else { Err(NameError::Topic(name.to_owned())) }
}

fn is_dotted(name: &str) -> bool {
    let word = |w: &str| {
        !w.is_empty()
            && w.split('_')
                .all(|p| !p.is_empty() && p.bytes().all(|b| b.is_ascii_lowercase() || b.is_ascii_digit()))
    };
    name.len() <= MAX_NAME_BYTES
        && name.starts_with(|c: char| c.is_ascii_lowercase())
        && name.split('.').all(word)
}

/// Whether `key` may name an agent: 1 to 256 bytes of UTF-8 without control or bidi characters,
/// without `/ \ ? # %`, not `.` or `..`.
pub fn check_key(key: &str) -> Result<(), NameError> {
    let bad =
        |why| Err(NameError::Key { key: key.chars().take(64).filter(|c| !c.is_control()).collect(), why });
    if key.is_empty() {
        return bad("it is empty");
    }
    if key.len() > MAX_KEY_BYTES {
        return bad("it is longer than 256 bytes");
    }
    if key == "." || key == ".." {
        return bad("`.` and `..` are not keys");
    }
    if key.chars().any(|c| matches!(c, '/' | '\\' | '?' | '#' | '%')) {
        return bad("it holds one of / \\ ? # %");
    }
    if key.chars().any(|c| c.is_control() || is_bidi(c)) {
        return bad("it holds a control or bidirectional formatting character");
    }
    Ok(())
}

fn is_bidi(c: char) -> bool {
    matches!(c, '\u{061C}' | '\u{200E}' | '\u{200F}' | '\u{202A}'..='\u{202E}' | '\u{2066}'..='\u{2069}')
}

/// The stored identity of an agent: UUIDv5 of `kind/key`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(transparent)]
pub struct AgentId(pub Uuid);

impl AgentId {
    /// Derives the id of the agent `kind/key`.
    pub fn of(kind: &str, key: &str) -> Self {
        Self(Uuid::new_v5(&NAMESPACE, format!("{kind}/{key}").as_bytes()))
    }

    /// The partition (0 to 63) that the agent belongs to: the last byte of the id, modulo 64.
    pub fn partition(self) -> i16 {
        i16::from(self.0.as_bytes()[15] & 63)
    }
}

/// A scope for idempotency keys that belong to no agent and no tool.
pub fn scope_of(name: &str) -> Uuid {
    Uuid::new_v5(&NAMESPACE, format!("scope:{name}").as_bytes())
}

/// The identity of a task: a UUIDv7, made by the node that accepts it.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize, JsonSchema)]
#[serde(transparent)]
pub struct TaskId(#[schemars(with = "Uuid")] pub Uuid);

impl TaskId {
    /// A fresh id, ordered by time.
    pub fn fresh() -> Self {
        Self(Uuid::now_v7())
    }

    /// The id of what this task submits with its n-th call of this hash: the same in each of its runs. It
    /// stands beside its submitter's in the order of time.
    pub fn of_call(self, hash: [u8; 16], occurrence: u32) -> Self {
        let mut name = hash.to_vec();
        name.extend(occurrence.to_be_bytes());
        let mut bytes = Uuid::new_v5(&self.0, &name).into_bytes();
        for (to, from) in bytes.iter_mut().zip(self.0.into_bytes()).take(6) {
            *to = from;
        }
        Self(uuid::Builder::from_bytes(bytes).with_version(uuid::Version::SortRand).into_uuid())
    }
}

impl fmt::Display for TaskId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.fmt(f)
    }
}

impl FromStr for TaskId {
    type Err = uuid::Error;
    fn from_str(s: &str) -> Result<Self, Self::Err> {
        s.parse().map(Self)
    }
}

/// Where a task is addressed: an agent or a tool. Written `KIND/KEY` or `tool:NAME`.
#[derive(Debug, Clone, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum Target {
    /// An agent.
    Agent {
        /// Its kind.
        kind: String,
        /// Its key.
        key: String,
    },
    /// A tool, by name.
    Tool(String),
}

impl Target {
    /// The agent `kind/key`; the names are taken as they are.
    pub fn agent(kind: impl Into<String>, key: impl Into<String>) -> Self {
        Self::Agent { kind: kind.into(), key: key.into() }
    }

    /// The partition in which tasks for this target are claimed.
    pub fn partition(&self) -> i16 {
        match self {
            Self::Agent { kind, key } => AgentId::of(kind, key).partition(),
            Self::Tool(_) => TOOL_PARTITION,
        }
    }

    /// The id under which idempotency keys for this target are kept.
    pub fn scope(&self) -> Uuid {
        match self {
            Self::Agent { kind, key } => AgentId::of(kind, key).0,
            Self::Tool(name) => Uuid::new_v5(&NAMESPACE, format!("tool:{name}").as_bytes()),
        }
    }
}

impl fmt::Display for Target {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Agent { kind, key } => write!(f, "{kind}/{key}"),
            Self::Tool(name) => write!(f, "tool:{name}"),
        }
    }
}

impl FromStr for Target {
    type Err = NameError;
    fn from_str(s: &str) -> Result<Self, Self::Err> {
        if let Some(name) = s.strip_prefix("tool:") {
            check_tool(name)?;
            return Ok(Self::Tool(name.to_owned()));
        }
        let (kind, key) = s.split_once('/').ok_or_else(|| NameError::Target(s.to_owned()))?;
        check_kind(kind)?;
        check_key(key)?;
        Ok(Self::agent(kind, key))
    }
}

impl JsonSchema for Target {
    fn inline_schema() -> bool {
        true
    }

    fn schema_name() -> std::borrow::Cow<'static, str> {
        "Target".into()
    }

    fn json_schema(_: &mut schemars::SchemaGenerator) -> schemars::Schema {
        schemars::json_schema!({"type": "string", "description": "`KIND/KEY` or `tool:NAME`."})
    }
}

impl Serialize for Target {
    fn serialize<S: serde::Serializer>(&self, s: S) -> Result<S::Ok, S::Error> {
        s.collect_str(self)
    }
}

impl<'de> Deserialize<'de> for Target {
    fn deserialize<D: serde::Deserializer<'de>>(d: D) -> Result<Self, D::Error> {
        String::deserialize(d)?.parse().map_err(serde::de::Error::custom)
    }
}
