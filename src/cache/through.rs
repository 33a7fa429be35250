//! Reading through the cache: on a miss, loads once for all concurrent readers and keeps the result.

use std::{future::Future, sync::Arc};

use super::{Cache, Item, Recent, Shelf, Tail, Versioned, flight::Flights};

/// The cache, with the store behind it. `E` is what a load fails with.
///
/// A thousand readers of one cold key cost one load, also when the cache is gone. Reads go through
/// [`ReadThrough::document`] and [`ReadThrough::recent`]; after each commit call what names it:
/// [`ReadThrough::written`], [`ReadThrough::removed`], [`ReadThrough::appended`]. A read that begins
/// after that call sees the commit, on this node.
///
/// ```
/// use std::sync::Arc;
/// use greenroom::cache::{self, CacheOptions, ReadThrough, Shelf, Versioned};
///
/// # tokio::runtime::Runtime::new().unwrap().block_on(async {
/// let cache = cache::open("memory://", &CacheOptions::default()).unwrap();
/// let through = ReadThrough::<String>::new(cache);
/// let load = || async { Ok(Some(Versioned { version: 1, bytes: Arc::new(b"{}".to_vec()) })) };
/// let session = through.document(Shelf::Sessions, "a", load).await.unwrap().unwrap();
/// assert_eq!(session.version, 1);
/// # });
/// ```
pub struct ReadThrough<E: Send + Sync + 'static> {
    cache: Arc<dyn Cache>,
    documents: Flights<(Shelf, String), Result<Option<Versioned>, Arc<E>>>,
    tails: Flights<String, Result<Tail, Arc<E>>>,
}

impl<E: Send + Sync + 'static> ReadThrough<E> {
    /// Over this cache.
    pub fn new(cache: Arc<dyn Cache>) -> Self {
        Self { cache, documents: Flights::new(), tails: Flights::new() }
    }

    /// The cache.
    pub fn cache(&self) -> &Arc<dyn Cache> {
        &self.cache
    }

    /// A document: from the cache, or by `load` from the store, where `None` is one that is not there.
    ///
    /// # Errors
    /// What `load` failed with, shared by all who waited for it.
    pub async fn document<F>(
        &self,
        shelf: Shelf,
        id: &str,
        load: impl FnOnce() -> F + Send + 'static,
    ) -> Result<Option<Versioned>, Arc<E>>
    where
        F: Future<Output = Result<Option<Versioned>, E>> + Send + 'static,
    {
        let (cache, key) = (self.cache.clone(), id.to_owned());
        let flight = move || async move {
            if let Some(found) = cache.get(shelf, &key).await {
                return Ok(Some(found));
            }
            let loaded = load().await.map_err(Arc::new)?;
            if let Some(document) = &loaded {
                cache.fill(shelf, &key, document.clone()).await;
            }
            Ok(loaded)
        };
        self.documents.join((shelf, id.to_owned()), 0, flight).await
    }

    /// The newest `n` messages: from the cache, or by `load` from the store. `load` is told how many
    /// to read, at least `n`; it needs one more to know what stands before them ([`Tail::after`]).
    ///
    /// # Errors
    /// What `load` failed with, shared by all who waited for it.
    pub async fn recent<F>(
        &self,
        conversation: &str,
        n: usize,
        load: impl FnOnce(usize) -> F + Send + 'static,
    ) -> Result<Tail, Arc<E>>
    where
        F: Future<Output = Result<Tail, E>> + Send + 'static,
    {
        let (cache, key) = (self.cache.clone(), conversation.to_owned());
        let flight = move || async move {
            let ticket = match cache.get_recent(&key, n).await {
                Recent::Hit(tail) => return Ok(tail),
                Recent::Miss(ticket) => ticket,
            };
            let want = if ticket.is_some() { n.max(cache.keeps()) } else { n };
            let tail = load(want).await.map_err(Arc::new)?;
            if let Some(ticket) = ticket {
                cache.fill_recent(&key, ticket, tail.clone()).await;
            }
            Ok(tail.newest(n))
        };
        self.tails.join(conversation.to_owned(), n, flight).await
    }

    /// A document was committed.
    pub async fn written(&self, shelf: Shelf, id: &str, document: Versioned) {
        self.cache.put(shelf, id, document).await;
        self.documents.forget(&(shelf, id.to_owned()));
    }

    /// A document was removed.
    pub async fn removed(&self, shelf: Shelf, id: &str) {
        self.cache.remove(shelf, id).await;
        self.documents.forget(&(shelf, id.to_owned()));
    }

    /// A message was committed behind `after`: see [`Cache::append_recent`].
    pub async fn appended(&self, conversation: &str, after: i64, item: Item) {
        self.cache.append_recent(conversation, after, item).await;
        self.tails.forget(&conversation.to_owned());
    }

    /// Messages were removed or changed.
    pub async fn recent_changed(&self, conversation: &str) {
        self.cache.drop_recent(conversation).await;
        self.tails.forget(&conversation.to_owned());
    }
}
