//! Conversations and their messages.
//!
//! A message's place, [`StoredMessage::seq`], is assigned in the commit that makes it durable: 1, 2, 3 …, without
//! gaps, for all speakers together. Its id is drawn earlier, so that a message submitted twice is stored once.

use std::{fmt, str::FromStr};

use jiff::Timestamp;
use schemars::JsonSchema;
use serde::{Deserialize, Serialize, de::DeserializeOwned};
use serde_json::{Map, Value, value::RawValue};
use uuid::Uuid;

/// Longest title, in characters, as the API's document counts.
pub const MAX_TITLE_CHARS: usize = 1024;
/// Longest role, in characters.
pub const MAX_ROLE_CHARS: usize = 64;
/// Largest metadata, in bytes of JSON.
pub const MAX_METADATA_BYTES: usize = 64 << 10;

macro_rules! ids {
    ($($(#[$meta:meta])* $name:ident;)*) => {$(
        $(#[$meta])*
        #[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize, JsonSchema)]
        #[serde(transparent)]
        pub struct $name(#[schemars(with = "Uuid")] pub Uuid);

        impl $name {
            /// A fresh id, ordered by time.
            pub fn fresh() -> Self {
                Self(Uuid::now_v7())
            }
        }

        impl fmt::Display for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                self.0.fmt(f)
            }
        }

        impl FromStr for $name {
            type Err = uuid::Error;
            fn from_str(s: &str) -> Result<Self, Self::Err> {
                s.parse().map(Self)
            }
        }
    )*};
}

ids! {
    /// The identity of a conversation: opaque, and never used again. May be kept in state.
    ConversationId;
    /// The identity of a message, known before it is durable.
    MessageId;
}

/// What is wrong with a part of a conversation.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum ConversationError {
    /// The title is too long, or has control characters.
    #[error("a title has at most 1,024 characters and no control characters")]
    Title,
    /// The role is empty, too long, or has control characters.
    #[error("a role has 1 to 64 characters and no control characters, such as `user`")]
    Role,
    /// The metadata is too large.
    #[error("metadata has at most 64 KiB")]
    Metadata,
}

/// A conversation, without its messages.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, schemars::JsonSchema)]
pub struct Conversation {
    /// Its identity.
    pub id: ConversationId,
    /// What people call it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub title: Option<String>,
    /// What its makers know about it.
    pub metadata: Map<String, Value>,
    /// The number of its last message, and so of how many there are; 0: there is none.
    pub last_seq: i64,
    /// Rises with each change.
    pub version: i64,
    /// When it was made.
    #[serde(serialize_with = "crate::model::units::moment")]
    pub created_at: Timestamp,
    /// When it was last added to.
    #[serde(serialize_with = "crate::model::units::moment")]
    pub updated_at: Timestamp,
}

/// A message that is durable.
#[derive(Debug, Clone, Serialize, Deserialize, schemars::JsonSchema)]
pub struct StoredMessage {
    /// Its identity.
    pub id: MessageId,
    /// Where it belongs.
    pub conversation: ConversationId,
    /// Its place there: 1 for the first.
    pub seq: i64,
    /// Who speaks: `user`, `assistant`, `tool`, `system`, or what the program likes.
    pub role: String,
    /// What is said.
    #[schemars(with = "serde_json::Value")]
    pub content: Box<RawValue>,
    /// When it became durable.
    #[serde(serialize_with = "crate::model::units::moment")]
    pub created_at: Timestamp,
}

impl StoredMessage {
    /// Its content as `T`.
    ///
    /// # Errors
    /// When it is something else.
    pub fn read<T: DeserializeOwned>(&self) -> Result<T, serde_json::Error> {
        serde_json::from_str(self.content.get())
    }
}

/// A conversation to be made. One whose id is taken changes nothing.
#[derive(Debug, Clone, PartialEq)]
pub struct NewConversation {
    /// Its identity.
    pub id: ConversationId,
    /// What people call it.
    pub title: Option<String>,
    /// What its maker knows about it.
    pub metadata: Map<String, Value>,
}

impl NewConversation {
    /// One without a title.
    pub fn new(id: ConversationId) -> Self {
        Self { id, title: None, metadata: Map::new() }
    }

    /// Whether it may be made.
    ///
    /// # Errors
    /// What is wrong with it.
    pub fn check(&self) -> Result<(), ConversationError> {
        let bad = |t: &String| t.chars().count() > MAX_TITLE_CHARS || t.chars().any(char::is_control);
        if self.title.as_ref().is_some_and(bad) {
            return Err(ConversationError::Title);
        }
        let bytes = serde_json::to_vec(&self.metadata).map_or(usize::MAX, |m| m.len());
        if bytes > MAX_METADATA_BYTES { Err(ConversationError::Metadata) } else { Ok(()) }
    }
}

/// A message to be appended. One whose id is known in this conversation changes nothing.
#[derive(Debug, Clone)]
pub struct NewMessage {
    /// Its identity.
    pub id: MessageId,
    /// Where it belongs.
    pub conversation: ConversationId,
    /// Who speaks.
    pub role: String,
    /// What is said.
    pub content: Box<RawValue>,
}

/// Whether a text may be a role.
///
/// # Errors
/// [`ConversationError::Role`].
pub fn check_role(role: &str) -> Result<(), ConversationError> {
    let fits = (1..=MAX_ROLE_CHARS).contains(&role.chars().count()) && !role.chars().any(char::is_control);
    if fits { Ok(()) } else { Err(ConversationError::Role) }
}

/// What a commit does to a conversation besides appending. Within one commit conversations are made
/// before anything is appended, and deleted after that.
#[derive(Debug, Clone, PartialEq)]
pub enum ConversationWrite {
    /// Makes it, unless it is there.
    Create(NewConversation),
    /// Deletes it with all its messages, if it is there. Its id is not used again.
    Delete(ConversationId),
}

impl ConversationWrite {
    /// Which conversation it touches.
    pub fn id(&self) -> ConversationId {
        match self {
            Self::Create(new) => new.id,
            Self::Delete(id) => *id,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn parts_have_bounds() {
        assert_eq!(check_role("assistant"), Ok(()));
        assert_eq!(check_role(&"ä".repeat(64)), Ok(()), "characters are counted");
        for bad in ["", "a\nb", &"x".repeat(65)] {
            assert_eq!(check_role(bad), Err(ConversationError::Role), "{bad:?}");
        }
        let mut new = NewConversation::new(ConversationId::fresh());
        assert_eq!(new.check(), Ok(()));
        for bad in ["x".repeat(1_025), "a\0".into()] {
            new.title = Some(bad);
            assert_eq!(new.check(), Err(ConversationError::Title));
        }
        new.title = Some("x".repeat(1_024));
        new.metadata.insert("a".into(), "x".repeat(64 << 10).into());
        assert_eq!(new.check(), Err(ConversationError::Metadata));
    }
}
