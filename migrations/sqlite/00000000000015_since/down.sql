DROP TABLE greenroom_room;
DROP INDEX greenroom_tasks_unknown;
DROP INDEX greenroom_agents_quarantined;
ALTER TABLE greenroom_agents DROP COLUMN held_at;
