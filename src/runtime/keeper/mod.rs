//! Reads conversations and sessions through the cache, and updates the cache after each commit.
//!
//! ```text
//!   writer ── commit ──► mark ──► answer                    reader ──► marked? ── yes ──► store
//!                         │                                              │ no
//!                         ▼                                              ▼
//!                   cache actor ── reads the store ──► cache ◄──────── cache ── miss ──► store, once for all
//! ```
//!
//! Readers from outside may see a copy that is a little old where another node wrote, or where one ended
//! between its commit and the cache. A turn may not: it reads the store, and takes the list of recent
//! messages from the cache only where the store says that it ends with the last one.

mod fresh;
mod write;

use std::{collections::HashSet, sync::Arc};

use parking_lot::Mutex;
use serde::{Serialize, de::DeserializeOwned};

use self::fresh::{Batch, Fresh};
pub(crate) use self::write::Written;
use crate::{
    agent::AskError,
    cache::{Cache, Item, ReadThrough, Shelf, Tail, Versioned},
    clock,
    model::{
        conversation::{Conversation, ConversationId, StoredMessage},
        session::Session,
    },
    store::{MessagePage, Store, StoreError, Unit, Verdict},
};

/// At most so many messages are read at once by id.
const MESSAGES_AT_ONCE: usize = 32;

type Result<T> = std::result::Result<T, AskError>;

/// Conversations and sessions, with the cache in front of the store.
pub(crate) struct Keeper {
    store: Arc<dyn Store>,
    through: ReadThrough<StoreError>,
    fresh: Fresh,
    /// Sessions whose use is being written down.
    touching: Mutex<HashSet<String>>,
}

fn unavailable(e: impl std::fmt::Display) -> AskError {
    AskError::Unavailable(e.to_string())
}

impl Keeper {
    pub(crate) fn new(store: Arc<dyn Store>, cache: Arc<dyn Cache>) -> Self {
        let through = ReadThrough::new(cache);
        Self { store, through, fresh: Fresh::default(), touching: Mutex::default() }
    }

    /// For the writers, before anybody is told: what durable units did. `true`: the cache is behind.
    pub(crate) fn committed(&self, units: &[Unit], verdicts: &[Verdict]) -> bool {
        self.fresh.mark(units, verdicts)
    }

    /// A conversation as the store has it.
    pub(crate) async fn stored_conversation(&self, id: ConversationId) -> Result<Option<Conversation>> {
        let found = self.store.conversations(&[id]).await.map_err(unavailable)?;
        Ok(found.into_iter().next().flatten())
    }

    /// A conversation, perhaps from the cache.
    pub(crate) async fn conversation(&self, id: ConversationId) -> Result<Option<Conversation>> {
        if self.fresh.has_conversation(id) {
            return self.stored_conversation(id).await;
        }
        let (key, store) = (id.to_string(), self.store.clone());
        let load = move || async move {
            let found = store.conversations(&[id]).await?.into_iter().next().flatten();
            Ok(found.map(|c| versioned(c.version, &c)))
        };
        let Some(document) =
            self.through.document(Shelf::Conversations, &key, load).await.map_err(unavailable)?
        else {
            return Ok(None);
        };
        match read::<Conversation>(&document.bytes).filter(|c| c.id == id) {
            Some(conversation) => Ok(Some(conversation)),
            None => {
                self.through.removed(Shelf::Conversations, &key).await;
                self.stored_conversation(id).await
            }
        }
    }

    /// The newest messages, perhaps from the cache, oldest first.
    pub(crate) async fn recent(&self, id: ConversationId, n: usize) -> Result<Vec<StoredMessage>> {
        if self.fresh.has_conversation(id) {
            return self.newest(id, n).await;
        }
        match self.cached(id, n).await?.1 {
            Some(messages) => Ok(messages),
            None => self.newest(id, n).await,
        }
    }

    /// The newest messages as the store has them, oldest first; `None`: there is no such conversation.
    pub(crate) async fn recent_stored(
        &self,
        id: ConversationId,
        n: usize,
    ) -> Result<Option<Vec<StoredMessage>>> {
        let Some(head) = self.stored_conversation(id).await? else { return Ok(None) };
        if !self.fresh.has_conversation(id) {
            let (last, messages) = self.cached(id, n).await?;
            match messages {
                // one that came in between may be there already
                Some(messages) if last >= head.last_seq => return Ok(Some(messages)),
                _ if self.fresh.has_conversation(id) => {}
                _ => self.through.recent_changed(&id.to_string()).await,
            }
        }
        self.newest(id, n).await.map(Some)
    }

    /// What the cache has, or loads; with the place of the last one. No messages: they are spoilt.
    async fn cached(&self, id: ConversationId, n: usize) -> Result<(i64, Option<Vec<StoredMessage>>)> {
        let (key, store) = (id.to_string(), self.store.clone());
        let load = move |n: usize| async move { newest(&*store, id, n).await.map(|m| tail(&m)) };
        let tail = self.through.recent(&key, n, load).await.map_err(unavailable)?;
        let last = tail.items.last().map_or(tail.after, |item| item.seq);
        let read = tail.items.iter().map(|item| {
            read::<StoredMessage>(&item.bytes).filter(|m| m.conversation == id && m.seq == item.seq)
        });
        let messages: Option<Vec<_>> = read.collect();
        if messages.is_none() {
            self.through.recent_changed(&key).await;
        }
        Ok((last, messages))
    }

