-- Since when an agent has had its status; none where it was made with it, or before this was kept.
ALTER TABLE greenroom_agents ADD COLUMN held_at BIGINT;
-- What waits for a person, the oldest first: `status` asks for it.
CREATE INDEX greenroom_agents_quarantined ON greenroom_agents (held_at) WHERE status = 3;
CREATE INDEX greenroom_tasks_unknown ON greenroom_tasks (id) WHERE state = 6;

-- What is written to learn whether a disk that was full has room again: one row of no meaning.
CREATE TABLE greenroom_room (
    id INTEGER NOT NULL PRIMARY KEY,
    n BIGINT NOT NULL,
    bytes BLOB NOT NULL
);
