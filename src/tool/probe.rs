//! The probe's tools: with them a person can try what task functions are promised. Registered when
//! `node.probe = true`.

use std::time::Duration;

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};
use serde_json::Value;

use super::{Call, Effect, Limits, Tool};
use crate::{
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

message! { AwaitSignal -> Value; TakeTime -> () }

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
