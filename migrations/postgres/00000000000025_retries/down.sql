-- The changes of up.sql, undone.
DO $$
DECLARE
    patch record;
    was text;
BEGIN
    FOR patch IN SELECT * FROM (VALUES
        ('greenroom_retry_1', 'expires_at = NULL, run_at = now()',
         'expires_at = NULL'),
        ('greenroom_retry_1', 'idempotency_key, created_at, run_at, input)',
         'idempotency_key, created_at, input)'),
        ('greenroom_retry_1', 'a.idempotency_key, a.created_at, now(), a.input)',
         'a.idempotency_key, a.created_at, a.input)'),
        ('greenroom_give_back_2', 'WHEN t.attempt > 1 THEN t.started_at END,
           run_at = CASE WHEN t.partition < 0 THEN coalesce(t.run_at, now()) ELSE t.run_at END, node',
         'WHEN t.attempt > 1 THEN t.started_at END, node')
    ) AS p (proname, asked, asks) LOOP
        was := pg_get_functiondef((
            SELECT p.oid FROM pg_proc p JOIN pg_namespace n ON n.oid = p.pronamespace
             WHERE n.nspname = current_schema() AND p.proname = patch.proname));
        IF position(patch.asked IN was) = 0 THEN
            RAISE EXCEPTION '% is not as an earlier migration made it: %', patch.proname, patch.asked;
        END IF;
        EXECUTE replace(was, patch.asked, patch.asks);
    END LOOP;
END $$;
