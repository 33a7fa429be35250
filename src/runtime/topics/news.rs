//! The notices between nodes that share a store: which topics have changed.

use std::{collections::BTreeSet, sync::Arc};

use parking_lot::Mutex;
use tokio::sync::Notify;
use uuid::Uuid;

/// What begins a hint that topics have changed.
const HINT: &str = "topics ";
/// The longest hint, in bytes.
const MAX_HINT: usize = 7_000;
/// At most so many topics wait to be told of: of more it is said that …
const MAX_NAMES: usize = 10_000;
/// … any may have changed. The name of none.
pub(super) const ALL: &str = "*";

/// Topics that this node has changed, and others have not been told of.
#[derive(Default)]
pub(super) struct News {
    names: Mutex<BTreeSet<Arc<str>>>,
    some: Notify,
    /// Held by who tells: who has it, and finds nothing to tell, knows that all has been told.
    pub telling: tokio::sync::Mutex<()>,
}

/// What other nodes are told: topics that have changed, a line each behind who says so.
pub(super) struct Hint {
    pub text: String,
    pub names: Vec<Arc<str>>,
}

impl Hint {
    fn add(&mut self, name: Arc<str>) {
        self.text.push('\n');
        self.text.push_str(&name);
        self.names.push(name);
    }
}

impl News {
    pub(super) fn add(&self, names: impl IntoIterator<Item = Arc<str>>) {
        let mut all = self.names.lock();
        all.extend(names);
        if all.len() > MAX_NAMES {
            *all = BTreeSet::from([ALL.into()]);
        }
        drop(all);
        self.some.notify_one();
    }

    /// Waits until there are some.
    pub(super) async fn some(&self) {
        self.some.notified().await;
    }

    /// Takes them.
    pub(super) fn take(&self, me: Uuid) -> Vec<Hint> {
        let names = std::mem::take(&mut *self.names.lock());
        let mut hints: Vec<Hint> = Vec::new();
        for name in names {
            match hints.last_mut().filter(|hint| hint.text.len() + name.len() < MAX_HINT) {
                Some(hint) => hint.add(name),
                None => {
                    let mut hint = Hint { text: format!("{HINT}{me}"), names: Vec::new() };
                    hint.add(name);
                    hints.push(hint);
                }
            }
        }
        hints
    }
}

/// The topics that another node says it has changed; `None`: the hint is about something else.
pub(super) fn read(hint: &str, me: Uuid) -> Option<impl Iterator<Item = &str>> {
    let mut lines = hint.strip_prefix(HINT)?.lines();
    // Whoever tells hears it too.
    let own = lines.next().is_none_or(|node| node == me.to_string());
    Some(lines.filter(move |_| !own))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn names(hints: &[Hint], me: Uuid) -> Vec<&str> {
        hints.iter().flat_map(|hint| read(&hint.text, me).unwrap()).collect()
    }

    #[test]
    fn others_are_told_in_hints_of_a_bounded_size() {
        let (news, me, other) = (News::default(), Uuid::now_v7(), Uuid::now_v7());
        let all: Vec<Arc<str>> = (0..100).map(|n| format!("t/{n:0200}").into()).collect();
        news.add(all.clone());
        let hints = news.take(me);
        assert!(hints.len() > 1 && hints.iter().all(|hint| hint.text.len() <= MAX_HINT));
        assert_eq!(names(&hints, other), all.iter().map(|name| &**name).collect::<Vec<_>>());
        assert_eq!(names(&hints, me), [""; 0], "one's own");
        assert!(news.take(me).is_empty());
        hints.into_iter().for_each(|hint| news.add(hint.names));
        assert_eq!(names(&news.take(me), other).len(), 100);
        assert!(read("tasks", me).is_none());
    }

    #[test]
    fn of_too_many_topics_others_are_told_that_any_may_have_changed() {
        let (news, me, other) = (News::default(), Uuid::now_v7(), Uuid::now_v7());
        let names = |n: usize| (0..n).map(|n| Arc::from(format!("t/{n}")));
        news.add(names(MAX_NAMES));
        assert_eq!(self::names(&news.take(me), other).len(), MAX_NAMES);
        news.add(names(MAX_NAMES + 1));
        assert_eq!(self::names(&news.take(me), other), [ALL]);
    }
}
