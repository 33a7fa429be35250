//! Messages given as JSON: checked against their schema, asked or told.

use std::{sync::Arc, time::Duration};

use tokio::time::Instant;

use serde_json::{Value, json, value::RawValue};
use uuid::Uuid;

use super::{Operator, OperatorError, Result, SendOptions};
use crate::{
    agent::{
        AskError, JsonReply, Shape,
        letter::{JsonAnswer, Key, Meta},
        reference::{check_key_text, request_hash, unanswered},
        slot::{ReplyTx, slot},
    },
    runtime::kind::{AnyKind, PostError},
};

/// How much longer an ask waits for a turn that had begun when its timeout elapsed.
const GRACE: Duration = Duration::from_millis(500);
/// How long an ask without a timeout waits for a paused agent: a short pause goes unnoticed, a long one is
/// reported soon.
const PAUSE_PATIENCE: Duration = Duration::from_secs(5);

impl Operator {
    /// Asks an agent. `body` is what the client sent: empty, `null` and `{}` are the same.
    ///
    /// # Errors
    /// See [`OperatorError`]. A paused agent answers when it is resumed; without a timeout, the ask waits five
    /// seconds for that, then returns [`OperatorError::Paused`].
    pub async fn ask(
        &self,
        kind: &str,
        key: &str,
        message: &str,
        body: &[u8],
        options: SendOptions,
    ) -> Result<JsonReply> {
        let (_, found, key) = self.key_of(kind, key)?;
        let raw = self.message(found, message, body)?;
        let timeout = options.timeout.unwrap_or(found.policy().ask_timeout);
        let (tx, rx) = slot();
        let mut meta = Meta {
            id: Some(Uuid::now_v7()),
            deadline: Some(Instant::now() + timeout),
            bytes: raw.get().len(),
            urgent: options.urgent,
            ..Meta::default()
        };
        if let Some(text) = options.idempotency_key {
            check_key_text(&text).map_err(AskError::widen)?;
            meta.key = Some(Key { request: request_hash(message, raw.get()), text });
        }
        self.post(found, key, message, &raw, Some(tx), meta)?;
        let mut rx = std::pin::pin!(rx);
        let begun = Instant::now();
        let first = if options.timeout.is_some() { timeout } else { timeout.min(PAUSE_PATIENCE) };
        let mut waited = tokio::time::timeout(first, rx.as_mut()).await;
        if waited.is_err() && first < timeout && !found.is_paused(key) {
            waited = tokio::time::timeout_at(begun + timeout, rx.as_mut()).await;
        }
        let answer = match waited {
            Ok(answer) => answer,
            Err(_) if rx.withdraw() => {
                if found.is_paused(key) {
                    return Err(OperatorError::Paused { agent: format!("{kind}/{key}") });
                }
                Some(Err(AskError::TimedOut))
            }
            Err(_) => tokio::time::timeout(GRACE, rx.as_mut()).await.unwrap_or(Some(Err(AskError::Unknown))),
        };
        match answer.unwrap_or_else(|| Err(unanswered().widen())) {
            // Its agent may have moved while it waited.
            Err(error @ AskError::Unavailable(_)) => self.here(kind, key).and(Err(error.into())),
            answer => Ok(answer?),
        }
    }

    /// Tells an agent; `urgent`: handled before waiting messages that are not.
    ///
    /// # Errors
    /// See [`OperatorError`].
    pub async fn tell(&self, kind: &str, key: &str, message: &str, body: &[u8], urgent: bool) -> Result<()> {
        let (_, found, key) = self.key_of(kind, key)?;
        let raw = self.message(found, message, body)?;
        if self.node.is_troubled(false) {
            return Err(self.node.trouble().widen().into());
        }
        let meta = Meta { id: Some(Uuid::now_v7()), bytes: raw.get().len(), urgent, ..Meta::default() };
        self.post(found, key, message, &raw, None, meta)
    }

    fn message(&self, kind: &Arc<dyn AnyKind>, message: &str, bytes: &[u8]) -> Result<Box<RawValue>> {
        let shape = kind.shape(message).ok_or_else(|| unknown_message(kind, message))?;
        let limit = self.node.settings.load().limits.message_bytes;
        if bytes.len() as u64 > limit {
            let why =
                format!("the message has {} bytes, more than limits.message_bytes ({limit})", bytes.len());
            return Err(AskError::TooLarge(why).into());
        }
        let (value, raw) = body(bytes)?;
        check(&shape, &value)?;
        Ok(raw)
    }

    fn post(
        &self,
        kind: &Arc<dyn AnyKind>,
        key: &str,
        message: &str,
        raw: &RawValue,
        tx: Option<ReplyTx<JsonAnswer>>,
        meta: Meta,
    ) -> Result<()> {
        self.here(kind.name(), key)?;
        kind.post(key, message, raw, tx, Some(Box::new(meta))).map_err(|e| match e {
            PostError::UnknownMessage => unknown_message(kind, message),
            PostError::Full => OperatorError::Ask(AskError::Overloaded {
                what: "the agent's mailbox is full".to_owned(),
                retry_after: Duration::from_secs(1),
            }),
            PostError::Ask(e) => OperatorError::Ask(e),
        })
    }
}

/// Reads what a client sent: whole JSON, or nothing.
pub(super) fn body(bytes: &[u8]) -> Result<(Value, Box<RawValue>)> {
    let text = std::str::from_utf8(bytes)
        .map_err(|_| OperatorError::Malformed("the body is not UTF-8".to_owned()))?
        .trim();
    let text = if text.is_empty() { "null" } else { text };
    let malformed = |e: serde_json::Error| OperatorError::Malformed(format!("the body is not JSON: {e}"));
    let value: Value = serde_json::from_str(text).map_err(malformed)?;
    let raw = RawValue::from_string(text.to_owned()).map_err(malformed)?;
    Ok((value, raw))
}

/// Checks a body against a message's schema; `null` stands for an object without fields.
pub(super) fn check(shape: &Shape, value: &Value) -> Result<()> {
    let empty = json!({});
    let first = shape.check(if value.is_null() { &empty } else { value });
    let is_empty = value.is_null() || value.as_object().is_some_and(serde_json::Map::is_empty);
    match first {
        Err(_) if is_empty && shape.check(&Value::Null).is_ok() => Ok(()),
        other => other.map_err(|e| AskError::Invalid(e).into()),
    }
}

pub(super) fn unknown_message(kind: &Arc<dyn AnyKind>, message: &str) -> OperatorError {
    OperatorError::UnknownMessage {
        kind: kind.name().to_owned(),
        message: message.to_owned(),
        known: kind.message_names(),
    }
}
