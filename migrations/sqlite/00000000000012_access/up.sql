-- Who may come in, beside those who know the node's own token. Few rows.
CREATE TABLE greenroom_tokens (
    name TEXT NOT NULL PRIMARY KEY,
    -- SHA-256 of the token, which is kept nowhere.
    digest BLOB NOT NULL UNIQUE,
    -- `read`, `operate` or `admin`.
    scope TEXT NOT NULL,
    created_at BIGINT NOT NULL,
    expires_at BIGINT,
    -- To the minute.
    used_at BIGINT
);

-- What operators did. Ids are in the order of time.
CREATE TABLE greenroom_acts (
    id BLOB NOT NULL PRIMARY KEY,
    at BIGINT NOT NULL,
    -- The token's name, and where it was shown.
    who TEXT NOT NULL,
    address TEXT,
    action TEXT NOT NULL,
    subject TEXT NOT NULL,
    -- `ok` or a problem's code; not yet there while it is under way.
    outcome TEXT,
    -- JSON.
    before BLOB,
    after BLOB
);
CREATE INDEX greenroom_acts_age ON greenroom_acts (at);
CREATE INDEX greenroom_acts_who ON greenroom_acts (who, id);
CREATE INDEX greenroom_acts_subject ON greenroom_acts (subject, id);
CREATE INDEX greenroom_acts_action ON greenroom_acts (action, id);
