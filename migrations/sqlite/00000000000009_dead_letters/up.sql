-- Dead letters are kept longer than what ended otherwise: they are forgotten in the order of their own ends.
CREATE INDEX greenroom_task_archive_failed ON greenroom_task_archive (finished_at) WHERE state = 11;
