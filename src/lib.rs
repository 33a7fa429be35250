//! Greenroom: a durable actor runtime for agents.
//!
//! ```no_run
//! use greenroom::prelude::*;
//!
//! /// Counts the words it is sent, and never loses one.
//! #[derive(Default, Serialize, Deserialize)]
//! struct Tally {
//!     words: u64,
//! }
//!
//! #[derive(Clone, Serialize, Deserialize, JsonSchema)]
//! struct Add {
//!     text: String,
//! }
//! message!(Add -> u64);
//!
//! impl Agent for Tally {
//!     const KIND: &'static str = "tally";
//!     type Messages = Add;
//! }
//!
//! impl Handler<Add> for Tally {
//!     async fn handle(&mut self, add: Add, _: &Turn<Self>) -> Result<u64> {
//!         self.words += add.text.split_whitespace().count() as u64;
//!         Ok(self.words) // the state and this reply commit here
//!     }
//! }
//!
//! fn main() -> ExitCode {
//!     Runtime::builder().agent::<Tally>().main() // command line, HTTP, configuration, log, signals
//! }
//! ```
//!
//! # The idea
//!
//! An agent is what it *does*; its fields are what it *remembers*, and only they are kept.
//! The unit of everything is the **turn**: one message, handled by one agent, whose new state,
//! outgoing tasks and acknowledgement commit in one transaction or not at all. Nothing of a turn is
//! seen outside before that commit is durable.
//!
//! There is one way back, *restore*: decode the last image, and rerun the turns that it does not cover. It
//! serves a cold start, a handler's error, a panic, a turn that timed out and a failed commit, so the crash
//! path is exercised all the time.
//!
//! # The parts
//!
//! ```text
//!   command line ──HTTP──► http ──► Operator        Handle ◄── your program
//!                                       │              │
//!                                       ▼              ▼
//!              orchestrator ──────►  lane → agent cell ── turn ──► persistence ──► store
//!                                                  ▲                (group commit)
//!              dispatcher ── task cell ────────────┤
//!                                                  └── tool cell ── your tools
//! ```
//!
//! - An **agent cell** is the actor around one agent. Messages come through its *lane*, a typed queue
//!   of its own; operators' requests come through its actor mailbox, and never wait behind a slow
//!   turn. The lane is the agent's identity: cells attach to it and leave it, so handles
//!   ([`AgentRef`]) stay valid across crashes and passivation. Turns run *ahead* of the disk, up to a
//!   bound; at most one commit of an agent is in flight, and the next covers all turns that ran meanwhile.
//! - The **persistence** actor writes by group commit: while one transaction runs, the next is collected.
//! - The **dispatcher** claims due tasks, no more than there are free slots. A message that must
//!   not be lost *is* a task addressed to an agent. A **task cell** runs one task to its end.
//! - A **tool cell** bounds how much of a tool runs at once, and knows whether a call may be repeated
//!   ([`Effect`]).
//! - The **orchestrator** is the root of the supervision tree: it starts, stops and passivates agents.
//! - **Conversations** ([`agent::Talk`]) and **sessions** ([`agent::SessionPeer`]) are written by turns,
//!   in their commit, and from outside; the *keeper* reads them through the cache.
//! - **Topics** ([`Topic`]): subscriptions are written by turns, in their commit; publications are told
//!   to the subscribers, which each node keeps in memory.
//! - **Schedules** ([`Builder::schedule`]): the node that fires one advances it in the commit that submits its
//!   task, so each nominal time fires once, on one node.
//! - **Bonds** ([`Turn::watch`], [`Turn::child`]), stored like subscriptions: which agents' ends an agent is
//!   notified of, and which agents end with it.
//! - The **cache** saves reads of the store, which stays the only source of truth.
//!
//! # What always holds
//!
//! 1. Commit, then act, then acknowledge: replies, tells and tasks of a turn leave when the commit
//!    that covers it is durable.
//! 2. One turn of an agent at a time, in the order of its lane.
//! 3. A commit names the agent's version and its owner's epoch, and the store refuses it where either
//!    is stale. Ends of tasks name their boot and attempt, returned claims the claim, changes of status
//!    the epoch.
//! 4. A turn that fails does not affect others: turns that ran beside it are rerun without it.
//! 5. A commit whose outcome is unknown is sent again unchanged; its guards make that safe.
//! 6. Calls into user code are guarded: a panic, in a handler or a `Drop`, ends a turn, never a thread.
//! 7. A state that cannot be read is quarantined: never reset, never replaced by an older one.
//! 8. Restarts are decided in one place, [`model::supervision::decide`], and a task's next state in
//!    another, [`model::task::next`]; both are pure functions.
//! 9. Everything has a limit: mailboxes, turns ahead, outputs, slots, retries, bodies, deadlines.
//!
//! # What is deliberately absent
//!
//! - Waiting for a task inside a turn: it would block the agent while the task may need it. Receive the
//!   outcome as a [`Done`] message.
//! - Exactly-once calls out of a turn: an `ask` or a `call` may repeat when its turn does, with an
//!   idempotency key by which the receiver can tell. What must happen once is submitted as a task.
//! - An event journal to replay for agents: their state is stored, not the messages that led to it.
//! - Consensus and gossip: the database decides.
//! - Durable tells: [`turn.agent(…).tell(…)`](Turn) is at most once.
//!
//! # Source layout
//!
//! | folder | holds |
//! |---|---|
//! | `src/model` | data and decisions: no I/O, no clock |
//! | `src/config` | layers, validation, every key |
//! | `src/log` | one root logger, its outputs, the only formatter of crash reports |
//! | `src/agent` | [`Agent`], [`Handler`], [`Message`], [`Turn`], lanes; the built-in agents |
//! | `src/tool` | [`Tool`], and the built-in tools |
//! | `src/store` | [`store::Store`] and its implementations |
//! | `src/cache` | [`cache::Cache`] and its implementations |
//! | `src/runtime` | the actors; [`Handle`], for programs; [`runtime::operator::Operator`], for operators |
//! | `src/http`, `src/cli`, `src/demo` | the HTTP API with the dashboard, the command line, the demo |
//! | `src/app` | [`Builder`] and [`Runtime`] |
//! | `src/testkit` | [`testkit`]: a node on a simulated clock, for your tests |
//! | `src/clock.rs` | the only place that reads the clock |
//! | `src/secrets.rs` | the secrets of this process, so that no output holds one |
//! | `migrations` | the store's tables |
//! | `tests/conformance` | the rules that every store keeps |
//! | `tests/architecture` | the rules of this page: who may import whom, which calls are banned |
//!
//! Imports run strictly downward. A module imports only from ranks above it in this list, and modules of one
//! rank do not import each other, except `agent` and `tool`:
//!
//! 1. `model`, `clock`
//! 2. `secrets`
//! 3. `config`, `log`, `agent`, `tool`, `store`, `cache`
//! 4. `runtime`
//! 5. `http`
//! 6. `cli`
//! 7. `demo`
//! 8. `app`
//! 9. `testkit`
//! 10. `lib.rs`, `main.rs`
//!
//! Only `runtime` names actix, only `http` actix-web, only `store` diesel, only `cli` clap.
//!
//! To add an agent or a tool: one file, and one line where the program is built. To add a route or a
//! command: one file, and one line in its table. [`store::Store`] and [`cache::Cache`] are internal extension
//! points, not pluggable from a program yet. To add a store: one folder under `src/store`, its URL's arms in
//! `src/store/open.rs`, a line in `tests/conformance`, a folder of migrations.
#![warn(missing_docs)]

