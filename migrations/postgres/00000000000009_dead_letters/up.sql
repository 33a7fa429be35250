-- Dead letters are kept longer than what ended otherwise. Each of the two is forgotten in the order of its own
-- ends, so that nobody reads through the ones to find the others; in the place of one index over both, since
-- every end writes them.
CREATE INDEX greenroom_task_archive_ended ON greenroom_task_archive (finished_at) WHERE state <> 11;
CREATE INDEX greenroom_task_archive_failed ON greenroom_task_archive (finished_at) WHERE state = 11;
DROP INDEX greenroom_task_archive_age;

-- Forgets expired keys, the tasks that ended before a moment (those that failed: before another) with all that
-- is theirs, and batches and nodes long gone; a bounded number of each.
CREATE FUNCTION greenroom_clean_2(p_now timestamptz, p_before timestamptz, p_failed timestamptz, p_limit int)
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

-- A node of the version before goes on as it did: it knows one age for all that has ended.
CREATE OR REPLACE FUNCTION greenroom_clean_1(p_now timestamptz, p_before timestamptz, p_limit int) RETURNS bigint
LANGUAGE sql AS $$
    SELECT greenroom_clean_2(p_now, p_before, p_before, p_limit)
$$;
-- What this one did is done by the other, for the same tasks.
CREATE OR REPLACE FUNCTION greenroom_forget_written_1(p_before timestamptz, p_limit int) RETURNS bigint
LANGUAGE sql AS $$
    SELECT 0::bigint
$$;

-- Brings ended tasks back, each where it still stands as it was seen; answers how many. The batches are locked
-- first, in the order of those who end their tasks.
CREATE FUNCTION greenroom_retry_many_1(p_ids uuid[], p_states smallint[], p_partitions smallint[], p_lanes smallint[])
RETURNS bigint LANGUAGE plpgsql AS $$
DECLARE
    back bigint := 0;
BEGIN
    PERFORM 1 FROM greenroom_batches b
     WHERE b.id = ANY (ARRAY(SELECT x.batch FROM greenroom_task_archive x WHERE x.id = ANY (p_ids) AND x.batch IS NOT NULL))
     ORDER BY b.id FOR NO KEY UPDATE;
    FOR i IN 1 .. cardinality(p_ids) LOOP
        IF greenroom_retry_2(p_ids[i], p_states[i], p_partitions[i], p_lanes[i]) THEN
            back := back + 1;
        END IF;
    END LOOP;
    RETURN back;
END $$;
