//! Conversations and sessions.

use super::{
    operation::{Operation, delete, get, post, put},
    patterns::{ID, NUMBER},
    schemas::Schemas,
};
use crate::{
    model::{
        conversation::{Conversation, StoredMessage},
        session::Session,
    },
    runtime::views::{ConversationRequest, MessageRequest, SessionRequest},
};

pub(super) fn operations(s: &mut Schemas) -> Vec<Operation> {
    let (talk, session) = ("/conversations/{id}", "/sessions/{id}");
    let messages = format!("{talk}/messages");
    vec![
        get("/conversations", "listConversations", "Lists conversations, newest first.").paged(ID).answers(
            200,
            "A page.",
            s.list::<Conversation>(),
        ),
        post("/conversations", "createConversation", "Creates a conversation.")
            .idempotent()
            .may_take(s.request::<ConversationRequest>())
            .answers(201, "The item.", s.answer::<Conversation>())
            .tells("Location", "Where it is.")
            .refuses(&[(404, "not_found"), (504, "outcome_unknown")])
            .says("404 where the key is of a conversation that was deleted since.")
            .writes(),
        get(talk, "getConversation", "Shows a conversation.").answers(
            200,
            "The item.",
            s.answer::<Conversation>(),
        ),
        delete(talk, "deleteConversation", "Deletes a conversation with its messages.")
            .answers_nothing(204, "It is gone.")
            .refuses(&[(504, "outcome_unknown")])
            .writes(),
        get(&messages, "listMessages", "Lists the messages of a conversation.")
            .word("order", "Newest or oldest first.", &["desc", "asc"])
            .paged(NUMBER)
            .answers(200, "A page.", s.list::<StoredMessage>()),
        post(&messages, "appendMessage", "Adds a message to a conversation.")
            .idempotent()
            .takes(s.request::<MessageRequest>())
            .answers(201, "The item.", s.answer::<StoredMessage>())
            .refuses(&[(504, "outcome_unknown")])
            .writes(),
        get(session, "getSession", "Reads a session; its time to live starts again.")
            .answers(200, "The item.", s.answer::<Session>())
            .tells("ETag", "For `If-Match`."),
        put(session, "putSession", "Replaces a session's data.")
            .if_match()
            .if_none_match()
            .takes(s.request::<SessionRequest>())
            .answers(200, "The item.", s.answer::<Session>())
            .tells("ETag", "For `If-Match`.")
            .refuses(&[(504, "outcome_unknown")])
            .writes(),
        delete(session, "removeSession", "Deletes a session.")
            .if_match()
            .answers_nothing(204, "It is gone.")
            .refuses(&[(504, "outcome_unknown")])
            .writes(),
    ]
}
