-- Who came after whom, also when both have ended: it goes with the child. (greenroom_task_parents holds what is
-- still waited for.) A task that comes after nobody has no row here.
CREATE TABLE greenroom_task_edges (
    child uuid NOT NULL,
    parent uuid NOT NULL,
    PRIMARY KEY (child, parent)
);
CREATE INDEX greenroom_task_edges_parent ON greenroom_task_edges (parent);
INSERT INTO greenroom_task_edges (child, parent) SELECT child, parent FROM greenroom_task_parents;

-- The group commit writes them down beside what is waited for.
DO $$
DECLARE
    was text := pg_get_functiondef((
        SELECT p.oid FROM pg_proc p JOIN pg_namespace n ON n.oid = p.pronamespace
         WHERE n.nspname = current_schema() AND p.proname = 'greenroom_commit_1'));
    waits text := 'INSERT INTO greenroom_task_parents (parent, child)';
    keeps text := 'INSERT INTO greenroom_task_edges (child, parent)
            SELECT DISTINCT d.child, d.parent FROM unnest(d_unit, d_child, d_parent) AS d (unit, child, parent)
             WHERE d.unit <> ALL (bad);
            ';
BEGIN
    IF position(waits IN was) = 0 THEN
        RAISE EXCEPTION 'greenroom_commit_1 is not as the earlier migrations made it';
    END IF;
    EXECUTE replace(was, waits, keeps || waits);
END $$;

-- Forgets expired keys, the tasks that ended before a moment (those that failed: before another) with all that
-- is theirs, and batches and nodes long gone; a bounded number of each.
CREATE FUNCTION greenroom_clean_3(p_now timestamptz, p_before timestamptz, p_failed timestamptz, p_limit int)
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
        DELETE FROM greenroom_task_edges x WHERE x.child = ANY (old);
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

-- A node of the version before forgets them as well.
CREATE OR REPLACE FUNCTION greenroom_clean_2(p_now timestamptz, p_before timestamptz, p_failed timestamptz, p_limit int)
RETURNS bigint LANGUAGE sql AS $$
    SELECT greenroom_clean_3(p_now, p_before, p_failed, p_limit)
$$;
