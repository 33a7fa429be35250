DO $$
DECLARE
    f regprocedure;
    t text;
BEGIN
    FOR t IN SELECT tablename FROM pg_tables WHERE schemaname = current_schema() AND tablename LIKE 'greenroom\_%' LOOP
        EXECUTE format('DROP TABLE %I CASCADE', t);
    END LOOP;
    FOR f IN SELECT p.oid::regprocedure FROM pg_proc p JOIN pg_namespace n ON n.oid = p.pronamespace
              WHERE n.nspname = current_schema() AND p.proname LIKE 'greenroom\_%' LOOP
        EXECUTE format('DROP FUNCTION %s CASCADE', f);
    END LOOP;
    DROP SEQUENCE greenroom_epoch;
END $$;
