-- Keeps what tasks come after from ending: before their batches are locked, as whoever ends a task does.
CREATE FUNCTION greenroom_lock_parents_1(p_ids uuid[]) RETURNS void LANGUAGE plpgsql AS $$
BEGIN
    PERFORM 1 FROM greenroom_tasks t
     WHERE t.id IN (SELECT e.parent FROM greenroom_task_edges e WHERE e.child = ANY (p_ids))
     ORDER BY t.id FOR NO KEY UPDATE;
END $$;

-- Has tasks that came back wait for what they come after, where that has not ended.
CREATE FUNCTION greenroom_wait_again_1(p_ids uuid[]) RETURNS void LANGUAGE plpgsql AS $$
BEGIN
    WITH open AS (
        SELECT e.child, e.parent
          FROM greenroom_task_edges e
          JOIN greenroom_tasks c ON c.id = e.child AND c.state = 2
          JOIN greenroom_tasks p ON p.id = e.parent
         WHERE e.child = ANY (p_ids)
    ), told AS (
        INSERT INTO greenroom_task_parents (parent, child) SELECT o.parent, o.child FROM open o
            ON CONFLICT DO NOTHING -- it may have been cancelled while it waited
    ), awaited AS (
        UPDATE greenroom_tasks t SET awaited = true
         WHERE t.id IN (SELECT o.parent FROM open o) AND NOT t.awaited
           AND t.id NOT IN (SELECT o.child FROM open o)
    )
    UPDATE greenroom_tasks t
       SET state = 0, waits_for = w.n,
           awaited = t.awaited OR EXISTS (SELECT 1 FROM open o WHERE o.parent = t.id)
      FROM (SELECT o.child, count(*) AS n FROM open o GROUP BY o.child) AS w
     WHERE t.id = w.child;
END $$;

-- Small changes to functions that stand, each where the text says so.
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
        IF position(patch.asked IN was) = 0 THEN
            RAISE EXCEPTION '% is not as an earlier migration made it: %', patch.proname, patch.asked;
        END IF;
        EXECUTE replace(was, patch.asked, patch.asks);
    END LOOP;
END $$;
