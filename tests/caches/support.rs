//! A cache of its own for each test, and short ways to say what a test is about.

use std::{
    sync::Arc,
    time::{Duration, Instant},
};

use greenroom::cache::{self, Cache, CacheOptions, Item, Recent, Room, Tail, Ticket, Versioned};

pub use crate::redis::Redis;

/// Past this, what has not happened never will.
pub const PATIENCE: Duration = Duration::from_secs(20);

/// Writes every rule as one test per cache.
macro_rules! rules {
    ($($(#[$meta:meta])* async fn $name:ident($world:ident: $mut:ty) $body:block)*) => {$(
        mod $name {
            use super::*;

            $(#[$meta])*
            async fn rule($world: $mut) $body

            #[tokio::test(flavor = "multi_thread", worker_threads = 2)]
            async fn memory() {
                rule(&World::memory().await).await;
            }

            #[tokio::test(flavor = "multi_thread", worker_threads = 2)]
            async fn redis() {
                rule(&World::redis().await).await;
            }

            #[tokio::test(flavor = "multi_thread", worker_threads = 2)]
            async fn redis_with_a_near_level() {
                rule(&World::tiered().await).await;
            }
        }
    )*};
}
pub(crate) use rules;

/// How long entries live in the tests that wait for their end.
pub const SHORT: Duration = Duration::from_millis(300);

/// A cache, with its server if it has one.
pub struct World {
    pub cache: Arc<dyn Cache>,
    pub server: Option<Redis>,
}

impl World {
    pub async fn memory() -> Self {
        Self { cache: cache::open("memory://", &options()).unwrap(), server: None }
    }

    /// Redis alone.
    pub async fn redis() -> Self {
        Self::over(Redis::start(), CacheOptions { near: false, ..options() }).await
    }

    /// Redis behind copies in the process.
    pub async fn tiered() -> Self {
        Self::over(Redis::start(), options()).await
    }

    /// A cache on this server, once it is connected.
    pub async fn over(server: Redis, options: CacheOptions) -> Self {
        let cache = cache::open(&server.url(), &options).unwrap();
        let world = Self { cache, server: Some(server) };
        world.up(true).await;
        world
    }

    /// Waits until the cache answers, or does not.
    pub async fn up(&self, up: bool) {
        let began = Instant::now();
        while self.cache.health().up != up {
            assert!(began.elapsed() < PATIENCE, "never: {:?}", self.cache.health());
            tokio::time::sleep(Duration::from_millis(2)).await;
        }
    }

    /// The list of `conversation`, filled with the messages `from..=to`.
    pub async fn fill(&self, conversation: &str, from: i64, to: i64) {
        let ticket = self.ticket(conversation).await;
        self.cache.fill_recent(conversation, ticket, tail(from, to)).await;
    }

    /// A reader's ticket: nothing is kept.
    pub async fn ticket(&self, conversation: &str) -> Ticket {
        match self.cache.get_recent(conversation, 1).await {
            Recent::Miss(Some(ticket)) => ticket,
            other => panic!("{other:?}"),
        }
    }

    /// The sequence numbers of the newest `n`; `None` where they are not kept.
    pub async fn seqs(&self, conversation: &str, n: usize) -> Option<Vec<i64>> {
        match self.cache.get_recent(conversation, n).await {
            Recent::Hit(tail) => Some(tail.items.iter().map(|item| item.seq).collect()),
            Recent::Miss(_) => None,
        }
    }

    pub async fn append(&self, conversation: &str, seq: i64) {
        self.cache.append_recent(conversation, seq - 1, item(seq)).await;
    }
}

/// Five messages a conversation; sessions live for a short time only.
pub fn options() -> CacheOptions {
    let session = Room { max_size: 1 << 20, ttl: SHORT };
    CacheOptions { keep: 5, session, timeout: Duration::from_secs(10), ..CacheOptions::default() }
}

pub fn bytes(text: &str) -> Arc<Vec<u8>> {
    Arc::new(text.as_bytes().to_vec())
}

pub fn document(version: i64, text: &str) -> Versioned {
    Versioned { version, bytes: bytes(text) }
}

pub fn item(seq: i64) -> Item {
    Item { seq, bytes: bytes(&format!("message {seq}")) }
}

pub fn tail(from: i64, to: i64) -> Tail {
    Tail { after: from - 1, items: (from..=to).map(item).collect() }
}
