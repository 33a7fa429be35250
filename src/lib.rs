//! Greenroom: a durable actor runtime for agents.
#![warn(missing_docs)]

pub mod agent;
pub mod app;
pub mod cache;
pub mod cli;
pub mod config;
pub mod demo;
pub mod http;
pub mod log;
pub mod model;
pub mod runtime;
pub mod store;
pub mod tool;

pub use agent::{
    Accepts, Address, Agent, AgentRef, AskError, Done, Fault, Full, Handler, Invalid, Joined, JsonRefusal,
    Message, Never, OnFull, Outcome, Pending, Persistence, Policy, Query, Restart, Settings, Stored, Turn,
};
pub use anyhow::{Error, Result};
pub use app::{Builder, Runtime};
pub use model::id::TaskId;
pub use runtime::Handle;
pub use tool::{Call, Effect, Limits, Tool, ToolRef};

/// What a user's program needs: `use greenroom::prelude::*;`.
pub mod prelude {
    pub use crate::{
        Address, Agent, AskError, Call, Done, Effect, Handle, Handler, Joined, Message, Never, Outcome,
        Policy, Query, Result, Runtime, Settings, Stored, TaskId, Tool, Turn, message,
    };
    pub use anyhow::{Context as _, anyhow, bail, ensure};
    pub use schemars::JsonSchema;
    pub use serde::{Deserialize, Serialize};
    pub use std::{process::ExitCode, time::Duration};
}
