-- Claims ready tasks of some lanes that belong to the node's partitions or to nobody's, of each queue the best.
-- The room is shared out between the queues as the model's `share_out`: in the order given, each an equal
-- part of what is left, round by round; those that are not named come first, and may have all.
--
-- In the place of greenroom_claim_2, which took a call for each lane, waited for the disk with every claim of
-- a tool's task, and looked up twice where each row lies. A claim that a crash of the server forgets is made
-- again, which counts one attempt too few; only where it may be all that says that an effect has begun
-- (p_durable names those queues) and for tasks that run alone is it waited for.
--
-- The number of a claim is drawn where the order of acceptance is: any will do, as long as none is drawn twice.
CREATE FUNCTION greenroom_claim_3(
    p_boot uuid, p_lane smallint[], p_limit int[], p_except text[], p_alone boolean, p_queue text[], p_most int[],
    p_durable text[]
) RETURNS TABLE (
    id uuid, seq bigint, target text, message text, priority smallint, attempt bigint, lost bigint,
    max_attempts bigint, timeout_ms bigint, notify text, batch uuid, run_at timestamptz, input bytea, claim bigint
) LANGUAGE plpgsql
SET enable_sort = off SET enable_seqscan = off SET enable_bitmapscan = off SET jit = off AS $$
#variable_conflict use_column
DECLARE
    owned smallint[];
    ready text[];
    names text[];
    rooms int[];
    next_names text[];
    next_rooms int[];
    name text;
    space int;
    part int;
    taken int;
    best tid[];
    picked tid[];
    is_durable boolean := p_alone;
BEGIN
    IF NOT greenroom_is_live_1(p_boot) THEN
        RETURN;
    END IF;
    SELECT array_append(array_agg(p.id), -1::smallint) INTO owned FROM greenroom_partitions p WHERE p.node = p_boot;
    FOR l IN 1 .. cardinality(p_lane) LOOP
        ready := '{}';
        name := '';
        LOOP
            SELECT split_part(t.target, '/', 1) INTO name FROM greenroom_tasks t
             WHERE t.state = 2 AND t.lane = p_lane[l] AND split_part(t.target, '/', 1) > name
             ORDER BY split_part(t.target, '/', 1) LIMIT 1;
            EXIT WHEN NOT FOUND;
            ready := ready || name;
        END LOOP;
        CONTINUE WHEN ready = '{}';
        SELECT array_agg(r.name ORDER BY q.o NULLS FIRST, r.name),
               array_agg(coalesce(q.most, p_limit[l]) ORDER BY q.o NULLS FIRST, r.name)
          INTO names, rooms
          FROM unnest(ready) AS r (name)
          LEFT JOIN unnest(p_queue, p_most) WITH ORDINALITY AS q (name, most, o) ON q.name = r.name
         WHERE coalesce(q.most, p_limit[l]) > 0
           AND NOT EXISTS (SELECT 1 FROM greenroom_paused x WHERE x.queue = r.name);
        space := p_limit[l];
        WHILE space > 0 AND cardinality(names) > 0 LOOP
            next_names := '{}';
            next_rooms := '{}';
            picked := '{}';
            FOR i IN 1 .. cardinality(names) LOOP
                part := least(rooms[i], ceil(space::numeric / (cardinality(names) - i + 1))::int);
                EXIT WHEN part = 0;
                best := ARRAY(
                    SELECT t.ctid FROM greenroom_tasks t
                     WHERE t.state = 2 AND t.lane = p_lane[l] AND split_part(t.target, '/', 1) = names[i]
                       AND t.partition = ANY (owned) AND t.target <> ALL (p_except)
                     ORDER BY t.priority DESC, t.seq
                     LIMIT part
                     FOR NO KEY UPDATE SKIP LOCKED);
                taken := cardinality(best);
                picked := picked || best;
                space := space - taken;
                is_durable := is_durable OR (taken > 0 AND names[i] = ANY (p_durable));
                IF taken >= part AND rooms[i] > taken THEN
                    next_names := next_names || names[i];
                    next_rooms := next_rooms || (rooms[i] - taken);
                END IF;
            END LOOP;
            -- All at once: a statement for each queue would cost more than the rows. Those rows are locked, and
            -- so stay where they are.
            RETURN QUERY
            UPDATE greenroom_tasks t
               SET state = 3, attempt = t.attempt + 1, node = p_boot, started_at = now(), alone = p_alone,
                   claim = nextval('greenroom_tasks_seq_seq')
             WHERE t.ctid = ANY (picked)
            RETURNING t.id, t.seq, t.target, t.message, t.priority, t.attempt, t.lost, t.max_attempts,
                      t.timeout_ms, t.notify, t.batch, t.run_at, t.input, t.claim;
            names := next_names;
            rooms := next_rooms;
        END LOOP;
    END LOOP;
    IF NOT is_durable THEN
        PERFORM set_config('synchronous_commit', 'off', true);
    END IF;
END $$;

-- The commit of units that are nothing but the end of a task by whoever runs it: what is taken out of the table
-- is what was to end, so nothing is judged before. Answers which tasks have ended; of the others the claim was
-- lost.
CREATE FUNCTION greenroom_end_1(
    p_node uuid, f_task uuid[], f_attempt bigint[], f_to smallint[], f_result bytea[], f_error bytea[]
) RETURNS uuid[] LANGUAGE plpgsql
SET enable_seqscan = off SET enable_nestloop = off SET enable_mergejoin = off SET jit = off AS $$
DECLARE
    done uuid[];
    freed uuid[];
    freed_well boolean[];
    counted uuid[];
    counted_well boolean[];
    counted_attempts bigint[];
