DO $$
DECLARE
    f regprocedure;
BEGIN
    FOR f IN SELECT p.oid::regprocedure FROM pg_proc p JOIN pg_namespace n ON n.oid = p.pronamespace
              WHERE n.nspname = current_schema()
                AND p.proname IN ('greenroom_record_1', 'greenroom_signal_1', 'greenroom_end_waits_1',
                                  'greenroom_retry_2', 'greenroom_forget_written_1', 'greenroom_note_tasks_1') LOOP
        EXECUTE format('DROP FUNCTION %s', f);
    END LOOP;
END $$;
DROP TABLE greenroom_task_logs;
DROP TABLE greenroom_task_progress;
DROP TABLE greenroom_signals;
DROP TABLE greenroom_waits;
DROP TABLE greenroom_journal;
