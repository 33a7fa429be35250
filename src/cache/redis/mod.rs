//! The cache on a Redis server, shared by nodes, with copies in front of it within each.
//!
//! ```text
//!   reader ──► near (this process, at most 10 s) ──► Redis ──► (the store, by whoever asks)
//!                 ▲ notices of what others changed     │
//!                 └───────── pub/sub ──────────────────┘
//! ```
//!
//! The near level lives and dies with its link: it begins empty, and is gone as soon as notices
//! might be missed. Agents' states are apart from it: they need no notices, because they are used
//! only where the store says that they are its own.

mod dial;
mod line;
mod link;
mod scripts;
mod wire;

use std::{fmt, sync::Arc, time::Duration};

use async_trait::async_trait;
use tokio::runtime::Handle;
use tokio_util::sync::{CancellationToken, DropGuard};
use uuid::Uuid;

use self::{
    dial::Server,
    line::Line,
    link::{Failed, Link},
    wire::Place,
};
use super::{
    Cache, CacheError, CacheOptions, CachedState, Health, Item, Recent, Room, Shelf, Strategy, Tail, Ticket,
    Versioned,
    document::{OVERHEAD, REMOVED},
    memory::States,
    stats::Stats,
    tail::{AWAITED, TailRoom},
};
use crate::model::id::AgentId;

/// How long a copy in this process lives of what other nodes may change.
const NEAR: Duration = Duration::from_secs(10);
/// Larger values are left to the store: they would keep others waiting.
const MAX_VALUE: usize = 4 << 20;
/// A session that is used all the time is read from the store again after so long, if its time to
/// live is not longer still: whoever changed it may have ended before it could tell.
const SESSION_AGE: Duration = Duration::from_secs(3_600);

/// A cache on a Redis server.
pub struct RedisCache {
    line: Arc<Line>,
    states: States,
    stats: Stats,
    state_room: Room,
    conversation_room: Room,
    session_room: Room,
    tail_ttl: Duration,
    tail_room: TailRoom,
    _keeper: DropGuard,
}

impl fmt::Debug for RedisCache {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("RedisCache").field("state", &self.line.state()).finish_non_exhaustive()
    }
}

impl RedisCache {
    /// Begins to connect; what is asked before that is a miss.
    ///
    /// # Errors
    /// The URL or the certificates are not understood, or there is no runtime here.
    pub fn start(url: &str, options: &CacheOptions) -> Result<Self, CacheError> {
        let server = Server::parse(url, options)?;
        let home = Handle::try_current().map_err(|_| CacheError::NoRuntime)?;
        let (line, stop) = (Line::new(options), CancellationToken::new());
        let origin = Uuid::new_v4();
        home.spawn(line.clone().keep(server, options.clone(), origin, stop.clone()));
        let none = Room { max_size: 0, ..options.agent_state };
        Ok(Self {
            line,
            states: States::new(if options.near { options.agent_state } else { none }),
            stats: Stats::default(),
            state_room: options.agent_state,
            conversation_room: options.conversation,
            session_room: options.session,
            tail_ttl: options.recent_messages.ttl,
            tail_room: TailRoom::new(options.keep),
            _keeper: stop.drop_guard(),
        })
    }

    fn room(&self, shelf: Shelf) -> Room {
        match shelf {
            Shelf::Conversations => self.conversation_room,
            Shelf::Sessions => self.session_room,
        }
    }

    /// Reads a value; one that is no good is dropped.
    async fn read(&self, link: &Link, place: &Place) -> Option<CachedState> {
        let key = link.key(place);
        let value: Result<Option<Vec<u8>>, Failed> = match place {
            Place::Document(Shelf::Sessions, _) => {
                let ttl = ms(self.session_room.ttl);
                link.run(scripts::USE.key(key).arg(ttl)).await
            }
            _ => link.call(redis::cmd("GET").arg(key)).await,
        };
        match value {
            Ok(value) => match wire::read_value(value?) {
                Ok(found) => found,
                Err(wire::Corrupt) => {
                    let _ = link.forget(place).await;
                    None
                }
            },
            Err(_) => None,
        }
    }

