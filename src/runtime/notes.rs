//! Progress and log lines of running tasks: collected, and written about twice a second.

use std::{sync::Arc, time::Duration};

use parking_lot::Mutex;
use serde_json::value::RawValue;
use tokio::sync::Notify;
use tokio_util::sync::CancellationToken;

use super::node::Node;
use crate::{
    clock,
    model::{id::TaskId, journal::TaskNotes},
    tool::notes::Notes,
};

/// How long what is said is gathered.
const FLUSH_INTERVAL: Duration = Duration::from_millis(500);
/// How long somebody who asks waits until last words are written down.
const SETTLE_TIMEOUT: Duration = Duration::from_secs(2);
/// At most so many notes of tasks that have ended wait for a store that is away: the oldest go.
const MAX_LEFT: usize = 4_096;

/// The last words of tasks that do not run any more, and what turns say of theirs.
#[derive(Debug, Default)]
pub(crate) struct NoteBook {
    /// Of running turns that have said something.
    turns: dashmap::DashMap<TaskId, Arc<Notes>>,
    pages: Mutex<Pages>,
    work: Notify,
    /// Somebody waits for what is there.
    hurry: Notify,
    /// Something was written, or could not be.
    done: Notify,
}

#[derive(Debug, Default)]
struct Pages {
    left: Vec<TaskNotes>,
    /// On their way to the store.
    writing: Vec<TaskNotes>,
}

impl NoteBook {
    /// A run has ended, and this was its last word.
    pub(crate) fn leave(&self, notes: Option<TaskNotes>) {
        if let Some(notes) = notes {
            self.put(vec![notes]);
        }
    }

    /// A turn speaks of its task.
    pub(crate) fn listen(&self, task: TaskId, notes: &Arc<Notes>) {
        self.turns.insert(task, notes.clone());
    }

    /// It has ended.
    pub(crate) fn close(&self, task: TaskId, notes: &Arc<Notes>) {
        // A later attempt may have begun.
        let _ = self.turns.remove_if(&task, |_, listed| Arc::ptr_eq(listed, notes));
        self.leave(notes.take(task, clock::now()));
    }

    /// Somebody has said something.
    pub(crate) fn noted(&self) {
        self.work.notify_one();
    }

    /// How far a task said it is, in its turn or in its last word, where that is not written down yet.
    pub(crate) fn latest(&self, task: TaskId) -> Option<Box<RawValue>> {
        if let Some(said) = self.turns.get(&task).and_then(|notes| notes.latest()) {
            return Some(said);
        }
        let pages = self.pages.lock();
        let mut said = pages.left.iter().rev().chain(pages.writing.iter().rev());
        said.find_map(|note| note.progress.clone().filter(|_| note.task == task))
    }

    /// Has the last words of a task written down now, and waits for it, so that who has seen its end finds them.
    /// Not for long, and not where the store takes nothing.
    pub(crate) async fn settle(&self, task: TaskId) {
        // Others may be on their way; these go with the next.
        for _ in 0..2 {
            let done = self.done.notified();
            tokio::pin!(done);
            done.as_mut().enable();
            if !self.holds(task) {
                return;
            }
            self.hurry.notify_one();
            if tokio::time::timeout(SETTLE_TIMEOUT, done).await.is_err() {
                return;
            }
        }
    }

    fn holds(&self, task: TaskId) -> bool {
        let pages = self.pages.lock();
        pages.left.iter().chain(&pages.writing).any(|note| note.task == task)
    }

    fn put(&self, notes: Vec<TaskNotes>) {
        let mut pages = self.pages.lock();
        pages.left.extend(notes);
        let over = pages.left.len().saturating_sub(MAX_LEFT);
        pages.left.drain(..over);
        drop(pages);
        self.work.notify_one();
    }

    /// Takes what is to be written.
    fn begin(&self, fresh: impl Iterator<Item = TaskNotes>) -> Vec<TaskNotes> {
        let mut pages = self.pages.lock();
        let left = std::mem::take(&mut pages.left);
        pages.writing = left.into_iter().chain(fresh).collect();
        pages.writing.clone()
    }

    fn end(&self, written: bool) {
        let writing = std::mem::take(&mut self.pages.lock().writing);
        if !written && !writing.is_empty() {
            let later = std::mem::take(&mut self.pages.lock().left);
            self.put(writing.into_iter().chain(later).collect());
        }
        self.done.notify_waiters();
    }
}

/// Writes down what is said, until `end`.
pub(crate) async fn keep(node: Arc<Node>, end: CancellationToken) {
    while !end.is_cancelled() {
        tokio::select! {
            () = node.notes.work.notified() => {}
            () = end.cancelled() => {}
        }
        tokio::select! {
            () = tokio::time::sleep(FLUSH_INTERVAL) => {}
            () = node.notes.hurry.notified() => {}
            () = end.cancelled() => {}
        }
        write(&node).await;
    }
}

async fn write(node: &Arc<Node>) {
    let now = clock::now();
    let notes = {
        let of_calls = node.calls.iter().filter_map(|call| call.notes().take(*call.key(), now));
        let of_turns = node.notes.turns.iter().filter_map(|notes| notes.take(*notes.key(), now));
        node.notes.begin(of_calls.chain(of_turns))
    };
    if notes.is_empty() {
        return;
    }
    // In a task of its own: a call of the store is not dropped half way.
    let store = node.store.clone();
    let written = node.runtime.spawn(async move { store.note(&notes).await }).await;
    node.notes.end(matches!(written, Ok(Ok(()))));
}
