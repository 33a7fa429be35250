-- The changes of up.sql, undone.
DO $$
DECLARE
    patch record;
    was text;
BEGIN
    FOR patch IN SELECT * FROM (VALUES
        ('greenroom_end_1', 'RETURNING t.id, t.seq, t.target, t.message, t.state, t.priority, t.run_at, t.attempt, t.lost, t.max_attempts, t.timeout_ms,
                  t.run_after_failure, t.awaited, t.notify, t.batch, t.parent, t.tags, t.idempotency_key, t.node,
                  t.created_at, t.started_at, t.error, CASE WHEN f.state = 10 THEN ''null'' ELSE t.input END AS input, f.state AS final',
         'RETURNING t.*, f.state AS final'),
        ('greenroom_commit_1', 'RETURNING t.id, t.seq, t.target, t.message, t.state, t.priority, t.run_at, t.attempt, t.lost, t.max_attempts, t.timeout_ms,
                  t.run_after_failure, t.awaited, t.notify, t.batch, t.parent, t.tags, t.idempotency_key, t.node,
                  t.created_at, t.started_at, t.error, CASE WHEN f.state = 10 THEN ''null'' ELSE t.input END AS input, f.state AS final',
         'RETURNING t.*, f.state AS final')
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