    /// Writes a value; `false`: it is not there, and what is may be older.
    async fn write(&self, link: &Link, place: &Place, value: &[u8], ttl: Duration, version: i64) -> bool {
        if value.len() > MAX_VALUE {
            return false;
        }
        let (channel, notice) = link.notice(place, version);
        let mut script = scripts::PUT.key(link.key(place));
        script.arg(link.deadline()).arg(value).arg(ms(ttl)).arg(channel).arg(notice);
        link.write(&script).await.is_ok()
    }

    async fn find(&self, shelf: Shelf, id: &str) -> Option<Versioned> {
        let link = self.line.link()?;
        let near = link.near().map(|near| near.shelf(shelf));
        if let Some(found) = near.and_then(|near| near.get(id)) {
            return Some(found);
        }
        let place = Place::Document(shelf, id.to_owned());
        let CachedState { version, bytes, .. } = self.read(&link, &place).await?;
        let found = Versioned { version, bytes };
        if let Some(near) = near {
            near.put(id, found.clone());
        }
        Some(found)
    }

    async fn keep(&self, shelf: Shelf, place: &Place, id: &str, document: Versioned) -> bool {
        let Some(link) = self.line.link() else { return false };
        let ttl = self.room(shelf).ttl;
        let use_by = link.now().saturating_add(ms(ttl.max(SESSION_AGE)));
        let value = wire::value(0, document.version, use_by, &document.bytes);
        let version = document.version;
        if let Some(near) = link.near() {
            near.shelf(shelf).put(id, document);
        }
        self.write(&link, place, &value, ttl, version).await
    }

    async fn find_recent(&self, conversation: &str, n: usize) -> Recent {
        let Some(link) = self.line.link() else { return Recent::Miss(None) };
        let near_ticket = match link.near().map(|near| near.tails.get(conversation, n)) {
            Some(Recent::Hit(tail)) => return Recent::Hit(tail),
            Some(Recent::Miss(ticket)) => ticket,
            None => None,
        };
        let place = Place::Tail(conversation.to_owned());
        let mut script = scripts::RECENT.key(link.key(&place));
        script.arg(fastrand::u64(..)).arg(ms(AWAITED));
        match link.run(&script).await {
            Ok(redis::Value::Array(list)) => {
                let list: Option<Vec<Vec<u8>>> = list.into_iter().map(bulk).collect();
                let Ok(tail) = list.ok_or(wire::Corrupt).and_then(wire::read_tail) else {
                    let _ = link.forget(&place).await;
                    return Recent::Miss(None);
                };
                // Refused where somebody has appended since the near level was asked.
                if let (Some(near), Some(ticket)) = (link.near(), near_ticket) {
                    near.tails.fill(conversation, ticket, tail.clone());
                }
                if tail.answers(n) { Recent::Hit(tail.newest(n)) } else { Recent::Miss(None) }
            }
            Ok(value) => {
                let ticket = bulk(value).and_then(|text| std::str::from_utf8(&text).ok()?.parse().ok());
                Recent::Miss(ticket.map(Ticket))
            }
            Err(_) => Recent::Miss(None),
        }
    }

    async fn append(&self, link: &Link, place: &Place, conversation: &str, after: i64, item: Item) -> bool {
        let (channel, notice) = link.notice(place, wire::ANY);
        let mut script = scripts::APPEND.key(link.key(place));
        script.arg(link.deadline()).arg(&after.to_be_bytes()).arg(&item.seq.to_be_bytes());
        script.arg(wire::item(after, &item)).arg(self.tail_room.keep).arg(self.tail_room.max_bytes);
        script.arg(ms(self.tail_ttl)).arg(channel).arg(notice).arg(OVERHEAD - wire::ITEM_HEAD);
        if let Some(near) = link.near() {
            near.tails.append(conversation, after, item);
        }
        link.write(&script).await.is_ok()
    }
}

