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
        get("/conversations", "listConversations", "Conversations, newest first.").paged(ID).answers(
            200,
            "A page.",
            s.list::<Conversation>(),
        ),
        post("/conversations", "createConversation", "Begins a conversation.")
            .idempotent()
            .may_take(s.request::<ConversationRequest>())
            .answers(201, "It.", s.answer::<Conversation>())
            .tells("Location", "Where it is.")
            .refuses(&[(404, "not_found"), (504, "outcome_unknown")])
            .says("404 where the key is of a conversation that was deleted since.")
            .writes(),
        get(talk, "getConversation", "One conversation.").answers(200, "It.", s.answer::<Conversation>()),
        delete(talk, "deleteConversation", "Removes one, with its messages.")
            .answers_nothing(204, "It is gone.")
            .refuses(&[(504, "outcome_unknown")])
            .writes(),
        get(&messages, "listMessages", "Its messages.")
            .word("order", "Newest or oldest first.", &["desc", "asc"])
            .paged(NUMBER)
            .answers(200, "A page.", s.list::<StoredMessage>()),
        post(&messages, "appendMessage", "Adds one.")
            .idempotent()
            .takes(s.request::<MessageRequest>())
            .answers(201, "It.", s.answer::<StoredMessage>())
            .refuses(&[(504, "outcome_unknown")])
            .writes(),
        get(session, "getSession", "One session; its time to live starts again.")
            .answers(200, "It.", s.answer::<Session>())
            .tells("ETag", "For `If-Match`."),
        put(session, "putSession", "Has a session hold this from now on.")
            .if_match()
            .if_none_match()
            .takes(s.request::<SessionRequest>())
            .answers(200, "It.", s.answer::<Session>())
            .tells("ETag", "For `If-Match`.")
            .refuses(&[(504, "outcome_unknown")])
            .writes(),
        delete(session, "removeSession", "Removes one.")
            .if_match()
            .answers_nothing(204, "It is gone.")
            .refuses(&[(504, "outcome_unknown")])
            .writes(),
    ]
}
