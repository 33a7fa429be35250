-- Who may come in, beside those who know the node's own token. Few rows.
CREATE TABLE greenroom_tokens (
    name text COLLATE "C" PRIMARY KEY,
    -- SHA-256 of the token, which is kept nowhere.
    digest bytea NOT NULL UNIQUE,
    -- `read`, `operate` or `admin`.
    scope text NOT NULL,
    created_at timestamptz NOT NULL,
    expires_at timestamptz,
    -- To the minute.
    used_at timestamptz
);

-- What operators did. Ids are in the order of time.
CREATE TABLE greenroom_acts (
    id uuid PRIMARY KEY,
    at timestamptz NOT NULL,
    -- The token's name, and where it was shown.
    who text NOT NULL,
    address text,
    action text NOT NULL,
    subject text NOT NULL,
    -- `ok` or a problem's code; not yet there while it is under way.
    outcome text,
    -- JSON.
    before bytea,
    after bytea
);
CREATE INDEX greenroom_acts_age ON greenroom_acts (at);
CREATE INDEX greenroom_acts_who ON greenroom_acts (who, id);
CREATE INDEX greenroom_acts_subject ON greenroom_acts (subject, id);
CREATE INDEX greenroom_acts_action ON greenroom_acts (action, id);
