//! The builder: what a user's `main` calls. Ties the runtime, HTTP and the command line together.

use std::{future::Future, process::ExitCode};

use crate::{
    Handle,
    agent::{Agent, Message, Settings},
    tool::{Call, Effect, Tool},
};

/// A running node.
pub struct Runtime {
    handle: Handle,
}

impl Runtime {
    /// Begins to describe a program.
    pub fn builder() -> Builder {
        Builder {}
    }

    /// The door to it.
    pub fn handle(&self) -> Handle {
        self.handle.clone()
    }

    /// Ends it in good order: finishes what runs, persists, frees everything.
    ///
    /// # Errors
    /// When something could not be ended in time.
    pub async fn shutdown(self) -> anyhow::Result<()> {
        todo!()
    }
}

/// Describes a program: its agents, tools, resources and settings.
#[must_use = "nothing runs until `main` or `start`"]
pub struct Builder {}

#[allow(unused_variables)]
impl Builder {
    /// Adds a kind of agent.
    pub fn agent<A: Agent>(self) -> Self {
        todo!()
    }
    /// Adds a tool.
    pub fn tool<T: Tool>(self, tool: T) -> Self {
        todo!()
    }
    /// Adds an async function as a tool.
    pub fn tool_fn<M, F, R>(self, name: &'static str, effect: Effect, f: F) -> Self
    where
        M: Message,
        F: Fn(M, Call) -> R + Send + Sync + 'static,
        R: Future<Output = anyhow::Result<M::Reply>> + Send + 'static,
    {
        todo!()
    }
    /// Adds something that every turn may use.
    pub fn resource<T: Send + Sync + 'static>(self, resource: T) -> Self {
        todo!()
    }
    /// Declares the program's own section of the configuration.
    pub fn settings<S: Settings>(self) -> Self {
        todo!()
    }
    /// Runs when the node is ready.
    pub fn on_ready<F, R>(self, f: F) -> Self
    where
        F: FnOnce(Handle) -> R + Send + 'static,
        R: Future<Output = anyhow::Result<()>> + Send + 'static,
    {
        todo!()
    }
    /// Sets a configuration key, as `--set` would.
    pub fn set(self, key: &str, value: &str) -> Self {
        todo!()
    }
    /// Parses the command line and does what it says.
    pub fn main(self) -> ExitCode {
        todo!()
    }
    /// Starts a node in this process, without HTTP and without a command line.
    ///
    /// # Errors
    /// When the configuration is invalid, the data directory is in use, or the store cannot be opened.
    pub async fn start(self) -> anyhow::Result<Runtime> {
        todo!()
    }
}
