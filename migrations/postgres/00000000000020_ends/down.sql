-- The changes of up.sql, undone.
DO $$
DECLARE
    patch record;
    was text;
BEGIN
    FOR patch IN SELECT * FROM (VALUES
        -- A node claims of the kinds and tools that it has; the others' tasks wait for a node that has them.
        ('greenroom_claim_3', 'WHERE coalesce(q.most, p_limit[l]) > 0
',
         'WHERE coalesce(q.most, p_limit[l]) > 0 AND (q.name IS NOT NULL OR p_queue = ''{}'')
'),
        -- What waits for a person is neither doomed nor suspected any more.
        ('greenroom_commit_1', 'lane = CASE WHEN t.cancel AND f.attempt >= 0 AND f.state IN (1, 5) THEN 6 ELSE t.lane END',
         'lane = CASE WHEN f.state = 6 THEN (t.partition < 0)::int
                            WHEN t.cancel AND f.attempt >= 0 AND f.state IN (1, 5) THEN 6 ELSE t.lane END'),
        -- A message that tells of the end of many is tried as often as one that tells of the end of one.
        ('greenroom_count_in_batches_1', '(SELECT max(a) FROM unnest(p_attempts) AS a)',
         '(SELECT greatest(max(a), 5) FROM unnest(p_attempts) AS a)'),
        -- The expiry of what runs is looked at when it comes back, if it does.
        ('greenroom_promote_1', 'WHERE x.expires_at <= p_now
', 'WHERE x.expires_at <= p_now AND x.state <> 3
'),
        -- Whoever comes back waits for what it comes after, where that has not ended.
        ('greenroom_retry_2', 'RETURN true;',
         'IF p_state <> 6 THEN
        PERFORM greenroom_wait_again_1(ARRAY[p_id]);
    END IF;
    RETURN true;'),
        ('greenroom_retry_2', 'IF NOT greenroom_retry_1(',
         'PERFORM greenroom_lock_parents_1(ARRAY[p_id]);
    IF NOT greenroom_retry_1('),
        ('greenroom_retry_many_1', 'PERFORM 1 FROM greenroom_batches b',
         'PERFORM greenroom_lock_parents_1(p_ids);
    PERFORM 1 FROM greenroom_batches b'),
        ('greenroom_retry_many_1', 'IF greenroom_retry_2(', 'IF greenroom_retry_1('),
        ('greenroom_retry_many_1', 'back := back + 1;',
         'DELETE FROM greenroom_journal j WHERE j.task = p_ids[i] AND j.answer IS NULL;
            back := back + 1;'),
        ('greenroom_retry_many_1', 'RETURN back;',
         'PERFORM greenroom_wait_again_1(p_ids);
    RETURN back;')
    ) AS p (proname, asked, asks) LOOP
        was := pg_get_functiondef((
            SELECT p.oid FROM pg_proc p JOIN pg_namespace n ON n.oid = p.pronamespace
             WHERE n.nspname = current_schema() AND p.proname = patch.proname));
        IF position(patch.asks IN was) = 0 THEN
            RAISE EXCEPTION '% is not as this migration made it: %', patch.proname, patch.asks;
        END IF;
        EXECUTE replace(was, patch.asks, patch.asked);
    END LOOP;
END $$;
DROP FUNCTION greenroom_wait_again_1(uuid[]);
DROP FUNCTION greenroom_lock_parents_1(uuid[]);
