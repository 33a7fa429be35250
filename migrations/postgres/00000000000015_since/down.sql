DROP TABLE greenroom_room;
ALTER TABLE greenroom_nodes DROP COLUMN drained_at;
DROP TRIGGER greenroom_agents_held_at ON greenroom_agents;
DROP FUNCTION greenroom_note_held();
DROP INDEX greenroom_tasks_unknown;
DROP INDEX greenroom_agents_quarantined;
ALTER TABLE greenroom_agents DROP COLUMN held_at;
