//! Conversations, as used from a turn.

use std::fmt;

use serde::Serialize;
use serde_json::{Map, Value};

use super::Turn;
use crate::{
    agent::{Agent, answer::AskError, host::Reads},
    model::conversation::{
        Conversation, ConversationId, ConversationWrite, MessageId, NewConversation, NewMessage,
        StoredMessage, check_role,
    },
};

/// The most messages that are read at once.
const MAX_READ: usize = 1_000;

/// A conversation, as used from a turn.
///
/// ```
/// # use greenroom::prelude::*;
/// # #[derive(Default, Serialize, Deserialize)] struct Chat { talk: Option<ConversationId> }
/// # #[derive(Clone, Serialize, Deserialize, JsonSchema)] struct Say { text: String }
/// # message!(Say -> usize);
/// # impl Agent for Chat { const KIND: &'static str = "chat"; type Messages = Say; }
/// impl Handler<Say> for Chat {
///     async fn handle(&mut self, say: Say, turn: &Turn<Self>) -> Result<usize> {
///         let id = *self.talk.get_or_insert_with(ConversationId::fresh);
///         let talk = turn.conversation(id);
///         talk.create();                       // only the first time does this make it
///         let before = talk.recent(20).await?; // what was said, oldest first
///         talk.append("user", &say.text);      // durable with this turn, once
///         Ok(before.len())
///     }
/// }
/// ```
///
/// Writes leave with the turn's commit, exactly once, or not at all. Reads see what is durable: everything that
/// earlier turns of this agent wrote, and nothing of this turn. A turn that reads first waits until those are
/// durable, as an ask does.
pub struct Talk<'c, A: Agent> {
    pub(super) turn: &'c Turn<A>,
    pub(super) id: ConversationId,
}

impl<'c, A: Agent> Talk<'c, A> {
    /// Its id; may be kept in state.
    pub fn id(&self) -> ConversationId {
        self.id
    }

    /// Creates it with this turn's commit, unless it exists.
    pub fn create(&self) -> Opened<'c, A> {
        self.turn.outbox().open(NewConversation::new(self.id));
        Opened { turn: self.turn, id: self.id }
    }

    /// Deletes it and its messages with this turn's commit; its id is not reused.
    pub fn delete(&self) {
        self.turn.outbox().write_conversation(ConversationWrite::Delete(self.id));
    }

    /// Appends a message with this turn's commit, which assigns its place. The turn fails if the conversation
    /// does not exist, or the content cannot be serialised to JSON or exceeds `limits.message_bytes`.
    pub fn append(&self, role: impl Into<String>, content: impl Serialize) -> MessageId {
        let (id, role) = (MessageId::fresh(), role.into());
        let made = check_role(&role).map_err(|e| e.to_string()).and_then(|()| {
            let content = serde_json::value::to_raw_value(&content).map_err(|e| e.to_string())?;
            let fits = content.get().len() <= self.turn.host.message_bytes();
            fits.then_some(content).ok_or_else(|| "its content is over limits.message_bytes".to_owned())
        });
        let mut outbox = self.turn.outbox();
        match made {
            Ok(content) => outbox.say(NewMessage { id, conversation: self.id, role, content }),
            Err(e) => outbox.refuse(format!("cannot append to conversation {}: {e}", self.id)),
        }
        id
    }

    /// Its title and metadata; `None` if it does not exist.
    ///
    /// # Errors
    /// [`AskError::Unavailable`].
    pub async fn info(&self) -> Result<Option<Conversation>, AskError> {
        self.reads().await?.conversation(self.id).await
    }

    /// The newest `n` messages (1,000 at most), oldest first; fewer if they exceed 8 MiB.
    ///
    /// # Errors
    /// [`AskError::NotFound`] if it does not exist and this turn does not create it.
    pub async fn recent(&self, n: usize) -> Result<Vec<StoredMessage>, AskError> {
        let found = self.reads().await?.recent(self.id, n.clamp(1, MAX_READ)).await?;
        self.or_made(found)
    }

    /// The `n` messages (1,000 at most) before the place `before`, oldest first; fewer if they exceed 8 MiB.
    ///
    /// # Errors
    /// [`AskError::NotFound`] if it does not exist and this turn does not create it.
    pub async fn history(&self, before: i64, n: usize) -> Result<Vec<StoredMessage>, AskError> {
        let found = self.reads().await?.history(self.id, before, n.clamp(1, MAX_READ)).await?;
        self.or_made(found)
    }

    fn or_made(&self, found: Option<Vec<StoredMessage>>) -> Result<Vec<StoredMessage>, AskError> {
        match found {
            Some(messages) => Ok(messages),
            None if self.turn.outbox().opens(self.id) => Ok(Vec::new()),
            None => Err(AskError::NotFound(format!("there is no conversation {}", self.id))),
        }
    }

    async fn reads(&self) -> Result<&'c dyn Reads, AskError> {
        self.turn.reads().await
    }
}

impl<A: Agent> fmt::Debug for Talk<'_, A> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Talk({})", self.id)
    }
}

/// A conversation that a turn creates; its properties can be set until the turn ends.
pub struct Opened<'c, A: Agent> {
    turn: &'c Turn<A>,
    id: ConversationId,
}

impl<A: Agent> Opened<'_, A> {
    fn change(self, f: impl FnOnce(&mut NewConversation)) -> Self {
        self.turn.outbox().reopen(self.id, f);
        self
    }

    /// Its title; at most 1,024 characters.
    pub fn title(self, title: impl Into<String>) -> Self {
        self.change(|new| new.title = Some(title.into()))
    }

    /// Its metadata; at most 64 KiB of JSON.
    pub fn metadata(self, metadata: Map<String, Value>) -> Self {
        self.change(|new| new.metadata = metadata)
    }
}
