-- The kinds and tools that a node has; none of one that does not say.
ALTER TABLE greenroom_nodes ADD COLUMN queues text[];

CREATE FUNCTION greenroom_announce_1(p_boot uuid, p_queues text[]) RETURNS boolean LANGUAGE sql AS $$
    UPDATE greenroom_nodes n SET queues = p_queues WHERE n.id = p_boot RETURNING true
$$;

-- The kinds and tools that some node with a lease has; null where one of those does not say.
CREATE FUNCTION greenroom_announced_1() RETURNS text[] LANGUAGE sql STABLE AS $$
    SELECT CASE WHEN bool_or(n.queues IS NULL) THEN NULL
                ELSE (SELECT coalesce(array_agg(DISTINCT q.name), '{}')
                        FROM greenroom_nodes m CROSS JOIN unnest(m.queues) AS q (name)
                       WHERE greenroom_is_live_1(m.id)) END
      FROM greenroom_nodes n WHERE greenroom_is_live_1(n.id)
$$;

-- The kinds and tools of which tasks are ready, each with since when the next of them is: a seek in the index for each.
CREATE FUNCTION greenroom_ready_queues_1() RETURNS TABLE (name text, since timestamptz) LANGUAGE plpgsql
SET enable_sort = off SET enable_seqscan = off SET enable_bitmapscan = off SET jit = off AS $$
BEGIN
    FOR l IN 0 .. 1 LOOP
        name := '';
        LOOP
            SELECT split_part(t.target, '/', 1), greatest(t.created_at, t.run_at) INTO name, since
              FROM greenroom_tasks t
             WHERE t.state = 2 AND t.lane = l AND split_part(t.target, '/', 1) > name
             ORDER BY split_part(t.target, '/', 1) LIMIT 1;
            EXIT WHEN NOT FOUND;
            RETURN NEXT;
        END LOOP;
    END LOOP;
END $$;
