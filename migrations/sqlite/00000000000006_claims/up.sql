-- What tells a claim from every other. The attempt does not: it goes back with a claim that did not start.
ALTER TABLE greenroom_tasks ADD COLUMN claim BIGINT NOT NULL DEFAULT 0;

-- What a task is for: a kind, or `tool:NAME`. Whoever claims seeks the head of each queue.
ALTER TABLE greenroom_tasks ADD COLUMN queue TEXT
    GENERATED ALWAYS AS (substr(target, 1, instr(target || '/', '/') - 1)) VIRTUAL;
DROP INDEX greenroom_tasks_ready;
-- Covers the search for tasks to claim; `state` is there because SQLite looks it up otherwise.
CREATE INDEX greenroom_tasks_queues ON greenroom_tasks (lane, queue, priority DESC, seq, target, state) WHERE state = 2;

-- Queues of which nothing is claimed.
CREATE TABLE greenroom_paused (
    queue TEXT NOT NULL PRIMARY KEY,
    at BIGINT NOT NULL
);
