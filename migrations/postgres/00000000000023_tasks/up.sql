-- The group commit compared each parent of a new task with each new task, and each line of a family with each of its
-- tasks: twice the family took four times as long, and everybody else's commits waited for it. Both are joined by a hash
-- now (asked by their ids, for the reason that migration 10 gives), and a new task is written once, as it is to be,
-- instead of being corrected when it is there.
DO $$
DECLARE
    patch record;
    was text := pg_get_functiondef((
        SELECT p.oid FROM pg_proc p JOIN pg_namespace n ON n.oid = p.pronamespace
         WHERE n.nspname = current_schema() AND p.proname = 'greenroom_commit_1'));
BEGIN
    FOR patch IN SELECT * FROM (VALUES
        ($old$    told uuid[];
BEGIN
$old$, $new$    told uuid[];
    n_open bigint[];
    n_failed boolean[];
    n_awaited boolean[];
BEGIN
$new$),
        ($old$    IF d_parent <> '{}' THEN
        SELECT bad || coalesce(array_agg(r.unit), '{}'), reasons || coalesce(array_agg(4::smallint), '{}'),
$old$, $new$    IF d_parent <> '{}' THEN
        PERFORM set_config('enable_nestloop', 'off', true), set_config('enable_hashjoin', 'on', true);
        SELECT bad || coalesce(array_agg(r.unit), '{}'), reasons || coalesce(array_agg(4::smallint), '{}'),
$new$),
        ($old$             WHERE d.unit <> ALL (bad) AND d.parent <> ALL (n_id)
               AND NOT EXISTS (SELECT 1 FROM greenroom_tasks t WHERE t.id = d.parent)
               AND NOT EXISTS (SELECT 1 FROM greenroom_task_archive a WHERE a.id = d.parent)
             ORDER BY d.unit, d.parent
          ) AS r;
$old$, $new$             WHERE d.unit <> ALL (bad)
               AND NOT EXISTS (SELECT 1 FROM unnest(n_id) AS n (id) WHERE n.id = d.parent)
               AND NOT EXISTS (SELECT 1 FROM greenroom_tasks t WHERE t.id = d.parent AND t.id = ANY (d_parent))
               AND NOT EXISTS (SELECT 1 FROM greenroom_task_archive a
                                WHERE a.id = d.parent AND a.id = ANY (d_parent))
             ORDER BY d.unit, d.parent
          ) AS r;
        PERFORM set_config('enable_nestloop', 'on', true), set_config('enable_hashjoin', 'off', true);
