DO $$
DECLARE
    was text := pg_get_functiondef((
        SELECT p.oid FROM pg_proc p JOIN pg_namespace n ON n.oid = p.pronamespace
         WHERE n.nspname = current_schema() AND p.proname = 'greenroom_commit_1'));
    keeps text := 'INSERT INTO greenroom_task_edges (child, parent)
            SELECT DISTINCT d.child, d.parent FROM unnest(d_unit, d_child, d_parent) AS d (unit, child, parent)
             WHERE d.unit <> ALL (bad);
            ';
BEGIN
    EXECUTE replace(was, keeps, '');
END $$;
-- Forgets expired keys, the tasks that ended before a moment (those that failed: before another) with all that
-- is theirs, and batches and nodes long gone; a bounded number of each.
CREATE OR REPLACE FUNCTION greenroom_clean_2(p_now timestamptz, p_before timestamptz, p_failed timestamptz, p_limit int)
RETURNS bigint LANGUAGE plpgsql SET enable_seqscan = off SET jit = off AS $$
DECLARE
    old uuid[];
    total bigint := 0;
    n bigint;
BEGIN
    DELETE FROM greenroom_idempotency i
     WHERE (i.scope, i.key) IN (SELECT x.scope, x.key FROM greenroom_idempotency x WHERE x.expires_at <= p_now
                                 ORDER BY x.expires_at LIMIT p_limit FOR UPDATE SKIP LOCKED);
    GET DIAGNOSTICS n = ROW_COUNT;
    total := total + n;
    old := ARRAY(SELECT x.id FROM greenroom_task_archive x WHERE x.state <> 11 AND x.finished_at < p_before
                  ORDER BY x.finished_at LIMIT p_limit FOR UPDATE SKIP LOCKED);
    old := old || ARRAY(SELECT x.id FROM greenroom_task_archive x WHERE x.state = 11 AND x.finished_at < p_failed
                         ORDER BY x.finished_at LIMIT p_limit FOR UPDATE SKIP LOCKED);
    IF old <> '{}' THEN
        DELETE FROM greenroom_journal x WHERE x.task = ANY (old);
        DELETE FROM greenroom_waits x WHERE x.task = ANY (old);
        DELETE FROM greenroom_signals x WHERE x.task = ANY (old);
        DELETE FROM greenroom_task_progress x WHERE x.task = ANY (old);
        DELETE FROM greenroom_task_logs x WHERE x.task = ANY (old);
        DELETE FROM greenroom_task_events x WHERE x.task = ANY (old);
        DELETE FROM greenroom_task_archive x WHERE x.id = ANY (old);
    END IF;
    total := total + cardinality(old);
    DELETE FROM greenroom_batches b
     WHERE b.id IN (SELECT x.id FROM greenroom_batches x WHERE x.open <= 0 AND x.created_at < p_before
                     LIMIT p_limit FOR UPDATE SKIP LOCKED);
    GET DIAGNOSTICS n = ROW_COUNT;
    total := total + n;
    DELETE FROM greenroom_nodes m
     WHERE m.lease_until < p_before AND (m.ended_at IS NULL OR m.ended_at < p_before)
       AND NOT EXISTS (SELECT 1 FROM greenroom_partitions p WHERE p.node = m.id);
    GET DIAGNOSTICS n = ROW_COUNT;
    RETURN total + n;
END $$;
DROP FUNCTION greenroom_clean_3(timestamptz, timestamptz, timestamptz, int);
DROP TABLE greenroom_task_edges;
