DO $$
DECLARE
    f regprocedure;
BEGIN
    FOR f IN SELECT p.oid::regprocedure FROM pg_proc p JOIN pg_namespace n ON n.oid = p.pronamespace
              WHERE n.nspname = current_schema()
                AND p.proname IN ('greenroom_claim_2', 'greenroom_give_back_2', 'greenroom_pause_1') LOOP
        EXECUTE format('DROP FUNCTION %s', f);
    END LOOP;
END $$;
DROP TABLE greenroom_paused;
CREATE INDEX greenroom_tasks_ready ON greenroom_tasks (lane, priority DESC, seq) INCLUDE (partition) WHERE state = 2;
DROP INDEX greenroom_tasks_queues;
ALTER TABLE greenroom_tasks DROP COLUMN claim;
