-- What tells a claim from every other. The attempt does not: it goes back with a claim that did not start,
-- so a return that is late (a pooler held it) could take the next claim from whoever runs it.
ALTER TABLE greenroom_tasks ADD COLUMN claim bigint NOT NULL DEFAULT 0;

-- Ready tasks by what they are for: a kind, or `tool:NAME`. Whoever claims seeks the head of each queue, and
-- reads no further than it takes. In the place of greenroom_tasks_ready, which led with the priority: two
-- such indexes would cost every submission.
CREATE INDEX greenroom_tasks_queues
    ON greenroom_tasks (lane, split_part(target, '/', 1), priority DESC, seq) INCLUDE (partition) WHERE state = 2;
DROP INDEX greenroom_tasks_ready;

-- Queues of which nothing is claimed.
CREATE TABLE greenroom_paused (
    queue text COLLATE "C" PRIMARY KEY,
    at timestamptz NOT NULL DEFAULT now()
);

-- Pauses a queue, or lets it go on; says whether that changed anything.
CREATE FUNCTION greenroom_pause_1(p_queue text, p_paused boolean) RETURNS boolean LANGUAGE plpgsql AS $$
BEGIN
    IF p_paused THEN
        INSERT INTO greenroom_paused (queue) VALUES (p_queue) ON CONFLICT (queue) DO NOTHING;
    ELSE
        DELETE FROM greenroom_paused p WHERE p.queue = p_queue;
    END IF;
    RETURN FOUND;
END $$;

-- Claims ready tasks of a lane that belong to the node's partitions or to nobody's, of each queue the best.
-- The room is shared out between the queues as the model's `share_out`: in the order given, each an equal
-- part of what is left, round by round; those that are not named come first, and may have all.
--
-- The number of a claim is drawn where the order of acceptance is: any will do, as long as none is drawn twice.
CREATE FUNCTION greenroom_claim_2(
    p_boot uuid, p_lane smallint, p_limit int, p_except text[], p_alone boolean, p_queue text[], p_most int[]
) RETURNS SETOF greenroom_tasks LANGUAGE plpgsql
SET enable_sort = off SET enable_seqscan = off SET enable_bitmapscan = off SET jit = off AS $$
DECLARE
    owned smallint[];
    ready text[] := '{}';
    names text[];
    rooms int[];
    next_names text[];
    next_rooms int[];
    name text := '';
    space int := p_limit;
    part int;
    taken int;
    best uuid[];
    picked uuid[];
BEGIN
    IF NOT greenroom_is_live_1(p_boot) THEN
        RETURN;
    END IF;
    LOOP
        SELECT split_part(t.target, '/', 1) INTO name FROM greenroom_tasks t
         WHERE t.state = 2 AND t.lane = p_lane AND split_part(t.target, '/', 1) > name
         ORDER BY split_part(t.target, '/', 1) LIMIT 1;
        EXIT WHEN NOT FOUND;
        ready := ready || name;
    END LOOP;
    IF ready = '{}' THEN
        RETURN;
    END IF;
    IF p_lane = 0 THEN
        -- The claim of a message means nothing without the commit that ends it: that one is waited for.
        -- A tool's may be all that says that an effect has begun.
        PERFORM set_config('synchronous_commit', 'off', true);
    END IF;
    SELECT array_append(array_agg(p.id), -1::smallint) INTO owned FROM greenroom_partitions p WHERE p.node = p_boot;
    SELECT array_agg(r.name ORDER BY q.o NULLS FIRST, r.name),
           array_agg(coalesce(q.most, p_limit) ORDER BY q.o NULLS FIRST, r.name)
      INTO names, rooms
      FROM unnest(ready) AS r (name)
      LEFT JOIN unnest(p_queue, p_most) WITH ORDINALITY AS q (name, most, o) ON q.name = r.name
     WHERE coalesce(q.most, p_limit) > 0
       AND NOT EXISTS (SELECT 1 FROM greenroom_paused x WHERE x.queue = r.name);
    WHILE space > 0 AND cardinality(names) > 0 LOOP
        next_names := '{}';
        next_rooms := '{}';
        picked := '{}';
        FOR i IN 1 .. cardinality(names) LOOP
            part := least(rooms[i], ceil(space::numeric / (cardinality(names) - i + 1))::int);
            EXIT WHEN part = 0;
            best := ARRAY(
                SELECT t.id FROM greenroom_tasks t
                 WHERE t.state = 2 AND t.lane = p_lane AND split_part(t.target, '/', 1) = names[i]
                   AND t.partition = ANY (owned) AND t.target <> ALL (p_except)
                 ORDER BY t.priority DESC, t.seq
                 LIMIT part
                 FOR NO KEY UPDATE SKIP LOCKED);
            taken := cardinality(best);
            picked := picked || best;
            space := space - taken;
            IF taken >= part AND rooms[i] > taken THEN
                next_names := next_names || names[i];
                next_rooms := next_rooms || (rooms[i] - taken);
            END IF;
        END LOOP;
        -- Once a round: a statement for each queue would cost more than the rows.
        RETURN QUERY
        UPDATE greenroom_tasks t
           SET state = 3, attempt = t.attempt + 1, node = p_boot, started_at = now(), alone = p_alone,
               claim = nextval('greenroom_tasks_seq_seq')
         WHERE t.id = ANY (picked)
        RETURNING t.*;
        names := next_names;
        rooms := next_rooms;
    END LOOP;
END $$;

-- Gives claims back that did not start, each by its own number. What was flagged meanwhile is doomed.
CREATE FUNCTION greenroom_give_back_2(p_boot uuid, p_tasks uuid[], p_claims bigint[]) RETURNS boolean
LANGUAGE plpgsql AS $$
BEGIN
    PERFORM set_config('synchronous_commit', 'off', true);
    UPDATE greenroom_tasks t
       SET state = 2, attempt = t.attempt - 1, node = NULL, alone = false,
           lane = CASE WHEN t.cancel THEN 6 ELSE t.lane END
      FROM unnest(p_tasks, p_claims) AS c (id, claim)
     WHERE t.id = c.id AND t.state = 3 AND t.claim = c.claim AND t.node = p_boot;
    RETURN FOUND;
END $$;