pub mod agent;
pub mod app;
pub mod cache;
#[doc(hidden)]
pub mod cli;
mod clock;
pub mod config;
#[doc(hidden)]
pub mod demo;
#[doc(hidden)]
pub mod http;
pub mod log;
pub mod model;
pub mod runtime;
mod secrets;
pub mod store;
pub mod testkit;
pub mod tool;

pub use agent::{
    Accepts, Address, Agent, AgentRef, AskError, Done, Fault, Full, Handler, Invalid, Joined, JsonRefusal,
    Message, Never, OnFull, Outcome, Pending, Persistence, Policy, Query, Restart, Retry, ScheduleOptions,
    Settings, Stored, Submit, Target, Terminated, Topic, Turn,
};
pub use anyhow::{Error, Result};
pub use app::{Builder, Runtime};
pub use model::{
    conversation::{ConversationId, MessageId},
    group::Strategy,
    id::TaskId,
    schedule::{Misfire, Overlap},
    task::OnParentFailed,
};
pub use runtime::Handle;
/// The allocator that the `greenroom` program runs with, and yours may: what a message or a task allocates is let go by
/// another thread than its own, for which the system's allocator takes half as much time again. (Feature `jemalloc`,
/// on by default; it builds C with `make`. `default-features = false` leaves it out, as a program must that has
/// another version of it.)
///
/// ```
/// #[global_allocator]
/// static ALLOCATOR: greenroom::Jemalloc = greenroom::Jemalloc;
/// ```
#[cfg(all(feature = "jemalloc", not(target_env = "msvc")))]
pub use tikv_jemallocator::Jemalloc;
pub use tool::{AgentCall, Call, Effect, Fanout, Limits, NoSignal, Tool, ToolRef};

/// What a user's program needs: `use greenroom::prelude::*;`.
pub mod prelude {
    pub use crate::{
        Address, Agent, AskError, Call, ConversationId, Done, Effect, Handle, Handler, Joined, Message,
        Never, Outcome, Policy, Query, Result, Runtime, Settings, Stored, TaskId, Terminated, Tool, Topic,
        Turn, message,
    };
    pub use anyhow::{Context as _, anyhow, bail, ensure};
    pub use schemars::JsonSchema;
    pub use serde::{Deserialize, Serialize};
    pub use std::{process::ExitCode, time::Duration};
}

/// The README's programs compile.
#[cfg(doctest)]
#[doc = include_str!("../README.md")]
pub struct Readme;
