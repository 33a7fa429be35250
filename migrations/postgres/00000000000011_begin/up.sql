-- The commit of units that are nothing but submissions without parents. A task that its node may begin at once is
-- claimed in the same statement, unless its queue is paused or the node's lease has ended. Answers those that are
-- claimed, with their places and claims, and those that are refused, since an id is known already.
CREATE FUNCTION greenroom_submit_1(
    p_node uuid,
    n_unit int[], n_id uuid[], n_partition smallint[], n_lane smallint[], n_target text[], n_message text[],
    n_priority smallint[], n_run_at timestamptz[], n_max_attempts bigint[], n_timeout_ms bigint[],
    n_run_after_failure boolean[], n_notify text[], n_batch uuid[], n_parent uuid[], n_tags text[],
    n_expires_at timestamptz[], n_idempotency_key text[], n_input bytea[], n_begin boolean[]
) RETURNS TABLE (unit int, seq bigint, claim bigint) LANGUAGE plpgsql
SET enable_seqscan = off SET jit = off AS $$
#variable_conflict use_column
DECLARE
    known int[] := '{}';
    may_begin boolean := false;
    paused text[] := '{}';
BEGIN
    IF true = ANY (n_begin) THEN
        -- Taken alone by whoever rescues what a node was running.
        PERFORM pg_advisory_xact_lock_shared(7307498012);
        may_begin := greenroom_is_live_1(p_node);
        paused := ARRAY(SELECT p.queue FROM greenroom_paused p);
    END IF;
    IF EXISTS (SELECT 1 FROM greenroom_tasks t WHERE t.id = ANY (n_id))
       OR EXISTS (SELECT 1 FROM greenroom_task_archive a WHERE a.id = ANY (n_id)) THEN
        known := ARRAY(
            SELECT DISTINCT n.unit FROM unnest(n_unit, n_id) AS n (unit, id)
             WHERE n.id = ANY (ARRAY(SELECT t.id FROM greenroom_tasks t WHERE t.id = ANY (n_id)
                   UNION ALL SELECT a.id FROM greenroom_task_archive a WHERE a.id = ANY (n_id))));
        RETURN QUERY SELECT k.unit, NULL::bigint, NULL::bigint FROM unnest(known) AS k (unit);
    END IF;
    RETURN QUERY
    WITH new AS (
        SELECT n.*, n.begin AND may_begin AND split_part(n.target, '/', 1) <> ALL (paused) AS begins
          FROM unnest(n_unit, n_id, n_partition, n_lane, n_target, n_message, n_priority, n_run_at,
                      n_max_attempts, n_timeout_ms, n_run_after_failure, n_notify, n_batch, n_parent, n_tags,
                      n_expires_at, n_idempotency_key, n_input, n_begin) WITH ORDINALITY
               AS n (unit, id, partition, lane, target, message, priority, run_at, max_attempts, timeout_ms,
                     run_after_failure, notify, batch, parent, tags, expires_at, idempotency_key, input, begin, o)
         WHERE n.unit <> ALL (known)
    ), added AS (
        INSERT INTO greenroom_tasks AS t (
            id, partition, lane, target, message, state, priority, run_at, max_attempts, timeout_ms,
            run_after_failure, notify, batch, parent, tags, expires_at, idempotency_key, input,
            attempt, node, started_at, claim)
        SELECT n.id, n.partition, n.lane, n.target, n.message,
               CASE WHEN n.begins THEN 3 WHEN n.run_at > now() THEN 1 ELSE 2 END,
               n.priority, n.run_at, n.max_attempts, n.timeout_ms, n.run_after_failure, n.notify, n.batch,
               n.parent, n.tags, n.expires_at, n.idempotency_key, n.input,
               CASE WHEN n.begins THEN 1 ELSE 0 END, CASE WHEN n.begins THEN p_node END,
               CASE WHEN n.begins THEN now() END,
               CASE WHEN n.begins THEN nextval('greenroom_tasks_seq_seq') ELSE 0 END
          FROM new n ORDER BY n.o
        RETURNING t.id, t.seq, t.claim
    )
    SELECT n.unit, a.seq, a.claim FROM new n JOIN added a ON a.id = n.id WHERE n.begins;
END $$;