$new$),
        ($old$    IF n_id <> '{}' THEN
        INSERT INTO greenroom_tasks (
            id, partition, lane, target, message, state, priority, run_at, max_attempts, timeout_ms,
            run_after_failure, notify, batch, parent, tags, expires_at, idempotency_key, input)
        SELECT n.id, n.partition, n.lane, n.target, n.message,
               CASE WHEN n.id = ANY (d_child) THEN 0 WHEN n.run_at > now() THEN 1 ELSE 2 END,
               n.priority, n.run_at, n.max_attempts, n.timeout_ms, n.run_after_failure, n.notify, n.batch,
               n.parent, n.tags, n.expires_at, n.idempotency_key, n.input
          FROM unnest(n_unit, n_id, n_partition, n_lane, n_target, n_message, n_priority, n_run_at,
                      n_max_attempts, n_timeout_ms, n_run_after_failure, n_notify, n_batch, n_parent, n_tags,
                      n_expires_at, n_idempotency_key, n_input) WITH ORDINALITY
               AS n (unit, id, partition, lane, target, message, priority, run_at, max_attempts, timeout_ms,
                     run_after_failure, notify, batch, parent, tags, expires_at, idempotency_key, input, o)
         WHERE n.unit <> ALL (bad)
         ORDER BY n.o;
        IF d_parent <> '{}' THEN
            UPDATE greenroom_tasks t SET awaited = true
$old$, $new$    IF n_id <> '{}' THEN
        IF d_parent <> '{}' THEN
            PERFORM set_config('enable_nestloop', 'off', true), set_config('enable_hashjoin', 'on', true);
            SELECT array_agg(w.open ORDER BY n.o), array_agg(w.failed ORDER BY n.o),
                   array_agg(p.parent IS NOT NULL ORDER BY n.o)
              INTO n_open, n_failed, n_awaited
              FROM unnest(n_id) WITH ORDINALITY AS n (id, o)
              LEFT JOIN (
                SELECT d.child, count(*) FILTER (WHERE here.id IS NOT NULL OR t.id IS NOT NULL) AS open,
                       bool_or(a.state <> 10) AS failed
                  FROM (SELECT DISTINCT d.child, d.parent FROM unnest(d_child, d_parent) AS d (child, parent)) AS d
                  LEFT JOIN unnest(n_id) AS here (id) ON here.id = d.parent
                  LEFT JOIN greenroom_tasks t ON t.id = d.parent AND t.id = ANY (d_parent)
                  LEFT JOIN greenroom_task_archive a ON a.id = d.parent AND a.id = ANY (d_parent)
                 GROUP BY d.child
              ) AS w ON w.child = n.id
              LEFT JOIN (SELECT DISTINCT d.parent FROM unnest(d_parent) AS d (parent)) AS p ON p.parent = n.id;
        END IF;
        INSERT INTO greenroom_tasks (
            id, partition, lane, target, message, state, priority, run_at, max_attempts, timeout_ms, waits_for,
            run_after_failure, awaited, notify, batch, parent, tags, expires_at, idempotency_key, input)
        SELECT n.id, n.partition,
               CASE WHEN n.failed AND NOT n.run_after_failure THEN 3 ELSE n.lane END, n.target, n.message,
               CASE WHEN n.open > 0 OR (n.failed AND NOT n.run_after_failure) THEN 0
                    WHEN n.run_at > now() THEN 1 ELSE 2 END,
               n.priority, n.run_at, n.max_attempts, n.timeout_ms, coalesce(n.open, 0), n.run_after_failure,
               coalesce(n.awaited, false), n.notify, n.batch, n.parent, n.tags, n.expires_at, n.idempotency_key,
               n.input
          FROM unnest(n_unit, n_id, n_partition, n_lane, n_target, n_message, n_priority, n_run_at,
                      n_max_attempts, n_timeout_ms, n_run_after_failure, n_notify, n_batch, n_parent, n_tags,
                      n_expires_at, n_idempotency_key, n_input, n_open, n_failed, n_awaited) WITH ORDINALITY
               AS n (unit, id, partition, lane, target, message, priority, run_at, max_attempts, timeout_ms,
                     run_after_failure, notify, batch, parent, tags, expires_at, idempotency_key, input, open,
                     failed, awaited, o)
         WHERE n.unit <> ALL (bad)
         ORDER BY n.o;
        IF d_parent <> '{}' THEN
            UPDATE greenroom_tasks t SET awaited = true
$new$),
        ($old$             WHERE d.unit <> ALL (bad);
            UPDATE greenroom_tasks t
               SET waits_for = w.open,
                   lane = CASE WHEN w.failed AND NOT t.run_after_failure THEN 3 ELSE t.lane END,
                   state = CASE WHEN w.open > 0 OR (w.failed AND NOT t.run_after_failure) THEN 0
                                WHEN t.run_at > now() THEN 1 ELSE 2 END
              FROM (SELECT d.child, count(p.parent) AS open, coalesce(bool_or(a.state <> 10), false) AS failed
                      FROM (SELECT DISTINCT d.child, d.parent
                              FROM unnest(d_unit, d_child, d_parent) AS d (unit, child, parent)
                             WHERE d.unit <> ALL (bad)) AS d
                      LEFT JOIN greenroom_task_parents p ON p.parent = d.parent AND p.child = d.child
                      LEFT JOIN greenroom_task_archive a ON a.id = d.parent
                     GROUP BY d.child) AS w
             WHERE t.id = w.child AND t.id = ANY (d_child);
$old$, $new$             WHERE d.unit <> ALL (bad);
            PERFORM set_config('enable_nestloop', 'on', true), set_config('enable_hashjoin', 'off', true);
$new$)
    ) AS p (asked, asks) LOOP
        IF position(patch.asked IN was) = 0 THEN
            RAISE EXCEPTION 'greenroom_commit_1 is not as an earlier migration made it: %', patch.asked;
        END IF;
        was := replace(was, patch.asked, patch.asks);
    END LOOP;
    EXECUTE was;