    async fn newest(&self, id: ConversationId, n: usize) -> Result<Vec<StoredMessage>> {
        newest(&*self.store, id, n).await.map_err(unavailable)
    }

    /// One page of messages from the store.
    pub(crate) async fn page(&self, id: ConversationId, page: MessagePage) -> Result<Vec<StoredMessage>> {
        self.store.message_page(id, page).await.map_err(unavailable)
    }

    /// A session as the store has it.
    pub(crate) async fn stored_session(&self, id: &str) -> Result<Option<Session>> {
        let found = self.store.sessions(&[id.to_owned()]).await.map_err(unavailable)?;
        Ok(found.into_iter().next().flatten())
    }

    /// A session, perhaps from the cache.
    pub(crate) async fn session(&self, id: &str) -> Result<Option<Session>> {
        if self.fresh.has_session(id) {
            return self.stored_session(id).await;
        }
        let (key, store) = (id.to_owned(), self.store.clone());
        let load = move || async move {
            let found = store.sessions(&[key]).await?.into_iter().next().flatten();
            Ok(found.map(|s| versioned(s.revision, &s)))
        };
        let Some(document) = self.through.document(Shelf::Sessions, id, load).await.map_err(unavailable)?
        else {
            return Ok(None);
        };
        let now = clock::now();
        match read::<Session>(&document.bytes).filter(|s| s.id == id) {
            Some(session) if session.is_live(now) => Ok(Some(session)),
            // another node may have written down that it was used
            Some(_) => {
                let stored = self.stored_session(id).await?;
                self.keep_session(id, stored.as_ref()).await;
                Ok(stored)
            }
            None => {
                self.through.removed(Shelf::Sessions, id).await;
                self.stored_session(id).await
            }
        }
    }

    /// A session was not what a writer had read: whoever reads next sees what the store has.
    pub(crate) async fn session_moved(&self, id: &str) {
        if let Ok(stored) = self.stored_session(id).await {
            self.keep_session(id, stored.as_ref()).await;
        }
    }

    /// Conversations were deleted because nobody added to them.
    pub(crate) async fn deleted(&self, ids: &[ConversationId]) {
        for id in ids {
            self.through.removed(Shelf::Conversations, &id.to_string()).await;
            self.through.recent_changed(&id.to_string()).await;
        }
    }

    async fn keep_session(&self, id: &str, stored: Option<&Session>) {
        match stored {
            Some(s) => self.through.written(Shelf::Sessions, id, versioned(s.revision, s)).await,
            None => self.through.removed(Shelf::Sessions, id).await,
        }
    }

    /// For the cache actor: brings what was committed into the cache.
    pub(crate) async fn refresh(&self) {
        while let Some(batch) = self.fresh.take() {
            if self.bring(&batch).await.is_err() {
                // Nobody can say what was committed: the cache forgets it.
                self.deleted(&batch.conversations).await;
                for id in &batch.sessions {
                    self.through.removed(Shelf::Sessions, id).await;
                }
            }
            self.fresh.done(&batch);
        }
    }

    async fn bring(&self, batch: &Batch) -> std::result::Result<(), StoreError> {
        let found = self.store.conversations(&batch.conversations).await?;
        for (id, conversation) in batch.conversations.iter().zip(found) {
            let key = id.to_string();
            match conversation {
                Some(c) => self.through.written(Shelf::Conversations, &key, versioned(c.version, &c)).await,
                None => self.deleted(&[*id]).await,
            }
        }
        for id in &batch.drop {
            self.through.recent_changed(&id.to_string()).await;
        }
        for ids in batch.messages.chunks(MESSAGES_AT_ONCE) {
            let mut messages: Vec<_> = self.store.messages(ids).await?.into_iter().flatten().collect();
            messages.sort_by_key(|m| (m.conversation, m.seq));
            for message in messages {
                let key = message.conversation.to_string();
                self.through.appended(&key, message.seq - 1, item(&message)).await;
            }
        }
        let found = self.store.sessions(&batch.sessions).await?;
        for (id, session) in batch.sessions.iter().zip(found) {
            self.keep_session(id, session.as_ref()).await;
        }
        Ok(())
    }
}

/// The newest messages, oldest first.
async fn newest(
    store: &dyn Store,
    id: ConversationId,
    n: usize,
) -> std::result::Result<Vec<StoredMessage>, StoreError> {
    let mut messages = store.message_page(id, MessagePage::Back { before: None, limit: n }).await?;
    messages.reverse();
    Ok(messages)
}

fn tail(messages: &[StoredMessage]) -> Tail {
    let after = messages.first().map_or(0, |first| first.seq - 1);
    Tail { after, items: messages.iter().map(item).collect() }
}

fn item(message: &StoredMessage) -> Item {
    Item { seq: message.seq, bytes: written(message) }
}

fn versioned(version: i64, document: &impl Serialize) -> Versioned {
    Versioned { version, bytes: written(document) }
}

/// A document as the cache keeps it.
fn written(document: &impl Serialize) -> Arc<Vec<u8>> {
    Arc::new(serde_json::to_vec(document).unwrap_or_default())
}

/// What the cache kept; `None`: it is not what was written.
fn read<T: DeserializeOwned>(bytes: &[u8]) -> Option<T> {
    serde_json::from_slice(bytes).ok()
}
