DROP INDEX greenroom_tasks_running;
CREATE INDEX greenroom_tasks_running ON greenroom_tasks (node) WHERE state = 3;
