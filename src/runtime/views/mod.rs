//! The documents that every surface shows: HTTP, the command line, and later the dashboard.

mod access;
mod family;
mod requests;

use jiff::Timestamp;
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};
use serde_json::{Map, Value, value::RawValue};

use crate::{
    model::{
        event::Level,
        id::{Target, TaskId},
        schedule::{Misfire, Origin, Overlap},
        supervision::CrashReport,
        task::TaskState,
    },
    tool::Effect,
};

pub use access::{LoginLink, Me, NewToken, TokenRequest, TokenView};
pub use family::{Edge, EdgeKind, Family, Relative};
pub use requests::{DismissFilter, DismissRequest, RetryFilter, RetryRequest, Swept, TaskRequest};

/// One page of a listing.
#[derive(Debug, Clone, Serialize, Deserialize, JsonSchema)]
pub struct Page<T> {
    /// The items.
    pub items: Vec<T>,
    /// Give it back as `cursor` for the next page; absent on the last one.
    pub next_cursor: Option<String>,
}

/// A line that a task wrote.
#[derive(Debug, Clone, Serialize, Deserialize, JsonSchema)]
pub struct TaskLine {
    /// Its number: later lines have higher ones.
    pub n: i64,
    /// When.
    pub at: Timestamp,
    /// How grave.
    pub level: Level,
    /// What.
    pub text: String,
}

/// How the node is, in a word.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
pub enum Verdict {
    /// Everything works.
    Ok,
    /// It works, but somebody should look.
    Degraded,
    /// It does not serve.
    Down,
}

/// Why the verdict is not `ok`.
#[derive(Debug, Clone, Serialize, Deserialize, JsonSchema)]
pub struct Reason {
    /// A stable code, such as `agent_stopped`.
    pub code: String,
    /// What is wrong.
    pub message: String,
    /// Since when.
    pub since: Timestamp,
    /// What to do.
    pub remedy: String,
}

/// `GET /api/v1/status`.
#[derive(Debug, Clone, Serialize, Deserialize, JsonSchema)]
pub struct Status {
    /// In a word.
    pub verdict: Verdict,
    /// Why.
    pub reasons: Vec<Reason>,
    /// Of the program.
    pub version: String,
    /// Which node answers.
    pub node: NodeInfo,
    /// How many agents, by status.
    pub agents: std::collections::BTreeMap<String, u64>,
    /// How many tasks, by state.
    pub tasks: std::collections::BTreeMap<String, u64>,
    /// The store: `kind`, `up`, `commits`, …
    pub store: Value,
    /// The cache: `kind`, `up`, …
    pub cache: Value,
    /// How many crashes, and the last ones.
    pub crashes: CrashSummary,
    /// When this was true.
    pub at: Timestamp,
}

/// A node.
#[derive(Debug, Clone, Serialize, Deserialize, JsonSchema)]
pub struct NodeInfo {
    /// Its boot id.
    pub id: String,
    /// Its label.
    pub name: String,
    /// Its process.
    pub pid: u32,
    /// When it started.
    pub started_at: Timestamp,
    /// For how long it has run.
    pub uptime_ms: u64,
    /// Resident memory.
    pub rss_bytes: u64,
}

/// The crashes in short.
#[derive(Debug, Clone, Default, Serialize, Deserialize, JsonSchema)]
pub struct CrashSummary {
    /// How many in the last hour.
    pub last_hour: u64,
    /// The last ones, newest first.
    pub recent: Vec<CrashReport>,
}

/// One crash, with what is known of its site: `GET /api/v1/crashes/{id}`.
#[derive(Debug, Clone, Serialize, Deserialize, JsonSchema)]
pub struct CrashDetail {
    /// The crash.
    #[serde(flatten)]
    pub report: CrashReport,
    /// The crashes of its site, where the store tells.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub group: Option<CrashTally>,
    /// The calls that led to one of them, the innermost first.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub backtrace: Option<String>,
}

/// How often a site has crashed.
#[derive(Debug, Clone, Serialize, Deserialize, JsonSchema)]
pub struct CrashTally {
    /// The group's id.
    pub id: uuid::Uuid,
    /// The first crash.
    pub first: Timestamp,
    /// The last one.
    pub last: Timestamp,
    /// How many.
    pub count: u64,
}

