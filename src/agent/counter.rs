//! The probe: an agent for trying out what the runtime guarantees, used by the demo and by people.
//! Registered when `node.probe = true`.

use std::time::Duration;

use anyhow::Context as _;
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use super::{Agent, Handler, Invalid, Message, Never, Query, Turn};
use crate::message;

/// Counts, keeps a list, and misbehaves on demand.
#[derive(Debug, Default, Serialize, Deserialize)]
pub struct Counter {
    total: i64,
    ids: Vec<String>,
}

/// Adds to the total.
#[derive(Debug, Clone, Serialize, Deserialize, JsonSchema)]
pub struct Add {
    /// How much; may be negative.
    pub n: i64,
}

/// Asks for the total.
#[derive(Debug, Clone, Serialize, Deserialize, JsonSchema)]
pub struct Get {}

/// The total.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct Total {
    /// Of all that was added.
    pub total: i64,
}

/// Appends to the list.
#[derive(Debug, Clone, Serialize, Deserialize, JsonSchema)]
pub struct Append {
    /// What to append.
    pub id: String,
}

/// How long the list is now.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct Length {
    /// In entries.
    pub len: u64,
}

/// Asks for the list.
#[derive(Debug, Clone, Serialize, Deserialize, JsonSchema)]
pub struct List {}

/// The list.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct Ids {
    /// In the order in which they were appended.
    pub ids: Vec<String>,
}

/// Makes the agent panic.
#[derive(Debug, Clone, Serialize, Deserialize, JsonSchema)]
pub struct Crash {
    /// What the panic says.
    #[serde(default)]
    pub message: Option<String>,
}

/// Ends the process at once, as a fault in foreign code would.
#[derive(Debug, Clone, Serialize, Deserialize, JsonSchema)]
pub struct Abort {}

/// Makes the turn last.
#[derive(Debug, Clone, Serialize, Deserialize, JsonSchema)]
pub struct Sleep {
    /// For so long; at most a day.
    pub ms: u64,
}

/// Makes the handler return an error.
#[derive(Debug, Clone, Serialize, Deserialize, JsonSchema)]
pub struct Fail {
    /// What it says.
    pub message: String,
}

/// Makes the handler refuse.
#[derive(Debug, Clone, Serialize, Deserialize, JsonSchema)]
pub struct Refuse {
    /// Why.
    pub reason: String,
}

/// The refusal that [`Refuse`] asks for.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema, thiserror::Error)]
#[error("{reason}")]
pub struct Declined {
    /// As it was given.
    pub reason: String,
}

message! {
    Add -> Total;
    Get -> Total;
    Append -> Length;
    List -> Ids;
    Crash -> ();
    Abort -> ();
    Fail -> ();
    Refuse -> () | Declined;
}

impl Message for Sleep {
    type Reply = ();
    type Error = Never;
    const NAME: &'static str = "Sleep";

    fn validate(&self) -> Result<(), Invalid> {
        const DAY_MS: u64 = 86_400_000;
        if self.ms > DAY_MS { Err(Invalid::at("/ms", "at most a day")) } else { Ok(()) }
    }
}

impl Agent for Counter {
    const KIND: &'static str = "counter";
    type Messages = (Add, Get, Append, List, Crash, Abort, Sleep, Fail, Refuse);
}

impl Handler<Add> for Counter {
    async fn handle(&mut self, add: Add, _: &Turn<Self>) -> anyhow::Result<Total> {
        self.total = self.total.checked_add(add.n).context("the total would not fit 64 bits")?;
        Ok(Total { total: self.total })
    }
}

impl Query<Get> for Counter {
    async fn query(&self, _: Get, _: &Turn<Self>) -> anyhow::Result<Total> {
        Ok(Total { total: self.total })
    }
}

impl Handler<Append> for Counter {
    async fn handle(&mut self, append: Append, _: &Turn<Self>) -> anyhow::Result<Length> {
        self.ids.push(append.id);
        Ok(Length { len: self.ids.len() as u64 })
    }
}

impl Query<List> for Counter {
    async fn query(&self, _: List, _: &Turn<Self>) -> anyhow::Result<Ids> {
        Ok(Ids { ids: self.ids.clone() })
    }
}

impl Handler<Crash> for Counter {
    #[allow(clippy::panic)] // it is what the message asks for
    async fn handle(&mut self, crash: Crash, _: &Turn<Self>) -> anyhow::Result<()> {
        panic!("{}", crash.message.as_deref().unwrap_or("crashed on request"))
    }
}

impl Handler<Abort> for Counter {
    async fn handle(&mut self, _: Abort, _: &Turn<Self>) -> anyhow::Result<()> {
        std::process::abort()
    }
}

impl Handler<Sleep> for Counter {
    async fn handle(&mut self, sleep: Sleep, _: &Turn<Self>) -> anyhow::Result<()> {
        tokio::time::sleep(Duration::from_millis(sleep.ms)).await;
        Ok(())
    }
}

impl Handler<Fail> for Counter {
    async fn handle(&mut self, fail: Fail, _: &Turn<Self>) -> anyhow::Result<()> {
        anyhow::bail!(fail.message)
    }
}

impl Handler<Refuse> for Counter {
    async fn handle(&mut self, refuse: Refuse, _: &Turn<Self>) -> anyhow::Result<()> {
        Err(Refuse::refuse(Declined { reason: refuse.reason }))
    }
}
