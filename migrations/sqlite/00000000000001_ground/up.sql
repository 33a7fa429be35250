-- Ids are BLOB(16), times INTEGER microseconds since 1970, payloads and states BLOB.
-- No foreign keys, and no index on anything that every commit changes.

-- Sequences: `epoch` for acquisitions of partitions, `seq` for the order of acceptance of tasks.
CREATE TABLE greenroom_meta (
    name TEXT NOT NULL PRIMARY KEY,
    value BIGINT NOT NULL
);
INSERT INTO greenroom_meta (name, value) VALUES ('epoch', 0), ('seq', 0);

CREATE TABLE greenroom_nodes (
    id BLOB NOT NULL PRIMARY KEY,
    name TEXT NOT NULL,
    started_at BIGINT NOT NULL,
    -- When a later boot took over.
    ended_at BIGINT
);

-- 0 to 63 for agents, -1 for tools.
CREATE TABLE greenroom_partitions (
    id INTEGER NOT NULL PRIMARY KEY,
    node BLOB,
    epoch BIGINT NOT NULL
);
WITH RECURSIVE n(i) AS (SELECT -1 UNION ALL SELECT i + 1 FROM n WHERE i < 63)
INSERT INTO greenroom_partitions (id, epoch) SELECT i, 0 FROM n;

CREATE TABLE greenroom_agents (
    id BLOB NOT NULL PRIMARY KEY,
    partition SMALLINT NOT NULL,
    kind TEXT NOT NULL,
    key TEXT NOT NULL,
    status SMALLINT NOT NULL,
    reason TEXT,
    epoch BIGINT NOT NULL,
    -- 0 where only a status is stored.
    version BIGINT NOT NULL,
    schema_version BIGINT NOT NULL,
    created_at BIGINT NOT NULL,
    updated_at BIGINT NOT NULL,
    state BLOB NOT NULL
);
CREATE UNIQUE INDEX greenroom_agents_name ON greenroom_agents (kind, key);
CREATE INDEX greenroom_agents_held ON greenroom_agents (kind, key) WHERE status <> 0;

-- Earlier states, sampled when they are overwritten.
CREATE TABLE greenroom_snapshots (
    agent BLOB NOT NULL,
    version BIGINT NOT NULL,
    epoch BIGINT NOT NULL,
    at BIGINT NOT NULL,
    state BLOB NOT NULL,
    PRIMARY KEY (agent, version)
);

-- Unfinished work only.
CREATE TABLE greenroom_tasks (
    rowid INTEGER NOT NULL PRIMARY KEY,
    id BLOB NOT NULL UNIQUE,
    seq BIGINT NOT NULL,
    partition SMALLINT NOT NULL,
    -- Who may claim it: 0 for agents, 1 for tools, 2 alone (lost twice or more), 3 and up nobody: it is doomed.
    lane SMALLINT NOT NULL,
    target TEXT NOT NULL,
    message TEXT NOT NULL,
    state SMALLINT NOT NULL,
    priority SMALLINT NOT NULL,
    run_at BIGINT,
    attempt BIGINT NOT NULL,
    lost BIGINT NOT NULL,
    lost_alone BIGINT NOT NULL,
    -- Whether the claim under way is the only one of its node.
    alone BOOLEAN NOT NULL,
    max_attempts BIGINT NOT NULL,
    timeout_ms BIGINT,
    -- How many parents are still open.
    waits_for BIGINT NOT NULL,
    run_after_failure BOOLEAN NOT NULL,
    -- Whether others wait for it.
    awaited BOOLEAN NOT NULL,
    cancel BOOLEAN NOT NULL,
    notify TEXT,
    batch BLOB,
    parent BLOB,
    tags TEXT,
    expires_at BIGINT,
    idempotency_key TEXT,
    node BLOB,
    created_at BIGINT NOT NULL,
    started_at BIGINT,
    error BLOB,
    input BLOB NOT NULL
);
-- Covers the search for tasks to claim; `state` is there because SQLite looks it up otherwise.
CREATE INDEX greenroom_tasks_ready ON greenroom_tasks (lane, priority DESC, seq, target, state) WHERE state = 2;
CREATE INDEX greenroom_tasks_due ON greenroom_tasks (run_at) WHERE state = 1;
CREATE INDEX greenroom_tasks_held ON greenroom_tasks (id) WHERE state >= 3;
CREATE INDEX greenroom_tasks_expiry ON greenroom_tasks (expires_at) WHERE expires_at IS NOT NULL;
CREATE INDEX greenroom_tasks_doomed ON greenroom_tasks (lane) WHERE lane >= 3;

CREATE TABLE greenroom_task_parents (
    parent BLOB NOT NULL,
    child BLOB NOT NULL,
    PRIMARY KEY (parent, child)
);

-- What has ended, in the order of its end.
CREATE TABLE greenroom_task_archive (
    rowid INTEGER NOT NULL PRIMARY KEY,
    id BLOB NOT NULL UNIQUE,
    seq BIGINT NOT NULL,
    target TEXT NOT NULL,
    message TEXT NOT NULL,
    state SMALLINT NOT NULL,
    priority SMALLINT NOT NULL,
    run_at BIGINT,
    attempt BIGINT NOT NULL,
    lost BIGINT NOT NULL,
    max_attempts BIGINT NOT NULL,
    timeout_ms BIGINT,
    run_after_failure BOOLEAN NOT NULL,
    notify TEXT,
    batch BLOB,
    parent BLOB,
    tags TEXT,
    idempotency_key TEXT,
    node BLOB,
    created_at BIGINT NOT NULL,
    started_at BIGINT,
    finished_at BIGINT NOT NULL,
    result BLOB,
    error BLOB,
    input BLOB NOT NULL
);
CREATE INDEX greenroom_task_archive_dead ON greenroom_task_archive (id) WHERE state >= 11;

CREATE TABLE greenroom_batches (
    id BLOB NOT NULL PRIMARY KEY,
    size BIGINT NOT NULL,
    open BIGINT NOT NULL,
    succeeded BIGINT NOT NULL,
    failed BIGINT NOT NULL,
    notify TEXT,
    created_at BIGINT NOT NULL
);

CREATE TABLE greenroom_idempotency (
    scope BLOB NOT NULL,
    key TEXT NOT NULL,
    request BLOB NOT NULL,
    task BLOB,
    reply BLOB,
    expires_at BIGINT NOT NULL,
    PRIMARY KEY (scope, key)
);
CREATE INDEX greenroom_idempotency_age ON greenroom_idempotency (expires_at);

-- What the columns of a task do not tell: retries, rescues, cancellations, operators.
CREATE TABLE greenroom_task_events (
    rowid INTEGER NOT NULL PRIMARY KEY,
    task BLOB NOT NULL,
    at BIGINT NOT NULL,
    event TEXT NOT NULL,
    attempt BIGINT NOT NULL,
    node BLOB,
    detail TEXT
);
CREATE INDEX greenroom_task_events_task ON greenroom_task_events (task);

-- Tasks by state (the state's number), agents by status (100 + the status's number).
CREATE TABLE greenroom_counts (
    id INTEGER NOT NULL PRIMARY KEY,
    n BIGINT NOT NULL
);
INSERT INTO greenroom_counts (id, n) VALUES
    (0, 0), (1, 0), (2, 0), (3, 0), (4, 0), (5, 0), (6, 0), (10, 0), (11, 0), (12, 0),
    (100, 0), (101, 0), (102, 0), (103, 0);
