-- Since when an agent has had its status; none where it was made with it, or before this was kept.
ALTER TABLE greenroom_agents ADD COLUMN held_at timestamptz;
-- What waits for a person, the oldest first: `status` asks for it.
CREATE INDEX greenroom_agents_quarantined ON greenroom_agents (held_at) WHERE status = 3;
CREATE INDEX greenroom_tasks_unknown ON greenroom_tasks (id) WHERE state = 6;

-- A trigger, and no new function: so that it is right also while nodes of the version before run. The commits of
-- states never set a status, and do not pay for it.
CREATE FUNCTION greenroom_note_held() RETURNS trigger LANGUAGE plpgsql AS $$
BEGIN
    NEW.held_at := now();
    RETURN NEW;
END $$;
CREATE TRIGGER greenroom_agents_held_at BEFORE UPDATE OF status ON greenroom_agents
    FOR EACH ROW WHEN (OLD.status <> NEW.status) EXECUTE FUNCTION greenroom_note_held();

-- Since when a node begins no tasks because an operator said so: told to those who ask another node.
ALTER TABLE greenroom_nodes ADD COLUMN drained_at timestamptz;

-- What is written to learn whether a disk that was full has room again: one row of no meaning, not compressed.
CREATE TABLE greenroom_room (
    id integer NOT NULL PRIMARY KEY,
    n bigint NOT NULL,
    bytes bytea NOT NULL
);
ALTER TABLE greenroom_room ALTER COLUMN bytes SET STORAGE EXTERNAL;
