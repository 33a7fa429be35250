//! Tasks that a turn submits under idempotency keys.
//!
//! A key is written by the turn's own commit, whose guard decides. It is looked up before, when the turn has run, so
//! that a turn whose key is taken leaves its task out, or fails, by itself: where another takes the key between the
//! two, the commit is refused, the turn runs again, and finds it so.

use std::collections::HashMap;

use uuid::Uuid;

use super::runner::Runner;
use crate::{
    agent::{
        Agent, Envelope,
        messages::EnvelopeOf,
        submit::key_of,
        turn::{Outbox, TaskKey},
    },
    clock,
    model::id::TaskId,
    runtime::settle::later,
    store::KeyWrite,
};

/// What a key stands for: a request, and the task that was submitted by it.
type Stands = ([u8; 16], Option<TaskId>);

impl<A: Agent> Runner<A> {
    /// Leaves out the tasks of a turn whose keys stand for the same requests already; those that come after them
    /// come after the first ones.
    ///
    /// # Errors
    /// A key stands for another request.
    pub(super) async fn settle_keys(
        &self,
        letter: &EnvelopeOf<A>,
        outbox: &mut Outbox,
    ) -> Result<(), String> {
        let mut first: HashMap<TaskId, TaskId> = HashMap::new();
        for (id, options) in std::mem::take(&mut outbox.keyed) {
            let Some(task) = outbox.tasks.iter().find(|task| task.id == id) else { continue };
            let mut options = options;
            come_after_the_first(&mut options.after, &first);
            let Some(key) = key_of(task, &options) else { continue };
            let scope = task.target.scope();
            let taken = || format!("cannot submit to {}: its key stands for another request", task.target);
            if self.is_letters_key(letter, scope, &key.text) {
                return Err(taken());
            }
            let known = outbox.keys.iter().find(|k| (k.scope, &*k.key.text) == (scope, &*key.text));
            let known = known.map(|k| (k.key.request, Some(k.task)));
            let known = match known.or_else(|| self.window_key(scope, &key.text)) {
                Some(known) => Some(known),
                None => self.stored_key(scope, key.text.clone()).await,
            };
            match known {
                None => outbox.keys.push(TaskKey { scope, key, task: id }),
                Some((request, Some(earlier))) if request == key.request => {
                    first.insert(id, earlier);
                }
                Some(_) => return Err(taken()),
            }
        }
        if !first.is_empty() {
            outbox.tasks.retain(|task| !first.contains_key(&task.id));
            for task in &mut outbox.tasks {
                come_after_the_first(&mut task.after, &first);
            }
        }
        Ok(())
    }

    /// What a key stands for by a turn that has run and is not on its way to the store.
    pub(super) fn window_key(&self, scope: Uuid, text: &str) -> Option<Stands> {
        let keys = &self.window.outbox.as_ref()?.keys;
        let key = keys.iter().find(|k| k.scope == scope && k.key.text == text)?;
        Some((key.key.request, Some(key.task)))
    }

    /// Whether a message that this agent handles has come under the key.
    fn is_letters_key(&self, letter: &EnvelopeOf<A>, scope: Uuid, text: &str) -> bool {
        let has = |letter: &EnvelopeOf<A>| {
            letter.letter().details().0.and_then(|meta| meta.key.as_ref()).is_some_and(|key| key.text == text)
        };
        let others = &self.window.entries;
        scope == self.lane.name.id.0 && (has(letter) || others.iter().any(|entry| has(&entry.letter)))
    }

    /// What a key stands for in the store; where that does not answer, its commit will.
    async fn stored_key(&self, scope: Uuid, text: String) -> Option<Stands> {
        let store = self.node.store.clone();
        let found = self.unless_troubled(async move { store.key(scope, &text).await }).await;
        found.and_then(Result::ok).flatten().map(|row| (row.request, row.task))
    }

    /// The keys of tasks, as they are written with the commit.
    pub(super) fn key_writes(&self, keys: Vec<TaskKey>) -> impl Iterator<Item = KeyWrite> {
        let ttl = self.node.settings.load().limits.idempotency_ttl;
        let expires_at = later(clock::now(), ttl);
        keys.into_iter().map(move |TaskKey { scope, key, task }| KeyWrite {
            scope,
            key: key.text,
            request: key.request,
            task: Some(task),
            reply: None,
            expires_at,
        })
    }
}

fn come_after_the_first(after: &mut [TaskId], first: &HashMap<TaskId, TaskId>) {
    for parent in after {
        *parent = first.get(parent).copied().unwrap_or(*parent);
    }
}
