//! The documents that every surface shows: HTTP, the command line, and later the dashboard.

mod access;
mod agents;
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
pub use agents::{Action, AgentInfo, MailboxInfo, SnapshotInfo, StateInfo};
pub use family::{Edge, EdgeKind, Family, Relative};
pub use requests::{DismissFilter, DismissRequest, RetryFilter, RetryRequest, Swept, TaskRequest};

/// One page of a listing.
#[derive(Debug, Clone, Serialize, Deserialize, JsonSchema)]
pub struct Page<T> {
    /// The items.
    pub items: Vec<T>,
    /// The `cursor` of the next page; absent on the last one.
    pub next_cursor: Option<String>,
}

/// A log line of a task.
#[derive(Debug, Clone, Serialize, Deserialize, JsonSchema)]
pub struct TaskLine {
    /// Its number: later lines have higher ones.
    pub n: i64,
    /// When it was written.
    #[serde(serialize_with = "crate::model::units::moment")]
    pub at: Timestamp,
    /// Its level.
    pub level: Level,
    /// Its text.
    pub text: String,
}

/// The node's health.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
pub enum Verdict {
    /// Everything works.
    Ok,
    /// It works, but needs attention.
    Degraded,
    /// It does not accept work.
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
    #[serde(serialize_with = "crate::model::units::moment")]
    pub since: Timestamp,
    /// What to do.
    pub remedy: String,
}

/// `GET /api/v1/status`.
#[derive(Debug, Clone, Serialize, Deserialize, JsonSchema)]
pub struct Status {
    /// The verdict.
    pub verdict: Verdict,
    /// The reasons, unless it is `ok`.
    pub reasons: Vec<Reason>,
    /// The program's version.
    pub version: String,
    /// The answering node.
    pub node: NodeInfo,
    /// Number of agents, by status.
    pub agents: std::collections::BTreeMap<String, u64>,
    /// Number of tasks, by state.
    pub tasks: std::collections::BTreeMap<String, u64>,
    /// The store: `kind`, `up`, `commits`, …
    pub store: Value,
    /// The cache: `kind`, `up`, …
    pub cache: Value,
    /// The number of crashes, and the last ones.
    pub crashes: CrashSummary,
    /// The time of this status.
    #[serde(serialize_with = "crate::model::units::moment")]
    pub at: Timestamp,
}

/// A node.
#[derive(Debug, Clone, Serialize, Deserialize, JsonSchema)]
pub struct NodeInfo {
    /// Its boot id.
    pub id: String,
    /// Its label.
    pub name: String,
    /// Its process id.
    pub pid: u32,
    /// When it started.
    #[serde(serialize_with = "crate::model::units::moment")]
    pub started_at: Timestamp,
    /// How long it has run.
    pub uptime_ms: u64,
    /// Resident memory.
    pub rss_bytes: u64,
    /// Tasks that it has rescued at its start: their processes, its own before or others', had ended before them.
    #[serde(default)]
    pub rescued: u64,
}

/// A summary of the crashes.
#[derive(Debug, Clone, Default, Serialize, Deserialize, JsonSchema)]
pub struct CrashSummary {
    /// Number of crashes in the last hour.
    pub last_hour: u64,
    /// Of each sort (an agent and what it said) the last one, newest first; the five newest sorts.
    pub recent: Vec<RecentCrash>,
}

/// The last crash of a sort.
#[derive(Debug, Clone, Serialize, Deserialize, JsonSchema)]
pub struct RecentCrash {
    /// The crash.
    #[serde(flatten)]
    pub report: CrashReport,
    /// How many of the node's last 1,024 are of this sort.
    #[serde(default)]
    pub times: u64,
}

/// One crash, with what is known of its site: `GET /api/v1/crashes/{id}`.
#[derive(Debug, Clone, Serialize, Deserialize, JsonSchema)]
pub struct CrashDetail {
    /// The crash.
    #[serde(flatten)]
    pub report: CrashReport,
    /// The crash group of its site, if the store answers.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub group: Option<CrashTally>,
    /// The backtrace of one of them, innermost call first.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub backtrace: Option<String>,
}

/// How often a site has crashed.
#[derive(Debug, Clone, Serialize, Deserialize, JsonSchema)]
pub struct CrashTally {
    /// The group's id.
    pub id: uuid::Uuid,
    /// The first crash.
    #[serde(serialize_with = "crate::model::units::moment")]
    pub first: Timestamp,
    /// The last one.
    #[serde(serialize_with = "crate::model::units::moment")]
    pub last: Timestamp,
    /// Number of crashes.
    pub count: u64,
}

/// A node, as recorded in the store: `GET /api/v1/nodes`.
#[derive(Debug, Clone, Serialize, Deserialize, JsonSchema)]
pub struct MemberInfo {
    /// Its boot id.
    pub id: String,
    /// Its label.
    pub name: String,
    /// Its URL, if it has announced one.
    pub url: Option<String>,
    /// When it started.
    #[serde(serialize_with = "crate::model::units::moment")]
    pub started_at: Timestamp,
    /// When its lease expires; absent where the lock on the data directory is the lease.
    #[serde(serialize_with = "crate::model::units::moment")]
    pub lease_until: Option<Timestamp>,
    /// The partitions that it owns.
    pub partitions: Vec<i16>,
    /// Whether this is the answering node.
    pub this: bool,
    /// `active`; `draining` where it begins no tasks because an operator said so: it keeps what it owns and takes
    /// the messages for it; `suspended` where the node that answers starts no turn; `expired` past its lease.
    pub status: String,
    /// Since when it is drained.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[serde(serialize_with = "crate::model::units::moment")]
    pub drained_at: Option<Timestamp>,
}

