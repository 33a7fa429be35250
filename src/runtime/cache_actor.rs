//! The cache actor: what is written to the cache passes through it, in order, after the commit.

use std::sync::Arc;

use actix::{fut::wrap_future, prelude::*};

use crate::{cache::Cache, model::id::AgentId};

/// The cache actor.
pub(crate) struct CacheActor {
    pub cache: Arc<dyn Cache>,
}

impl Actor for CacheActor {
    type Context = Context<Self>;
    fn started(&mut self, ctx: &mut Self::Context) {
        ctx.set_mailbox_capacity(1_024);
    }
}

/// Keeps a durable state for the next activation.
#[derive(Message)]
#[rtype(result = "()")]
pub(crate) struct Put {
    pub id: AgentId,
    pub epoch: i64,
    pub version: i64,
    pub bytes: Arc<Vec<u8>>,
}

impl Handler<Put> for CacheActor {
    type Result = ();
    fn handle(&mut self, put: Put, ctx: &mut Self::Context) {
        let cache = self.cache.clone();
        ctx.wait(wrap_future(
            async move { cache.put_state(put.id, put.epoch, put.version, put.bytes).await },
        ));
    }
}
