DO $$
DECLARE
    f regprocedure;
BEGIN
    FOR f IN SELECT p.oid::regprocedure FROM pg_proc p JOIN pg_namespace n ON n.oid = p.pronamespace
              WHERE n.nspname = current_schema() AND p.proname IN (
                  'greenroom_commit_2', 'greenroom_delete_idle_1', 'greenroom_forget_1', 'greenroom_day',
                  'greenroom_hour') LOOP
        EXECUTE format('DROP FUNCTION %s', f);
    END LOOP;
END $$;
DROP TABLE greenroom_sessions;
DROP TABLE greenroom_messages;
DROP TABLE greenroom_conversations;