/// A node of the supervision tree.
#[derive(Debug, Clone, Serialize, Deserialize, JsonSchema)]
pub struct TreeNode {
    /// `orchestrator`, `persistence`, `agent`, `tool`, `task`, …
    pub role: String,
    /// Its name.
    pub name: String,
    /// Its status.
    pub status: String,
    /// Number of restarts.
    pub restarts: u64,
    /// Number of waiting messages.
    pub depth: u64,
    /// What it is doing, and for how long, as text.
    pub current: Option<String>,
    /// Of an agent: the message that it is handling, if that waits for something.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub message: Option<String>,
    /// How long it has been handling it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub since_ms: Option<u64>,
    /// Its children, at most 1,000: `more` says how many are left out.
    pub children: Vec<TreeNode>,
    /// Number of children left out.
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
    /// Whether its tasks are paused.
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
    /// Whether a call may be repeated.
    pub effect: Effect,
    /// The input's JSON Schema.
    pub input: Value,
    /// The output's JSON Schema.
    pub output: Value,
    /// Whether its tasks are paused.
    #[serde(default)]
    pub paused: bool,
    /// What it does on the answering node: `idle`, `active`, `restarting` (it has crashed, and pauses), or `stopped`
    /// (it has crashed too often, and takes no calls until an operator resumes it).
    #[serde(default)]
    pub status: String,
    /// Why it is stopped.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub reason: Option<String>,
    /// How many calls may run at once.
    pub concurrency: Option<usize>,
    /// The time limit of one call.
    pub timeout_ms: u64,
    /// Number of running calls.
    pub running: u64,
    /// Number of waiting calls.
    pub waiting: u64,
    /// Number of calls so far.
    pub calls: u64,
    /// How many of them failed.
    pub failed: u64,
    /// How many of them crashed.
    pub crashed: u64,
    /// How often the tool itself was brought back.
    #[serde(default)]
    pub restarts: u64,
}

/// `POST /api/v1/conversations`.
#[derive(Debug, Clone, Default, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct ConversationRequest {
    /// Its title; at most 1,024 characters.
    #[serde(default)]
    pub title: Option<String>,
    /// Its metadata; at most 64 KiB.
    #[serde(default)]
    pub metadata: Option<Map<String, Value>>,
}

/// `POST /api/v1/conversations/{id}/messages`.
#[derive(Debug, Clone, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct MessageRequest {
    /// The role of the speaker, such as `user`.
    pub role: String,
    /// Its content: any JSON.
    #[schemars(with = "Value")]
    pub content: Box<RawValue>,
}

/// `PUT /api/v1/sessions/{id}`.
#[derive(Debug, Clone, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct SessionRequest {
    /// Its data: any JSON, at most 1 MiB.
    #[schemars(with = "Value")]
    pub data: Box<RawValue>,
    /// Its time to live after the last use, such as `30m`; `sessions.ttl` when absent.
    #[serde(default)]
    pub ttl: Option<String>,
}

/// `POST /api/v1/schedules`.
#[derive(Debug, Clone, Default, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct ScheduleRequest {
    /// Its name.
    pub name: String,
    /// Its times: cron with a time zone, or an interval. See [`Spec`](crate::model::schedule::Spec).
    pub cron: String,
    /// `KIND/KEY` or `tool:NAME`.
    pub target: String,
    /// For an agent: the message's wire name.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub message: Option<String>,
    /// The content of the message, or the tool's input; at most 64 KiB.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub input: Option<Value>,
    /// What happens if the previous task has not ended.
    #[serde(default)]
    pub overlap: Overlap,
    /// What happens about missed times.
    #[serde(default)]
    pub misfire: Misfire,
    /// Whether it is created paused.
    #[serde(default)]
    pub paused: bool,
    /// Higher runs first.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub priority: Option<i16>,
    /// How many attempts each task has.
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
    /// Its times: cron with an optional time zone, or an interval.
    pub cron: String,
    /// The target of its tasks.
    pub target: Target,
    /// Their message; absent for a tool.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub message: Option<String>,
    /// Their input.
    #[schemars(with = "Value")]
    pub input: Box<RawValue>,
    /// Higher runs first.
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
    /// What happens if the previous task has not ended.
    pub overlap: Overlap,
    /// What happens about missed times.
    pub misfire: Misfire,
    /// Who declared it.
    pub origin: Origin,
    /// Whether it is paused.
    pub paused: bool,
    /// The next nominal time; absent while it is paused.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[serde(serialize_with = "crate::model::units::moment")]
    pub next_at: Option<Timestamp>,
    /// The next five nominal times.
    #[serde(default, serialize_with = "crate::model::units::moment")]
    pub upcoming: Vec<Timestamp>,
    /// The last nominal time that got a task.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[serde(serialize_with = "crate::model::units::moment")]
    pub last_at: Option<Timestamp>,
    /// That task.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub last_task: Option<TaskId>,
    /// The state of that task; absent once it has been deleted.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub last_task_state: Option<TaskState>,
    /// When it was created.
    #[serde(serialize_with = "crate::model::units::moment")]
    pub created_at: Timestamp,
    /// When it was changed, paused or resumed.
    #[serde(serialize_with = "crate::model::units::moment")]
    pub updated_at: Timestamp,
}