#[async_trait]
impl Cache for RedisCache {
    fn name(&self) -> &'static str {
        "redis"
    }

    fn health(&self) -> Health {
        let line::State { up, since, reason } = self.line.state();
        let version = self.line.link().and_then(|link| link.version().map(str::to_owned));
        Health { up, since, reason, version, lookups: self.stats.lookups() }
    }

    async fn put_state(&self, id: AgentId, epoch: i64, version: i64, bytes: Arc<Vec<u8>>) {
        self.states.put(id, CachedState { epoch, version, bytes: bytes.clone() });
        // Not noted if it fails: an older state there is seen to be old.
        if let Some(link) = self.line.link() {
            let value = wire::value(epoch, version, 0, &bytes);
            self.write(&link, &Place::State(id), &value, self.state_room.ttl, version).await;
        }
    }

    async fn get_state(&self, id: AgentId) -> Option<CachedState> {
        let mut found = self.states.get(id);
        if found.is_none()
            && let Some(link) = self.line.link()
        {
            found = self.read(&link, &Place::State(id)).await;
        }
        self.stats.count(Strategy::AgentState, found.is_some());
        found
    }

    async fn drop_state(&self, id: AgentId, epoch: i64, version: i64) {
        self.states.drop(id, epoch, version);
        if let Some(link) = self.line.link() {
            let stamp = [epoch, version].map(i64::to_be_bytes).concat();
            let _ = link.run::<i64>(scripts::DROP_OLD.key(link.key(&Place::State(id))).arg(stamp)).await;
        }
    }

    async fn get(&self, shelf: Shelf, id: &str) -> Option<Versioned> {
        let found = self.find(shelf, id).await;
        self.stats.count(shelf.strategy(), found.is_some());
        found
    }

    async fn put(&self, shelf: Shelf, id: &str, document: Versioned) {
        let place = Place::Document(shelf, id.to_owned());
        if !self.keep(shelf, &place, id, document).await {
            self.line.missed(place).await;
        }
    }

    async fn fill(&self, shelf: Shelf, id: &str, document: Versioned) {
        // Not noted if it fails: nothing has changed.
        self.keep(shelf, &Place::Document(shelf, id.to_owned()), id, document).await;
    }

    async fn remove(&self, shelf: Shelf, id: &str) {
        let place = Place::Document(shelf, id.to_owned());
        let done = match self.line.link() {
            Some(link) => {
                if let Some(near) = link.near() {
                    near.shelf(shelf).remove(id);
                }
                let (channel, notice) = link.notice(&place, i64::MAX);
                let mut script = scripts::REMOVE.key(link.key(&place));
                script.arg(wire::removed()).arg(ms(REMOVED)).arg(channel).arg(notice);
                link.run::<i64>(&script).await.is_ok()
            }
            None => false,
        };
        if !done {
            self.line.missed(place).await;
        }
    }

    fn keeps(&self) -> usize {
        self.tail_room.keep
    }

    async fn get_recent(&self, conversation: &str, n: usize) -> Recent {
        let found = self.find_recent(conversation, n).await;
        self.stats.count(Strategy::RecentMessages, matches!(found, Recent::Hit(_)));
        found
    }

    async fn fill_recent(&self, conversation: &str, ticket: Ticket, tail: Tail) {
        let Some(link) = self.line.link() else { return };
        let tail = tail.fit(&self.tail_room);
        let mut script = scripts::FILL.key(link.key(&Place::Tail(conversation.to_owned())));
        script.arg(link.deadline()).arg(ticket.0).arg(ms(self.tail_ttl));
        let mut after = tail.after;
        for item in &tail.items {
            script.arg(wire::item(after, item));
            after = item.seq;
        }
        // Not noted if it fails: nothing has changed.
        let _ = link.write(&script).await;
    }

    async fn append_recent(&self, conversation: &str, after: i64, item: Item) {
        let place = Place::Tail(conversation.to_owned());
        let done = match self.line.link() {
            Some(link) => self.append(&link, &place, conversation, after, item).await,
            None => false,
        };
        if !done {
            self.line.missed(place).await;
        }
    }

    async fn drop_recent(&self, conversation: &str) {
        self.line.missed(Place::Tail(conversation.to_owned())).await;
    }
}

fn bulk(value: redis::Value) -> Option<Vec<u8>> {
    match value {
        redis::Value::BulkString(bytes) => Some(bytes),
        _ => None,
    }
}

/// As Redis wants it: at least 1, and no more than it can add to its clock.
fn ms(d: Duration) -> i64 {
    i64::try_from(d.as_millis()).unwrap_or(i64::MAX).clamp(1, 365 * 86_400_000)
}
