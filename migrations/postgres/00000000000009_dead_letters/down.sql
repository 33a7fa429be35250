CREATE INDEX greenroom_task_archive_age ON greenroom_task_archive (finished_at);
DROP INDEX greenroom_task_archive_ended;
DROP INDEX greenroom_task_archive_failed;
DROP FUNCTION greenroom_retry_many_1(uuid[], smallint[], smallint[], smallint[]);
CREATE OR REPLACE FUNCTION greenroom_clean_1(p_now timestamptz, p_before timestamptz, p_limit int) RETURNS bigint
LANGUAGE plpgsql AS $$
DECLARE
    total bigint := 0;
    n bigint;
BEGIN
    DELETE FROM greenroom_idempotency i
     WHERE (i.scope, i.key) IN (SELECT x.scope, x.key FROM greenroom_idempotency x WHERE x.expires_at <= p_now
                                 ORDER BY x.expires_at LIMIT p_limit FOR UPDATE SKIP LOCKED);
    GET DIAGNOSTICS n = ROW_COUNT;
    total := total + n;
    WITH old AS (
        SELECT x.id FROM greenroom_task_archive x WHERE x.finished_at < p_before
         ORDER BY x.finished_at LIMIT p_limit FOR UPDATE SKIP LOCKED
    ), told AS (
        DELETE FROM greenroom_task_events e USING old WHERE e.task = old.id
    )
    DELETE FROM greenroom_task_archive a USING old WHERE a.id = old.id;
    GET DIAGNOSTICS n = ROW_COUNT;
    total := total + n;
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
CREATE OR REPLACE FUNCTION greenroom_forget_written_1(p_before timestamptz, p_limit int) RETURNS bigint
LANGUAGE plpgsql SET enable_seqscan = off SET jit = off AS $$
DECLARE
    old uuid[];
BEGIN
    old := ARRAY(SELECT x.id FROM greenroom_task_archive x WHERE x.finished_at < p_before
                  ORDER BY x.finished_at LIMIT p_limit);
    DELETE FROM greenroom_journal x WHERE x.task = ANY (old);
    DELETE FROM greenroom_waits x WHERE x.task = ANY (old);
    DELETE FROM greenroom_signals x WHERE x.task = ANY (old);
    DELETE FROM greenroom_task_progress x WHERE x.task = ANY (old);
    DELETE FROM greenroom_task_logs x WHERE x.task = ANY (old);
    RETURN cardinality(old);
END $$;
DROP FUNCTION greenroom_clean_2(timestamptz, timestamptz, timestamptz, int);
