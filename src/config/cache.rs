//! `[cache]`: the cache's URL, sizes and times to live.

use std::{path::PathBuf, time::Duration};

use serde::{Deserialize, Serialize};

use super::{secret::Url, settings::unless_empty};
use crate::model::units;

/// The cache, which is never the truth.
#[derive(Debug, Clone, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Cache {
    /// Where it is. Shown without its password.
    pub url: Url,
    /// The most memory that agent states take in this process.
    #[serde(with = "units::size")]
    pub max_size: u64,
    /// How long an agent state is kept after its last use.
    #[serde(with = "units::duration")]
    pub ttl: Duration,
    /// `conversations.*`.
    pub conversations: CacheRoom,
    /// `messages.*`.
    pub messages: CacheMessages,
    /// `sessions.*`.
    pub sessions: CacheRoom,
    /// What the names of all keys in Redis begin with.
    pub prefix: String,
    /// How long Redis may take to answer.
    #[serde(with = "units::duration")]
    pub timeout: Duration,
    /// A PEM file with certificates to trust, instead of the system's.
    #[serde(deserialize_with = "unless_empty")]
    pub tls_ca: Option<PathBuf>,
}

/// How much is cached, and how long.
#[derive(Debug, Clone, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct CacheRoom {
    /// The most memory that it takes in this process.
    #[serde(with = "units::size")]
    pub max_size: u64,
    /// How long an entry is kept.
    #[serde(with = "units::duration")]
    pub ttl: Duration,
}

/// How many messages are cached, and how long.
#[derive(Debug, Clone, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct CacheMessages {
    /// How many of the newest messages of a conversation are kept.
    pub keep: u32,
    /// The most memory that they take in this process.
    #[serde(with = "units::size")]
    pub max_size: u64,
    /// How long they are kept.
    #[serde(with = "units::duration")]
    pub ttl: Duration,
}
