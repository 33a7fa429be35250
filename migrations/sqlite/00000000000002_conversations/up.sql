-- Conversations, their messages, and sessions.
--
-- Retention looks for days and hours, in columns of their own: an index on the moment itself would move
-- with every message.

CREATE TABLE greenroom_conversations (
    id BLOB NOT NULL PRIMARY KEY,
    title TEXT,
    metadata BLOB NOT NULL,
    -- The place of the last message, and so how many there are.
    last_seq BIGINT NOT NULL,
    version BIGINT NOT NULL,
    created_at BIGINT NOT NULL,
    updated_at BIGINT NOT NULL,
    -- The day of the last change, since 1970.
    used_on INTEGER NOT NULL,
    -- It is not there any more, and waits for its messages to be forgotten.
    deleted BOOLEAN NOT NULL
);
CREATE INDEX greenroom_conversations_used ON greenroom_conversations (used_on) WHERE NOT deleted;
CREATE INDEX greenroom_conversations_deleted ON greenroom_conversations (id) WHERE deleted;

CREATE TABLE greenroom_messages (
    conversation BLOB NOT NULL,
    -- 1, 2, 3 …: given in the commit.
    seq BIGINT NOT NULL,
    id BLOB NOT NULL UNIQUE,
    role TEXT NOT NULL,
    created_at BIGINT NOT NULL,
    content BLOB NOT NULL,
    PRIMARY KEY (conversation, seq)
);

CREATE TABLE greenroom_sessions (
    id TEXT NOT NULL PRIMARY KEY,
    -- Drawn by each writer.
    version BLOB NOT NULL,
    -- Rises with each write and each use that is written down.
    revision BIGINT NOT NULL,
    ttl_ms BIGINT NOT NULL,
    created_at BIGINT NOT NULL,
    updated_at BIGINT NOT NULL,
    expires_at BIGINT NOT NULL,
    -- The hour in which it expires, since 1970.
    expires_in INTEGER NOT NULL,
    data BLOB NOT NULL
);
CREATE INDEX greenroom_sessions_expiry ON greenroom_sessions (expires_in);
