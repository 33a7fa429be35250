//! The cache actor: writes committed data to the cache, so that no agent waits for it.

use std::sync::Arc;

use actix::{fut::wrap_future, prelude::*};

use super::{keeper::Keeper, node::Node};
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
    pub keeper: Arc<Keeper>,
    pub under_way: usize,
    /// Conversations and sessions are on their way to the cache.
    pub refreshing: bool,
    /// Somebody has committed more meanwhile.
    pub again: bool,
}

impl CacheActor {
    pub(crate) fn of(node: &Node) -> Self {
        let (cache, keeper) = (node.cache.clone(), node.keeper.clone());
        Self { cache, keeper, under_way: 0, refreshing: false, again: false }
    }
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

/// Brings what was committed of conversations and sessions into the cache.
#[derive(Message)]
#[rtype(result = "()")]
pub(crate) struct Refresh;

impl Handler<Refresh> for CacheActor {
    type Result = ();
    fn handle(&mut self, _: Refresh, ctx: &mut Self::Context) {
        // Whatever was committed before this message came is seen by the pass that begins now; one that is
        // under way may have seen that there is no more.
        if std::mem::replace(&mut self.refreshing, true) {
            self.again = true;
            return;
        }
        let keeper = self.keeper.clone();
        let refreshing = wrap_future::<_, Self>(async move { keeper.refresh().await });
        ctx.spawn(refreshing.map(|(), actor: &mut Self, ctx| {
            actor.refreshing = false;
            if std::mem::take(&mut actor.again) {
                ctx.notify(Refresh);
            }
        }));
    }
}
