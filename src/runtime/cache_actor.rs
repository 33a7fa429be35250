//! The cache actor: states pass through it to the cache after their commit, so that no agent waits.

use std::sync::Arc;

use actix::{fut::wrap_future, prelude::*};

use crate::{
    cache::{Cache, CacheOptions, Room},
    config::Settings,
    log::Logger,
    model::{
        event::{self, Event, Level},
        id::AgentId,
    },
};

/// The cache that the settings describe; what becomes of it is logged.
pub(crate) fn options(settings: &Settings, logger: &Logger) -> CacheOptions {
    let cache = &settings.cache;
    let (subject, logger) = (format!("node:{}", settings.node.name), logger.clone());
    CacheOptions {
        agent_state: Room { max_size: cache.max_size, ttl: cache.ttl },
        conversation: Room { max_size: cache.conversations.max_size, ttl: cache.conversations.ttl },
        recent_messages: Room { max_size: cache.messages.max_size, ttl: cache.messages.ttl },
        keep: usize::try_from(cache.messages.keep).unwrap_or(usize::MAX),
        session: Room { max_size: cache.sessions.max_size, ttl: cache.sessions.ttl },
        prefix: cache.prefix.clone(),
        timeout: cache.timeout,
        tls_ca: cache.tls_ca.clone(),
        near: true,
        on_change: Some(Arc::new(move |up, reason| logger.emit(changed(&subject, up, reason)))),
    }
}

fn changed(subject: &str, up: bool, reason: Option<&str>) -> Event {
    if up {
        return Event::new(Level::Info, event::CACHE_RECOVERED, subject);
    }
    Event::new(Level::Warn, event::CACHE_DEGRADED, subject)
        .field_opt("reason", reason)
        .hint("nothing is lost: reads go to the store; look at Redis and at cache.url")
}

/// At most so many states are on their way to the cache; more wait in the mailbox.
const UNDER_WAY: usize = 64;

/// The cache actor.
pub(crate) struct CacheActor {
    pub cache: Arc<dyn Cache>,
    pub under_way: usize,
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
        let putting = async move { cache.put_state(put.id, put.epoch, put.version, put.bytes).await };
        self.under_way += 1;
        let putting = wrap_future(putting).map(|(), actor: &mut Self, _| actor.under_way -= 1);
        // They may overtake each other: the cache keeps the later of two.
        if self.under_way < UNDER_WAY {
            ctx.spawn(putting);
        } else {
            ctx.wait(putting);
        }
    }
}
