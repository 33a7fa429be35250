DO $$
DECLARE
    f regprocedure;
BEGIN
    FOR f IN SELECT p.oid::regprocedure FROM pg_proc p JOIN pg_namespace n ON n.oid = p.pronamespace
              WHERE n.nspname = current_schema() AND p.proname = 'greenroom_submit_1' LOOP
        EXECUTE format('DROP FUNCTION %s', f);
    END LOOP;
END $$;