END $$;

-- Tells the children of tasks that have ended. Counted, since one call may end several parents of one child; locked in
-- one order, in a statement before the one that reads them. Nobody adds a child meanwhile: its parents are locked first.
-- Asked by their ids, and joined by hashes, so that the time grows with the children and not with their square.
CREATE OR REPLACE FUNCTION greenroom_free_children_1(p_parents uuid[], p_well boolean[]) RETURNS void LANGUAGE plpgsql
SET enable_seqscan = off SET enable_nestloop = off SET enable_hashjoin = on SET enable_mergejoin = off SET jit = off AS $$
DECLARE
    children uuid[] := ARRAY(SELECT DISTINCT e.child FROM greenroom_task_parents e WHERE e.parent = ANY (p_parents));
BEGIN
    PERFORM 1 FROM greenroom_tasks t WHERE t.id = ANY (children) ORDER BY t.id FOR NO KEY UPDATE;
    WITH gone AS (
        DELETE FROM greenroom_task_parents e
         USING unnest(p_parents, p_well) AS p (parent, well)
         WHERE e.parent = p.parent AND e.parent = ANY (p_parents)
        RETURNING e.child, p.well
    ), counted AS (
        SELECT child, count(*) AS n, bool_or(NOT well) AS failed FROM gone GROUP BY child
    )
    UPDATE greenroom_tasks t
       SET waits_for = CASE WHEN t.waits_for = c.n AND t.lane < 3 AND (t.run_after_failure OR NOT c.failed)
                            THEN 0 ELSE t.waits_for - c.n END,
           lane = CASE WHEN t.lane < 3 AND c.failed AND NOT t.run_after_failure THEN 3 ELSE t.lane END,
           state = CASE WHEN t.lane >= 3 OR (c.failed AND NOT t.run_after_failure) OR t.waits_for > c.n THEN t.state
                        WHEN t.run_at > now() THEN 1 ELSE 2 END
      FROM counted c
     WHERE t.id = c.child AND t.id = ANY (children) AND t.state = 0;
END $$;

-- Keeps a signal, once; those count as too many that have answered no wait yet. The answer of a wait begins with the
-- signal that it took.
CREATE OR REPLACE FUNCTION greenroom_signal_1(p_task uuid, p_name text, p_id uuid, p_body bytea, p_max int)
RETURNS smallint LANGUAGE plpgsql AS $$
DECLARE
    found_in smallint;
BEGIN
    SELECT t.state INTO found_in FROM greenroom_tasks t WHERE t.id = p_task FOR NO KEY UPDATE;
    IF NOT FOUND THEN
        SELECT a.state INTO found_in FROM greenroom_task_archive a WHERE a.id = p_task;
        RETURN found_in;
    END IF;
    IF EXISTS (SELECT 1 FROM greenroom_signals s WHERE s.task = p_task AND s.id = p_id) THEN
        RETURN found_in;
    END IF;
    IF (SELECT count(*) FROM greenroom_signals s WHERE s.task = p_task) >= p_max
       AND (SELECT count(*) FROM (
                SELECT convert_to(format('{"signal":{"id":"%s"', s.id), 'UTF8') FROM greenroom_signals s
                 WHERE s.task = p_task
                EXCEPT
                SELECT substring(j.answer FROM 1 FOR 54) FROM greenroom_journal j WHERE j.task = p_task
            ) AS untaken) >= p_max THEN
        RETURN -1;
    END IF;
    INSERT INTO greenroom_signals (task, name, id, body) VALUES (p_task, p_name, p_id, p_body);
    INSERT INTO greenroom_task_events (task, event, attempt, detail)
    SELECT t.id, 'signalled', t.attempt, p_name FROM greenroom_tasks t WHERE t.id = p_task;
    IF found_in = 4 AND EXISTS (SELECT 1 FROM greenroom_waits w
                                 WHERE w.task = p_task AND w.name = p_name AND w.open) THEN
        UPDATE greenroom_waits w SET open = false WHERE w.task = p_task AND w.open;
        UPDATE greenroom_tasks t SET state = 2, seq = nextval('greenroom_tasks_seq_seq'), run_at = now()
         WHERE t.id = p_task;
    END IF;
    RETURN found_in;
END $$;
