//! The options of a cache, and the cache that a URL names.

use std::{fmt, path::PathBuf, sync::Arc, time::Duration};

use super::{Cache, MemoryCache, RedisCache};

/// How much of one strategy is kept, and how long.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Room {
    /// The most memory that it takes within this process, in bytes; 0 keeps nothing.
    pub max_size: u64,
    /// How long an entry lives: after its last use (agent states, sessions), or after it was written.
    pub ttl: Duration,
}

/// Called once for each change: whether it answers now, and why not.
pub type OnChange = Arc<dyn Fn(bool, Option<&str>) + Send + Sync>;

/// What a cache is made of.
#[derive(Clone)]
pub struct CacheOptions {
    /// Agents' states.
    pub agent_state: Room,
    /// Conversations.
    pub conversation: Room,
    /// The newest messages of conversations.
    pub recent_messages: Room,
    /// How many messages of one conversation.
    pub keep: usize,
    /// Sessions.
    pub session: Room,
    /// What the names of all keys on a server begin with.
    pub prefix: String,
    /// How long a server may take to answer before it counts as gone.
    pub timeout: Duration,
    /// A PEM file with the certificates to trust, instead of the system's.
    pub tls_ca: Option<PathBuf>,
    /// Whether copies of what is on a server are kept in this process too, for up to ten seconds;
    /// other nodes tell what they change.
    pub near: bool,
    /// Told of each change.
    pub on_change: Option<OnChange>,
}

impl Default for CacheOptions {
    fn default() -> Self {
        let room = |minutes: u64| Room { max_size: 16 << 20, ttl: Duration::from_secs(60 * minutes) };
        Self {
            agent_state: room(10),
            conversation: room(10),
            recent_messages: room(10),
            keep: 100,
            session: room(30),
            prefix: "greenroom:".to_owned(),
            timeout: Duration::from_millis(100),
            tls_ca: None,
            near: true,
            on_change: None,
        }
    }
}

impl fmt::Debug for CacheOptions {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("CacheOptions")
            .field("agent_state", &self.agent_state)
            .field("conversation", &self.conversation)
            .field("recent_messages", &self.recent_messages)
            .field("keep", &self.keep)
            .field("session", &self.session)
            .field("prefix", &self.prefix)
            .field("timeout", &self.timeout)
            .field("tls_ca", &self.tls_ca)
            .field("near", &self.near)
            .finish_non_exhaustive()
    }
}

/// Why a cache cannot be used as it is configured. One that is not there is no error.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum CacheError {
    /// No cache has this scheme.
    #[error("`{0}` is not a cache: use memory://, redis:// or rediss://")]
    Scheme(String),
    /// The URL says something that is not understood.
    #[error("the cache's URL is not valid: {0}")]
    Url(String),
    /// The certificates to trust cannot be read.
    #[error("{} cannot be used as cache.tls_ca: {error}", path.display())]
    TlsCa {
        /// Which file.
        path: PathBuf,
        /// Why.
        error: String,
    },
    /// It was opened outside of a tokio runtime.
    #[error("a cache on a server is opened on the tokio runtime that drives its connections")]
    NoRuntime,
}

/// Opens the cache that a URL means. Call it on the multi-thread runtime: a server's connections
/// are driven there, whoever uses them.
///
/// # Errors
/// The URL is not understood. That a server does not answer is no error: see [`Cache::health`].
pub fn open(url: &str, options: &CacheOptions) -> Result<Arc<dyn Cache>, CacheError> {
    match url.split_once("://") {
        Some(("memory", _)) => Ok(Arc::new(MemoryCache::new(options))),
        Some(("redis" | "rediss", _)) => Ok(Arc::new(RedisCache::start(url, options)?)),
        Some((scheme, _)) => Err(CacheError::Scheme(format!("{scheme}://"))),
        None => Err(CacheError::Scheme("a text without scheme".to_owned())),
    }
}
