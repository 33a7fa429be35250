//! A `Host` for handles that outlive their node: every call fails with `Unavailable`.

use std::{
    any::{Any, TypeId},
    sync::Arc,
    time::Duration,
};

use futures_util::future::BoxFuture;

use crate::{
    agent::{
        AskError,
        host::{Host, Reads, Submission, Submitted},
        topic::Publication,
    },
    model::{id::Target, task::TaskTerms},
    tool::ToolPort,
};

/// Finds nothing, and accepts nothing.
pub(super) struct NullHost;

impl Host for NullHost {
    fn directory(&self, _: TypeId) -> Option<&(dyn Any + Send + Sync)> {
        None
    }
    fn tool(&self, _: &str) -> Option<&dyn ToolPort> {
        None
    }
    fn resource(&self, _: TypeId) -> Option<&(dyn Any + Send + Sync)> {
        None
    }
    fn settings(&self, _: TypeId) -> Option<Arc<dyn Any + Send + Sync>> {
        None
    }
    fn submit(&self, _: Submission) -> BoxFuture<'static, Result<Submitted, AskError>> {
        Box::pin(async { Err(AskError::Unavailable("the node has ended".to_owned())) })
    }
    fn terms(&self, _: &Target) -> TaskTerms {
        TaskTerms::default()
    }
    fn message_bytes(&self) -> usize {
        0
    }
    fn session_ttl(&self) -> Duration {
        Duration::ZERO
    }
    fn reads(&self) -> Option<&dyn Reads> {
        None
    }
    fn blocking(&self, _: Box<dyn FnOnce() + Send>) -> BoxFuture<'static, bool> {
        Box::pin(async { false })
    }
    fn tells_dropped(&self, _: &str, _: &str, _: &'static str, _: usize, _: &str) {}
    fn publish(&self, _: Arc<str>, _: Publication) {}
    fn broadcast(&self, _: &'static str, _: Publication) {}
}
