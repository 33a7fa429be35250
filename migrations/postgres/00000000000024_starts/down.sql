-- The changes of up.sql, undone.
DO $$
DECLARE
    patch record;
    it regprocedure;
    was text;
    is_patched boolean;
BEGIN
    FOR patch IN SELECT * FROM (VALUES
        ('greenroom_promote_%', 'NOT greenroom_has_begun_1(t.partition, t.attempt, t.lost) AND t.lane < 3',
         't.attempt = 0 AND t.lane < 3'),
        ('greenroom_retry_1', 'lost_alone = 0, cancel = false,
               expires_at = NULL
',
         'lost_alone = 0, cancel = false
'),
        ('greenroom_give_back_2', 'attempt = t.attempt - 1,
           started_at = CASE WHEN t.attempt > 1 THEN t.started_at END, node = NULL,',
         'attempt = t.attempt - 1, node = NULL,')
    ) AS p (proname, asked, asks) LOOP
        is_patched := false;
        FOR it IN SELECT p.oid::regprocedure FROM pg_proc p JOIN pg_namespace n ON n.oid = p.pronamespace
                   WHERE n.nspname = current_schema() AND p.proname LIKE patch.proname LOOP
            was := pg_get_functiondef(it);
            IF position(patch.asked IN was) > 0 THEN
                EXECUTE replace(was, patch.asked, patch.asks);
                is_patched := true;
            END IF;
        END LOOP;
        IF NOT is_patched THEN
            RAISE EXCEPTION '% is not as an earlier migration made it: %', patch.proname, patch.asked;
        END IF;
    END LOOP;
END $$;
DO $$
DECLARE
    f regprocedure;
BEGIN
    FOR f IN SELECT p.oid::regprocedure FROM pg_proc p JOIN pg_namespace n ON n.oid = p.pronamespace
              WHERE n.nspname = current_schema() AND p.proname IN ('greenroom_claim_4', 'greenroom_has_begun_1') LOOP
        EXECUTE format('DROP FUNCTION %s', f);
    END LOOP;
END $$;
