-- What tells a claim from every other. The attempt does not: it goes back with a claim that did not start,
-- so a return that is late (a pooler held it) could take the next claim from whoever runs it.
ALTER TABLE greenroom_tasks ADD COLUMN claim bigint NOT NULL DEFAULT 0;

-- Claims the best ready tasks of a lane that belong to the node's partitions or to nobody's. The number of
-- a claim is drawn where the order of acceptance is: any will do, as long as none is drawn twice.
CREATE FUNCTION greenroom_claim_2(p_boot uuid, p_lane smallint, p_limit int, p_except text[], p_alone boolean)
RETURNS SETOF greenroom_tasks LANGUAGE plpgsql SET enable_sort = off SET enable_seqscan = off SET jit = off AS $$
DECLARE
    owned smallint[];
BEGIN
    IF NOT greenroom_is_live_1(p_boot) THEN
        RETURN;
    END IF;
    IF p_lane = 0 THEN
        -- The claim of a message means nothing without the commit that ends it: that one is waited for.
        -- A tool's may be all that says that an effect has begun.
        PERFORM set_config('synchronous_commit', 'off', true);
    END IF;
    SELECT array_append(array_agg(p.id), -1::smallint) INTO owned FROM greenroom_partitions p WHERE p.node = p_boot;
    RETURN QUERY
    WITH best AS (
        SELECT t.id FROM greenroom_tasks t
         WHERE t.state = 2 AND t.lane = p_lane AND t.partition = ANY (owned) AND t.target <> ALL (p_except)
         ORDER BY t.priority DESC, t.seq
         LIMIT p_limit
         FOR NO KEY UPDATE SKIP LOCKED
    )
    UPDATE greenroom_tasks t
       SET state = 3, attempt = t.attempt + 1, node = p_boot, started_at = now(), alone = p_alone,
           claim = nextval('greenroom_tasks_seq_seq')
      FROM best
     WHERE t.id = best.id
    RETURNING t.*;
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
