DROP TABLE greenroom_paused;
DROP INDEX greenroom_tasks_queues;
ALTER TABLE greenroom_tasks DROP COLUMN queue;
CREATE INDEX greenroom_tasks_ready ON greenroom_tasks (lane, priority DESC, seq, target, state) WHERE state = 2;
ALTER TABLE greenroom_tasks DROP COLUMN claim;
