-- What task functions have asked for and been answered, what they wait for, and what they say of themselves.

CREATE TABLE greenroom_journal (
    task BLOB NOT NULL,
    -- Of target and input; and the how manieth equal call it was.
    hash BLOB NOT NULL,
    occurrence BIGINT NOT NULL,
    target TEXT NOT NULL,
    -- The how manieth call to this target it was.
    ordinal BIGINT NOT NULL,
    -- JSON; none where it was begun and must not be made twice.
    answer BLOB,
    at BIGINT NOT NULL,
    PRIMARY KEY (task, hash, occurrence)
);

CREATE TABLE greenroom_waits (
    task BLOB NOT NULL,
    name TEXT NOT NULL,
    occurrence BIGINT NOT NULL,
    until BIGINT,
    -- It has not ended.
    open BOOLEAN NOT NULL,
    PRIMARY KEY (task, name, occurrence)
);
CREATE INDEX greenroom_waits_until ON greenroom_waits (until) WHERE open AND until IS NOT NULL;

CREATE TABLE greenroom_signals (
    rowid INTEGER PRIMARY KEY,
    task BLOB NOT NULL,
    name TEXT NOT NULL,
    id BLOB NOT NULL,
    body BLOB NOT NULL,
    at BIGINT NOT NULL,
    UNIQUE (task, id)
);

-- How far a task says it is: the last word counts.
CREATE TABLE greenroom_task_progress (
    task BLOB PRIMARY KEY NOT NULL,
    at BIGINT NOT NULL,
    progress BLOB NOT NULL
);

CREATE TABLE greenroom_task_logs (
    rowid INTEGER PRIMARY KEY,
    task BLOB NOT NULL,
    at BIGINT NOT NULL,
    level SMALLINT NOT NULL,
    text TEXT NOT NULL
);
CREATE INDEX greenroom_task_logs_task ON greenroom_task_logs (task);
