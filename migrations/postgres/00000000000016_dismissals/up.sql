-- Lets dead letters rest, each where it still stands as it was seen: they are cancelled from now on, which keeps
-- them for as long as what was cancelled today. Their history keeps both ends. Answers how many.
CREATE FUNCTION greenroom_dismiss_many_1(p_ids uuid[], p_states smallint[], p_why text) RETURNS bigint
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
