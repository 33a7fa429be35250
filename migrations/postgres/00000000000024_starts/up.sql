-- Whether a task has begun, so that it does not expire: the model's `has_begun`. A claim that was lost with its node
-- may or may not have; of an agent's task nothing has happened then.
CREATE FUNCTION greenroom_has_begun_1(p_partition smallint, p_attempt bigint, p_lost bigint) RETURNS boolean
LANGUAGE sql IMMUTABLE AS $$
    SELECT p_attempt > CASE WHEN p_partition < 0 THEN 0 ELSE p_lost END
$$;

-- Claims ready tasks of some lanes that belong to the node's partitions or to nobody's, of each queue the best.
-- The room is shared out between the queues as the model's `share_out`: in the order given, each an equal
-- part of what is left, round by round.
--
-- Of agents' tasks at most p_each are taken for one agent. Those that are passed over are walked through, which takes
-- a visit to each; so of a kind p_look at most are, beside what is taken. The walk begins with as many as there is
-- room for, and goes four times as far each time.
--
-- In the place of greenroom_claim_3, which took all the room for the first agent that had so many, claimed what had
-- expired, and told nobody when a task does.
CREATE FUNCTION greenroom_claim_4(
    p_boot uuid, p_lane smallint[], p_limit int[], p_except text[], p_alone boolean, p_queue text[], p_most int[],
    p_durable text[], p_each int, p_look int
) RETURNS TABLE (
    id uuid, seq bigint, target text, message text, priority smallint, attempt bigint, lost bigint,
    max_attempts bigint, timeout_ms bigint, notify text, batch uuid, run_at timestamptz, input bytea, claim bigint,
    expires_at timestamptz
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
    skipped text[] := p_except;
    capped text[];
    seek int;
    seen int;
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
         WHERE coalesce(q.most, p_limit[l]) > 0 AND (q.name IS NOT NULL OR p_queue = '{}')
           AND NOT EXISTS (SELECT 1 FROM greenroom_paused x WHERE x.queue = r.name);
        space := p_limit[l];
        WHILE space > 0 AND cardinality(names) > 0 LOOP
            next_names := '{}';
            next_rooms := '{}';
            picked := '{}';
            FOR i IN 1 .. cardinality(names) LOOP
                part := least(rooms[i], ceil(space::numeric / (cardinality(names) - i + 1))::int);
                EXIT WHEN part = 0;
                IF p_lane[l] <> 0 OR (part <= p_each AND skipped = '{}') THEN
                    best := ARRAY(
                        SELECT t.ctid FROM greenroom_tasks t
                         WHERE t.state = 2 AND t.lane = p_lane[l] AND split_part(t.target, '/', 1) = names[i]
                           AND t.partition = ANY (owned) AND t.target <> ALL (skipped)
                           AND (t.expires_at IS NULL OR t.expires_at > now()
                                OR greenroom_has_begun_1(t.partition, t.attempt, t.lost))
                         ORDER BY t.priority DESC, t.seq
                         LIMIT part
                         FOR NO KEY UPDATE SKIP LOCKED);
                ELSE
                    seek := part;
                    LOOP
                        SELECT array_agg(c.place ORDER BY c.o) FILTER (WHERE c.nth <= p_each AND c.target <> ALL (skipped)),
                               array_agg(DISTINCT c.target) FILTER (WHERE c.nth = p_each), count(*)
                          INTO best, capped, seen
                          FROM (SELECT r.place, r.o, r.target, row_number() OVER (PARTITION BY r.target ORDER BY r.o) AS nth
                                  FROM (SELECT t.ctid AS place, t.target,
                                               row_number() OVER (ORDER BY t.priority DESC, t.seq) AS o
                                          FROM greenroom_tasks t
                                         WHERE t.state = 2 AND t.lane = p_lane[l] AND split_part(t.target, '/', 1) = names[i]
                                           AND t.partition = ANY (owned)
                                           AND (t.expires_at IS NULL OR t.expires_at > now()
                                                OR greenroom_has_begun_1(t.partition, t.attempt, t.lost))
                                         ORDER BY t.priority DESC, t.seq
                                         LIMIT seek) AS r) AS c;
                        EXIT WHEN cardinality(best) >= part OR seen < seek OR seek::bigint >= part::bigint + p_look;
                        seek := least(seek::bigint * 4, part::bigint + p_look);
                    END LOOP;
                    skipped := skipped || coalesce(capped, '{}');
                    best := ARRAY(
                        SELECT t.ctid FROM greenroom_tasks t
                         WHERE t.ctid = ANY (best[1:part]) AND t.state = 2 AND t.lane = p_lane[l]
                         FOR NO KEY UPDATE SKIP LOCKED);
                END IF;
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
                      t.timeout_ms, t.notify, t.batch, t.run_at, t.input, t.claim, t.expires_at;
            names := next_names;
            rooms := next_rooms;
        END LOOP;
    END LOOP;
    IF NOT is_durable THEN
        PERFORM set_config('synchronous_commit', 'off', true);
    END IF;
END $$;

-- Small changes to functions that stand, each where the text says so.
DO $$
DECLARE
    patch record;
    it regprocedure;
    was text;
    is_patched boolean;
BEGIN
    FOR patch IN SELECT * FROM (VALUES
        -- What expires is what has not begun, however often its claim was lost: in whichever versions say so.
        ('greenroom_promote_%', 't.attempt = 0 AND t.lane < 3',
         'NOT greenroom_has_begun_1(t.partition, t.attempt, t.lost) AND t.lane < 3'),
        -- What a person has tried again does not expire any more.
        ('greenroom_retry_1', 'lost_alone = 0, cancel = false
',
         'lost_alone = 0, cancel = false,
               expires_at = NULL
'),
        -- A claim that goes back has started nothing.
        ('greenroom_give_back_2', 'attempt = t.attempt - 1, node = NULL,',
         'attempt = t.attempt - 1,
           started_at = CASE WHEN t.attempt > 1 THEN t.started_at END, node = NULL,')
    ) AS p (proname, asked, asks) LOOP
        is_patched := false;
        FOR it IN SELECT p.oid::regprocedure FROM pg_proc p JOIN pg_namespace n ON n.oid = p.pronamespace
                   WHERE n.nspname = current_schema() AND p.proname LIKE patch.proname LOOP
            was := pg_get_functiondef(it);
            IF position(patch.asked IN was) > 0 THEN
                EXECUTE replace(was, patch.asked, patch.asks);
                is_patched := true;
            END IF;
        END LOOP;
        IF NOT is_patched THEN
            RAISE EXCEPTION '% is not as an earlier migration made it: %', patch.proname, patch.asked;
        END IF;
    END LOOP;
END $$;