/// A node as the others see it: `GET /api/v1/nodes`.
#[derive(Debug, Clone, Serialize, Deserialize, JsonSchema)]
pub struct MemberInfo {
    /// Its boot id.
    pub id: String,
    /// Its label.
    pub name: String,
    /// Where it is reached, if it said.
    pub url: Option<String>,
    /// When it started.
    pub started_at: Timestamp,
    /// Until when it owns what it owns; absent where the lock on the data directory is the lease.
    pub lease_until: Option<Timestamp>,
    /// The partitions that it owns.
    pub partitions: Vec<i16>,
    /// Whether it is the node that answers.
    pub this: bool,
    /// `active`; `draining` where it begins no tasks because an operator said so: it keeps what it owns and takes
    /// the messages for it; `suspended` where the node that answers starts no turn; `expired` past its lease.
    pub status: String,
    /// Since when it is drained.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub drained_at: Option<Timestamp>,
}

/// A node of the supervision tree.
#[derive(Debug, Clone, Serialize, Deserialize, JsonSchema)]
pub struct TreeNode {
    /// `orchestrator`, `persistence`, `agent`, `tool`, `task`, …
    pub role: String,
    /// What it is called.
    pub name: String,
    /// How it is.
    pub status: String,
    /// How often it was restarted.
    pub restarts: u64,
    /// Messages that wait.
    pub depth: u64,
    /// What it is at, and for how long, in words.
    pub current: Option<String>,
    /// Of an agent: the message that it is at, where that waits for something.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub message: Option<String>,
    /// For how long it has been at that.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub since_ms: Option<u64>,
    /// Supervised by it, at most 1,000: `more` says how many are left out.
    pub children: Vec<TreeNode>,
    /// Children left out.
    pub more: u64,
}

/// A kind of agent.
#[derive(Debug, Clone, Serialize, Deserialize, JsonSchema)]
pub struct KindInfo {
    /// Its name.
    pub kind: String,
    /// The schema version of its state.
    pub version: u32,
    /// `every_turn`, `relaxed`, `volatile`.
    pub persistence: String,
    /// Whether its tasks are paused: none is started.
    #[serde(default)]
    pub paused: bool,
    /// Its messages.
    pub messages: Vec<MessageInfo>,
}

/// A message of a kind.
#[derive(Debug, Clone, Serialize, Deserialize, JsonSchema)]
pub struct MessageInfo {
    /// Its wire name.
    pub name: String,
    /// Whether it only reads.
    pub read_only: bool,
    /// The message's JSON Schema.
    pub schema: Value,
    /// The reply's JSON Schema.
    pub reply: Value,
    /// The refusal's JSON Schema.
    pub refusal: Value,
}

/// A tool.
#[derive(Debug, Clone, Serialize, Deserialize, JsonSchema)]
pub struct ToolInfo {
    /// Its name.
    pub name: String,
    /// What repeating it does.
    pub effect: Effect,
    /// The input's JSON Schema.
    pub input: Value,
    /// The output's JSON Schema.
    pub output: Value,
    /// Whether its tasks are paused: none is started.
    #[serde(default)]
    pub paused: bool,
    /// How many calls may run at once.
    pub concurrency: Option<usize>,
    /// How long one may take.
    pub timeout_ms: u64,
    /// Running now.
    pub running: u64,
    /// Waiting now.
    pub waiting: u64,
    /// Calls so far.
    pub calls: u64,
    /// Of those, failed.
    pub failed: u64,
    /// Of those, crashed.
    pub crashed: u64,
}

/// A mailbox.
#[derive(Debug, Clone, Copy, Default, Serialize, Deserialize, JsonSchema)]
pub struct MailboxInfo {
    /// Messages that wait.
    pub depth: usize,
    /// Its bound.
    pub capacity: usize,
}

/// An agent.
#[derive(Debug, Clone, Serialize, Deserialize, JsonSchema)]
pub struct AgentInfo {
    /// Its kind.
    pub kind: String,
    /// Its key.
    pub key: String,
    /// `starting`, `active`, `idle`, `passivated`, `restarting`, `paused`, `stopping`, `stopped`, `quarantined`.
    pub status: String,
    /// Why, where somebody or something decided it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub reason: Option<String>,
    /// Its last durable version.
    pub version: i64,
    /// The epoch of that.
    pub epoch: i64,
    /// The node that owns it.
    pub node: String,
    /// What waits for it.
    pub mailbox: MailboxInfo,
    /// Restarts since the node started.
    pub restarts: u64,
    /// Its last commit.
    pub updated_at: Option<Timestamp>,
    /// Its first commit.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub created_at: Option<Timestamp>,
    /// The size of its state.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub state_bytes: Option<u64>,
    /// Those that end with it (`kind/key`), at most 1,000; not in listings.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub children: Vec<String>,
}