BEGIN
    PERFORM pg_advisory_xact_lock_shared(7307498012);
    -- Written so that no index but that of the ids offers itself, and no plan reads more of it than these ids.
    WITH ended AS (
        DELETE FROM greenroom_tasks t
         USING unnest(f_task, f_attempt, f_to, f_result, f_error) AS f (id, attempt, state, result, error)
         WHERE t.id = f.id AND t.id = ANY (f_task) AND (1 << t.state) & 8 <> 0 AND t.attempt = f.attempt
           AND t.node IS NOT DISTINCT FROM p_node
        RETURNING t.*, f.state AS final, f.result AS outcome, f.error AS why
    ), kept AS (
        INSERT INTO greenroom_task_archive (
            id, seq, target, message, state, priority, run_at, attempt, lost, max_attempts, timeout_ms,
            run_after_failure, notify, batch, parent, tags, idempotency_key, node, created_at, started_at,
            result, error, input)
        SELECT e.id, e.seq, e.target, e.message, e.final, e.priority, e.run_at, e.attempt, e.lost,
               e.max_attempts, e.timeout_ms, e.run_after_failure, e.notify, e.batch, e.parent, e.tags,
               e.idempotency_key, e.node, e.created_at, e.started_at, e.outcome,
               CASE WHEN e.final = 10 THEN NULL ELSE coalesce(e.why, e.error) END, e.input
          FROM ended e
    )
    SELECT array_agg(e.id),
           array_agg(e.id) FILTER (WHERE e.awaited), array_agg(e.final = 10) FILTER (WHERE e.awaited),
           array_agg(e.batch) FILTER (WHERE e.batch IS NOT NULL),
           array_agg(e.final = 10) FILTER (WHERE e.batch IS NOT NULL),
           array_agg(e.max_attempts) FILTER (WHERE e.batch IS NOT NULL)
      INTO done, freed, freed_well, counted, counted_well, counted_attempts
      FROM ended e;
    IF freed IS NOT NULL OR counted IS NOT NULL THEN
        PERFORM set_config('enable_nestloop', 'on', true);
    END IF;
    IF freed IS NOT NULL THEN
        PERFORM greenroom_free_children_1(freed, freed_well);
    END IF;
    IF counted IS NOT NULL THEN
        PERFORM greenroom_count_in_batches_1(counted, counted_well, counted_attempts);
    END IF;
    RETURN coalesce(done, '{}');
END $$;

-- Once the table of tasks has been vacuumed while it held none, the planner takes it for empty however many it
-- holds later, until it is vacuumed again; and then reads all of it for each commit, since it may as well begin
-- with an empty table as with the few rows that are to be changed. Told which rows those are, it cannot; and the
-- two lists, which it takes for short, are joined by a hash.
DO $$
DECLARE
    patch record;
    was text;
BEGIN
    FOR patch IN SELECT * FROM (VALUES
        ('greenroom_commit_1', 'JOIN greenroom_tasks t ON t.id = f.id
         WHERE f.event IS NOT NULL', 'JOIN greenroom_tasks t ON t.id = f.id AND t.id = ANY (f_task)
         WHERE f.event IS NOT NULL'),
        ('greenroom_commit_1', 'INSERT INTO greenroom_task_events (task, event',
         'PERFORM set_config(''enable_nestloop'', ''off'', true), set_config(''enable_hashjoin'', ''on'', true);
        INSERT INTO greenroom_task_events (task, event'),
        ('greenroom_commit_1', 'WHERE t.id = f.id AND f.state >= 10', 'WHERE t.id = f.id AND t.id = ANY (f_task) AND f.state >= 10'),
        ('greenroom_commit_1', 'WHERE t.id = f.id AND f.state < 10', 'WHERE t.id = f.id AND t.id = ANY (f_task) AND f.state < 10'),
        ('greenroom_commit_1', 'IF freed IS NOT NULL THEN',
         'PERFORM set_config(''enable_nestloop'', ''on'', true), set_config(''enable_hashjoin'', ''off'', true);
        IF freed IS NOT NULL THEN'),
        ('greenroom_commit_1', 'JOIN greenroom_tasks t ON t.id = d.parent
             WHERE', 'JOIN greenroom_tasks t ON t.id = d.parent AND t.id = ANY (d_parent)
             WHERE'),
        ('greenroom_commit_1', 'WHERE t.id = d.parent AND NOT t.awaited', 'WHERE t.id = d.parent AND t.id = ANY (d_parent) AND NOT t.awaited'),
        ('greenroom_commit_1', 'WHERE t.id = w.child;', 'WHERE t.id = w.child AND t.id = ANY (d_child);'),
        ('greenroom_free_children_1', 'WHERE e.parent = p.parent
', 'WHERE e.parent = p.parent AND e.parent = ANY (p_parents)
'),
        ('greenroom_free_children_1', 'WHERE t.id = c.child AND t.state = 0', 'WHERE t.id = c.child AND t.id = ANY (ARRAY(SELECT c.child FROM counted c)) AND t.state = 0')
    ) AS p (proname, asked, asks) LOOP
        was := pg_get_functiondef((
            SELECT p.oid FROM pg_proc p JOIN pg_namespace n ON n.oid = p.pronamespace
             WHERE n.nspname = current_schema() AND p.proname = patch.proname));
        IF position(patch.asked IN was) = 0 THEN
            RAISE EXCEPTION '% is not as the first migration made it: %', patch.proname, patch.asked;
        END IF;
        EXECUTE replace(was, patch.asked, patch.asks);
    END LOOP;
END $$;
