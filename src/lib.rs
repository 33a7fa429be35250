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
//! There is one way back, *restore*: decode the last image, and run again what it does not cover. It
//! serves a cold start, a handler's error, a panic, a turn past its time and a commit that failed; so
//! the path that a crash takes is walked all day long.
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
//!   of its own; what operators want comes through its actor mailbox, and is never stuck behind a slow
//!   turn. The lane is the agent's identity: cells attach to it and leave it, so doors
//!   ([`AgentRef`]) stay valid across crashes and passivation. Turns run *ahead* of the disk, up to a
//!   bound; at most one commit of an agent is under way, and it covers all that ran meanwhile.
//! - The **persistence** actor writes by group commit: while one transaction runs, the next gathers.
//! - The **dispatcher** claims tasks that are due, no more than there is room for. A message that must
//!   not be lost *is* a task addressed to an agent. A **task cell** sees each of them to its end.
//! - A **tool cell** bounds how much of a tool runs at once, and knows what repeating a call does
//!   ([`Effect`]).
//! - The **orchestrator** is the root of the supervision tree: it starts, stops and passivates agents.
//! - **Conversations** ([`agent::Talk`]) and **sessions** ([`agent::SessionPeer`]) are written by turns,
//!   in their commit, and from outside; the *keeper* reads them through the cache.
//! - **Topics** ([`Topic`]): subscriptions are written by turns, in their commit; what is published is told
//!   to the subscribers, whom a node keeps in memory.
//! - **Schedules** ([`Builder::schedule`]): whoever fires one moves it on in the commit that submits its task,
//!   so each nominal time is fired once, by one of the nodes.
//! - **Bonds** ([`Turn::watch`], [`Turn::child`]) are kept as subscriptions are: whose end an agent is told
//!   of, and who ends with it.
//! - The **cache** saves reading again what the store has. It is never the truth.
//!
//! # What always holds
//!
//! 1. Commit, then act, then acknowledge: replies, tells and tasks of a turn leave when the commit
//!    that covers it is durable.
//! 2. One turn of an agent at a time, in the order of its lane.
//! 3. A commit names the agent's version and its owner's epoch, and the store refuses it where either
//!    is old. Ends of tasks name their boot and attempt, returns of claims the claim, changes of status
//!    the epoch.
//! 4. A turn that fails harms no neighbour: what ran beside it runs again without it.
//! 5. A commit whose outcome is unknown is sent again as it was; its guards make that safe.
//! 6. Calls into user code are guarded: a panic, in a handler or a `Drop`, ends a turn, never a thread.
//! 7. A state that cannot be read is quarantined: never reset, never replaced by an older one.
//! 8. Restarts are decided in one place, [`model::supervision::decide`], and a task's next state in
//!    another, [`model::task::next`]; both are pure functions.
//! 9. Everything has a limit: mailboxes, turns ahead, outputs, slots, retries, bodies, deadlines.
//!
//! # What is deliberately absent
//!
//! - Waiting for a task inside a turn: it would hold the agent while the task may need it. Have the
//!   outcome brought back as a [`Done`] message.
//! - Exactly-once calls out of a turn: an `ask` or a `call` may repeat when its turn does, with a key
//!   by which the callee can tell. What must happen once is submitted.
//! - A journal to replay: state is kept as it is, not as what led to it.
//! - Consensus and gossip: the database is the truth.
//! - Durable tells: [`turn.agent(…).tell(…)`](Turn) is at most once, and says so.
//!
//! # The house
//!
//! | folder | holds |
//! |---|---|
//! | `src/model` | data and decisions: no I/O, no clock |
//! | `src/config` | layers, validation, every key |
//! | `src/log` | one root logger, its outputs, the one formatter of crash reports |
//! | `src/agent` | [`Agent`], [`Handler`], [`Message`], [`Turn`], lanes; the built-in agents |
//! | `src/tool` | [`Tool`], and the built-in tools |
//! | `src/store` | [`store::Store`] and its implementations |
//! | `src/cache` | [`cache::Cache`] and its implementations |
//! | `src/runtime` | the actors; [`Handle`], the door for code; [`runtime::operator::Operator`], the door for people |
//! | `src/http`, `src/cli`, `src/demo` | the surfaces |
//! | `src/app` | [`Builder`] and [`Runtime`] |
//! | `src/testkit` | [`testkit`]: a node on a clock of its own, for your tests |
//! | `src/clock.rs` | the one place that asks what time it is |
//! | `src/secrets.rs` | the one place that knows what is secret |
//! | `migrations` | the store's tables |
//! | `tests/conformance` | the rules that every store keeps |
//! | `tests/architecture` | the rules of this page: who may import whom, what is not called |
//!
//! Imports run strictly downward: `model`; then `config`, `log`, `agent`, `tool`, `store`, `cache`,
//! which do not know each other (but for agents and tools); then `runtime`, `http`, `cli`, `demo`,
//! `app`, `testkit`. Only `runtime` names actix, only `http` actix-web, only `store` diesel, only `cli` clap.
//!
//! To add an agent or a tool: one file, and one line where the program is built. To add a route or a
//! command: one file, and one line in its table. To add a store: one file, one arm in
//! [`store::open`], one line in `tests/conformance`, one folder of migrations.
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
    Settings, Stored, Target, Terminated, Topic, Turn,
};
pub use anyhow::{Error, Result};
pub use app::{Builder, Runtime};
pub use model::{
    conversation::{ConversationId, MessageId},
    group::Strategy,
    id::TaskId,
    schedule::{Misfire, Overlap},
};
pub use runtime::Handle;
pub use tool::{AgentCall, Call, Effect, Limits, NoSignal, Tool, ToolRef};

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