/// A kept snapshot.
#[derive(Debug, Clone, Serialize, Deserialize, JsonSchema)]
pub struct SnapshotInfo {
    /// Its version.
    pub version: i64,
    /// When it was committed.
    pub at: Timestamp,
    /// Its size.
    pub bytes: u64,
}

/// An agent's state.
#[derive(Debug, Clone, Serialize, Deserialize, JsonSchema)]
pub struct StateInfo {
    /// Its version.
    pub version: i64,
    /// Its schema version.
    pub schema_version: u32,
    /// The state.
    pub state: Value,
}

/// What an operator does to an agent.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Action {
    /// Stops it until it is restarted; what waits is refused, its tasks are parked.
    Stop,
    /// Starts it anew, with a fresh budget.
    Restart,
    /// Lets its messages wait.
    Pause,
    /// Ends a pause.
    Resume,
    /// Takes it out of service as unreadable states are.
    Quarantine,
    /// Ends a quarantine, after a successful decode.
    Release,
}

/// `POST /api/v1/conversations`.
#[derive(Debug, Clone, Default, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct ConversationRequest {
    /// What people call it; at most 1,024 bytes.
    #[serde(default)]
    pub title: Option<String>,
    /// What is known about it; at most 64 KiB.
    #[serde(default)]
    pub metadata: Option<Map<String, Value>>,
}

/// `POST /api/v1/conversations/{id}/messages`.
#[derive(Debug, Clone, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct MessageRequest {
    /// Who speaks, such as `user`.
    pub role: String,
    /// What is said: any JSON.
    #[schemars(with = "Value")]
    pub content: Box<RawValue>,
}

/// `PUT /api/v1/sessions/{id}`.
#[derive(Debug, Clone, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct SessionRequest {
    /// What it holds: any JSON, at most 1 MiB.
    #[schemars(with = "Value")]
    pub data: Box<RawValue>,
    /// How long it lives without being used, such as `30m`; `sessions.ttl` when absent.
    #[serde(default)]
    pub ttl: Option<String>,
}

/// `POST /api/v1/schedules`.
#[derive(Debug, Clone, Default, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct ScheduleRequest {
    /// Its name.
    pub name: String,
    /// When: cron with a time zone, or an interval. See [`Spec`](crate::model::schedule::Spec).
    pub cron: String,
    /// `KIND/KEY` or `tool:NAME`.
    pub target: String,
    /// For an agent: the message's wire name.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub message: Option<String>,
    /// The content of the message, or the tool's input; at most 64 KiB.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub input: Option<Value>,
    /// What is done while the last task has not ended.
    #[serde(default)]
    pub overlap: Overlap,
    /// What is done about what was missed.
    #[serde(default)]
    pub misfire: Misfire,
    /// Whether it begins held up.
    #[serde(default)]
    pub paused: bool,
    /// Higher goes first.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub priority: Option<i16>,
    /// How many attempts of a task may fail.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub max_attempts: Option<u32>,
    /// How long one attempt may take (`"30s"`).
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub timeout: Option<String>,
    /// Free labels.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[schemars(length(max = 32), inner(length(max = 256)))]
    pub tags: Vec<String>,
}

/// A schedule.
#[derive(Debug, Clone, Serialize, Deserialize, JsonSchema)]
pub struct ScheduleView {
    /// Its name.
    pub name: String,
    /// When.
    pub cron: String,
    /// Whom its tasks are for.
    pub target: Target,
    /// Their message; absent for a tool.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub message: Option<String>,
    /// Their input.
    #[schemars(with = "Value")]
    pub input: Box<RawValue>,
    /// Higher goes first.
    pub priority: i16,
    /// How many attempts a task has; the target's own setting when absent.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub max_attempts: Option<u32>,
    /// How long one attempt may take.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub timeout_ms: Option<u64>,
    /// Free labels.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub tags: Vec<String>,
    /// What is done while the last task has not ended.
    pub overlap: Overlap,
    /// What is done about what was missed.
    pub misfire: Misfire,
    /// Whose it is.
    pub origin: Origin,
    /// Whether it is held up.
    pub paused: bool,
    /// The nominal time that comes next; absent while it is held up.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub next_at: Option<Timestamp>,
    /// The five nominal times that come next.
    #[serde(default)]
    pub upcoming: Vec<Timestamp>,
    /// The last nominal time that got a task.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub last_at: Option<Timestamp>,
    /// That task.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub last_task: Option<TaskId>,
    /// Where that task stands; absent where it has been forgotten.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub last_task_state: Option<TaskState>,
    /// When it was made.
    pub created_at: Timestamp,
    /// When it was changed, paused or resumed.
    pub updated_at: Timestamp,
}
