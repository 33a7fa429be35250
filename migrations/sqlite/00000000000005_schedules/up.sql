-- What is due again and again. Few rows: no index but the name's.
CREATE TABLE greenroom_schedules (
    name TEXT NOT NULL PRIMARY KEY,
    -- Drawn anew when it is changed, paused or resumed.
    revision BLOB NOT NULL,
    -- `program` or `operator`.
    origin TEXT NOT NULL,
    paused BOOLEAN NOT NULL,
    spec TEXT NOT NULL,
    overlap TEXT NOT NULL,
    misfire TEXT NOT NULL,
    -- The tasks that it submits.
    target TEXT NOT NULL,
    message TEXT NOT NULL,
    priority SMALLINT NOT NULL,
    max_attempts BIGINT,
    timeout_ms BIGINT,
    tags TEXT,
    -- The nominal time to come: the guard of whoever moves it on.
    next_at BIGINT,
    -- The last one that got a task, and the task.
    last_at BIGINT,
    last_task BLOB,
    created_at BIGINT NOT NULL,
    updated_at BIGINT NOT NULL,
    input BLOB NOT NULL
);
