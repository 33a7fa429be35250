//! The probe's tools: with them a person can try what task functions are promised. Registered when
//! `node.probe = true`.

use std::time::Duration;

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};
use serde_json::Value;

use super::{Call, Effect, Limits, Tool};
use crate::{
    agent::counter::{Append, Counter},
    message,
    model::{event::Level, units::parse_duration},
};

/// Waits for a signal, and answers what it says.
#[derive(Clone, Debug, Serialize, Deserialize, JsonSchema)]
pub struct AwaitSignal {
    /// Its name.
    pub signal: String,
    /// It fails where it has not come within this time, such as `30s`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub within: Option<String>,
}

/// Does nothing for a while.
#[derive(Clone, Debug, Serialize, Deserialize, JsonSchema)]
pub struct TakeTime {
    /// For so many milliseconds.
    pub ms: u64,
}

/// Appends to a counter's list, in runs of which so many fail.
#[derive(Clone, Debug, Serialize, Deserialize, JsonSchema)]
pub struct Stumble {
    /// The counter's key.
    pub to: String,
    /// What is appended.
    pub id: String,
    /// Of a hundred runs, about so many fail: half of them before it, half of them after it.
    pub percent: u8,
}

/// Crashes, or does not.
#[derive(Clone, Debug, Serialize, Deserialize, JsonSchema)]
pub struct Break {
    /// What the crash says; with none, it ends well.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub message: Option<String>,
}

message! { AwaitSignal -> Value; TakeTime -> (); Stumble -> u64; Break -> () }

/// `probe.wait`.
pub struct ProbeWait;

impl Tool for ProbeWait {
    const NAME: &'static str = "probe.wait";
    const EFFECT: Effect = Effect::Idempotent;
    type Input = AwaitSignal;

    async fn run(&self, input: AwaitSignal, call: &Call) -> anyhow::Result<Value> {
        call.progress(0.0, format!("waits for `{}`", input.signal));
        let said = call.wait_for::<Value>(&input.signal);
        let said = match input.within.as_deref().map(parse_duration).transpose()? {
            Some(within) => said.timeout(within).await?,
            None => said.await?,
        };
        call.log(Level::Info, format!("`{}` has come", input.signal));
        call.progress(1.0, format!("`{}` has come", input.signal));
        Ok(said)
    }
}

/// `probe.stumble`: whatever fails, it appends once.
pub struct ProbeStumble;

impl Tool for ProbeStumble {
    const NAME: &'static str = "probe.stumble";
    const EFFECT: Effect = Effect::Idempotent;
    type Input = Stumble;

    async fn run(&self, input: Stumble, call: &Call) -> anyhow::Result<u64> {
        let fails = || fastrand::u8(..200) < input.percent;
        anyhow::ensure!(!fails(), "it stumbles before");
        let length = call.agent::<Counter>(&input.to).ask(Append { id: input.id.clone() }).await?;
        anyhow::ensure!(!fails(), "it stumbles after");
        Ok(length.len)
    }
}

/// `probe.hold`: takes effect once, as it were.
pub struct ProbeHold;

impl Tool for ProbeHold {
    const NAME: &'static str = "probe.hold";
    const EFFECT: Effect = Effect::Once;
    type Input = TakeTime;

    fn limits(&self) -> Limits {
        Limits { timeout: Some(Duration::from_secs(3_600)), ..Limits::default() }
    }

    async fn run(&self, input: TakeTime, _: &Call) -> anyhow::Result<()> {
        tokio::time::sleep(Duration::from_millis(input.ms)).await;
        Ok(())
    }
}

/// `probe.crash`: with it a tool can be seen to be stopped.
pub struct ProbeCrash;

impl Tool for ProbeCrash {
    const NAME: &'static str = "probe.crash";
    const EFFECT: Effect = Effect::Idempotent;
    type Input = Break;

    #[allow(clippy::panic)] // it is what the call asks for
    async fn run(&self, input: Break, _: &Call) -> anyhow::Result<()> {
        match input.message {
            Some(message) => panic!("{message}"),
            None => Ok(()),
        }
    }
}
