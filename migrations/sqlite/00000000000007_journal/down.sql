DROP TABLE greenroom_task_logs;
DROP TABLE greenroom_task_progress;
DROP TABLE greenroom_signals;
DROP TABLE greenroom_waits;
DROP TABLE greenroom_journal;
