-- The changes of up.sql, undone.
DO $$
DECLARE
    patch record;
    was text;
BEGIN
    FOR patch IN SELECT * FROM (VALUES
        ('greenroom_retry_1', 'PERFORM greenroom_tell_end_1(a);
    UPDATE greenroom_batches b',
         'UPDATE greenroom_batches b'),
        ('greenroom_give_back_3', 'IF p_begun THEN
        WITH broken AS (
            SELECT t.id, t.started_at, t.attempt FROM greenroom_tasks t
              JOIN unnest(p_tasks, p_claims) AS c (id, claim) ON t.id = c.id
             WHERE t.state = 3 AND t.claim = c.claim AND t.node = p_boot AND t.partition < 0
             ORDER BY t.id FOR NO KEY UPDATE OF t
        )
        INSERT INTO greenroom_task_events (task, at, event, attempt, node, detail)
        SELECT b.id, l.at, l.event, b.attempt, p_boot, l.detail
          FROM broken b CROSS JOIN LATERAL (VALUES
              (b.started_at, ''started'', NULL), (now(), ''broken_off'', ''its node went down'')
          ) AS l (at, event, detail)
         WHERE l.at IS NOT NULL;
    END IF;
    UPDATE greenroom_tasks t',
         'UPDATE greenroom_tasks t'),
        ('greenroom_take_over_1', '), began AS (
        INSERT INTO greenroom_task_events (task, at, event, attempt, node)
        SELECT d.id, d.started_at, ''started'', d.attempt, d.node FROM dead d JOIN back b ON b.id = d.id
         WHERE d.started_at IS NOT NULL
    ), told AS (
        INSERT INTO greenroom_task_events',
         '), told AS (
        INSERT INTO greenroom_task_events'),
        ('greenroom_take_over_1', 'SELECT t.id, t.node, t.attempt, t.started_at FROM greenroom_tasks t',
         'SELECT t.id, t.node FROM greenroom_tasks t'),
        ('greenroom_record_1', 'PERFORM greenroom_tell_starts_1(ARRAY(
            SELECT DISTINCT w.task FROM unnest(w_unit, w_task) AS w (unit, task) WHERE w.unit <> ALL (bad)));
        WITH waiting AS (',
         'WITH waiting AS ('),
        ('greenroom_commit_1', 'IF f_event && ARRAY[''retry'', ''outcome_unknown''] THEN
            PERFORM greenroom_tell_starts_1(ARRAY(
                SELECT f.id FROM unnest(f_unit, f_task, f_event) AS f (unit, id, event)
                 WHERE f.event IN (''retry'', ''outcome_unknown'') AND f.unit <> ALL (bad)));
        END IF;
        INSERT INTO greenroom_task_events (task, event, attempt, node, detail)
        SELECT f.id, f.event,',
         'INSERT INTO greenroom_task_events (task, event, attempt, node, detail)
        SELECT f.id, f.event,')
    ) AS p (proname, asked, asks) LOOP
        was := pg_get_functiondef((
            SELECT p.oid FROM pg_proc p JOIN pg_namespace n ON n.oid = p.pronamespace
             WHERE n.nspname = current_schema() AND p.proname = patch.proname));
        IF position(patch.asked IN was) = 0 THEN
            RAISE EXCEPTION '% is not as an earlier migration made it: %', patch.proname, patch.asked;
        END IF;
        EXECUTE replace(was, patch.asked, patch.asks);
    END LOOP;
END $$;

CREATE OR REPLACE FUNCTION greenroom_dismiss_many_1(p_ids uuid[], p_states smallint[], p_why text) RETURNS bigint
LANGUAGE plpgsql AS $$
DECLARE
    a greenroom_task_archive;
    dismissed bigint := 0;
    i int;
BEGIN
    FOR i IN 1 .. cardinality(p_ids) LOOP
        -- what is counted is counted as it goes and comes
        DELETE FROM greenroom_task_archive x WHERE x.id = p_ids[i] AND x.state = 11 AND x.state = p_states[i]
        RETURNING x.* INTO a;
        CONTINUE WHEN NOT FOUND;
        INSERT INTO greenroom_task_events (task, at, event, attempt, node, detail)
        SELECT a.id, a.finished_at, 'failed', a.attempt, a.node,
               -- a text that holds NUL cannot be taken out
               CASE WHEN strpos(convert_from(a.error, 'UTF8'), '\u0000') = 0
                    THEN convert_from(a.error, 'UTF8')::json ->> 'message' END
         WHERE NOT EXISTS (SELECT 1 FROM greenroom_task_events e
                            WHERE e.task = a.id AND e.event = 'failed' AND e.at = a.finished_at);
        INSERT INTO greenroom_task_events (task, event, attempt, detail) VALUES (a.id, 'cancelled', a.attempt, p_why);
        a.state := 12;
        a.finished_at := now();
        INSERT INTO greenroom_task_archive SELECT (a).*;
        dismissed := dismissed + 1;
    END LOOP;
    RETURN dismissed;
END $$;

DROP FUNCTION greenroom_tell_starts_1, greenroom_tell_end_1;
