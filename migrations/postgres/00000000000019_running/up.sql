-- What runs, in the order of its claims: each claim adds its rows at the end of the index, where there is room. By
-- node, all of them had the same key, and a place was looked for among those that had ended.
DROP INDEX greenroom_tasks_running;
CREATE INDEX greenroom_tasks_running ON greenroom_tasks (claim) WHERE state = 3;
