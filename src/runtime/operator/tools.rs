//! Tools: list, call.

use std::time::Duration;

use serde_json::{Value, value::RawValue};
use uuid::Uuid;

use super::{
    Operator, OperatorError, Result, SendOptions,
    messages::{body, check},
    not_found,
};
use crate::{
    agent::{AskError, JsonRefusal, slot::slot},
    model::{id::Target, task::TaskState},
    runtime::views::{TaskRequest, ToolInfo},
    tool::{CallMeta, Effect, answer_of, by},
};

impl Operator {
    /// The tools.
    pub async fn tools(&self) -> Vec<ToolInfo> {
        let paused = self.paused().await;
        let info = |mut info: ToolInfo| {
            info.paused = paused.contains_key(&format!("tool:{}", info.name));
            info
        };
        self.node.tools.values().map(|t| info(t.info())).collect()
    }

    /// One tool.
    ///
    /// # Errors
    /// [`AskError::NotFound`].
    pub async fn tool(&self, name: &str) -> Result<ToolInfo> {
        let tool = self.node.tools.get(name).ok_or_else(|| not_found(format!("no tool `{name}`")))?;
        let mut info = tool.info();
        info.paused = self.paused().await.contains_key(&format!("tool:{name}"));
        Ok(info)
    }

    /// Calls a tool. A `once` tool, and any under an idempotency key, is run as a task, and waited for: what it
    /// comes to is kept. `true`: the key had been used, and this is what came of the first call.
    ///
    /// # Errors
    /// See [`OperatorError`].
    pub async fn call(
        &self,
        name: &str,
        bytes: &[u8],
        options: SendOptions,
    ) -> Result<(Box<RawValue>, bool)> {
        let tool = self.node.tools.get(name).ok_or_else(|| not_found(format!("no tool `{name}`")))?;
        let (value, raw) = body(bytes)?;
        check(tool.shape(), &value)?;
        if tool.effect() == Effect::Once || options.idempotency_key.is_some() {
            if let Some(stop) = tool.stopped()
                && !self.is_known_call(name, options.idempotency_key.as_deref()).await?
            {
                return Err(stop.error(false).widen::<JsonRefusal>().into());
            }
            return self.call_as_task(name, tool.effect() == Effect::Once, value, options).await;
        }
        let (tx, rx) = slot();
        let (key, deadline) = (Uuid::now_v7().to_string(), by(options.timeout));
        tool.invoke(&raw, CallMeta { key, deadline, ..CallMeta::default() }, tx)?;
        let reply = answer_of(rx, deadline).await.unwrap_or_else(|error| Err(error.widen()))?;
        Ok((reply.body, false))
    }

    /// Whether a call has been accepted under this key: whoever repeats it is answered with what came of that.
    async fn is_known_call(&self, name: &str, key: Option<&str>) -> Result<bool> {
        let Some(key) = key else { return Ok(false) };
        Ok(self.node.store.key(Target::Tool(name.to_owned()).scope(), key).await?.is_some())
    }

    async fn call_as_task(
        &self,
        name: &str,
        once: bool,
        input: Value,
        options: SendOptions,
    ) -> Result<(Box<RawValue>, bool)> {
        let request = TaskRequest {
            target: format!("tool:{name}"),
            input: Some(input),
            max_attempts: once.then_some(1),
            idempotency_key: options.idempotency_key,
            ..TaskRequest::default()
        };
        let (task, replayed) = self.submit(request).await?;
        let view = self.wait(task.id, options.timeout.unwrap_or(Duration::from_secs(30))).await?;
        match (view.state, view.result, view.error) {
            (TaskState::Succeeded, Some(result), _) => Ok((result, replayed)),
            // of an attempt that is followed by another nothing is told
            (state, _, Some(error)) if state.is_final() || state == TaskState::OutcomeUnknown => {
                Err(OperatorError::Ask(match error.refusal {
                    Some(value) => AskError::Refused(JsonRefusal { message: error.message, value }),
                    None if error.code == "outcome_unknown" => AskError::Unknown,
                    None if error.code == "timed_out" => AskError::TimedOut,
                    None => AskError::Failed(crate::Fault {
                        message: error.message,
                        chain: error.chain,
                        crash_id: error.crash_id,
                        advice: None,
                    }),
                }))
            }
            _ => Err(AskError::Unknown.into()),
        }
    }
}
