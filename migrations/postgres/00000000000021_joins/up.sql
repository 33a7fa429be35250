-- Keeps the signal that a batch has ended for the function that submitted it, also where that has ended, since it may
-- be brought back; makes it ready where it waits for that.
CREATE FUNCTION greenroom_keep_joined_1(p_task uuid, p_batch uuid, p_body bytea) RETURNS void LANGUAGE plpgsql AS $$
DECLARE
    found_in smallint;
    named text := 'joined ' || p_batch;
BEGIN
    SELECT t.state INTO found_in FROM greenroom_tasks t WHERE t.id = p_task FOR NO KEY UPDATE;
    IF NOT FOUND AND NOT EXISTS (SELECT 1 FROM greenroom_task_archive a WHERE a.id = p_task) THEN
        RETURN;
    END IF;
    INSERT INTO greenroom_signals (task, name, id, body) VALUES (p_task, named, p_batch, p_body)
    ON CONFLICT DO NOTHING;
    IF found_in = 4 AND EXISTS (SELECT 1 FROM greenroom_waits w
                                 WHERE w.task = p_task AND w.name = named AND w.open) THEN
        UPDATE greenroom_waits w SET open = false WHERE w.task = p_task AND w.open;
        UPDATE greenroom_tasks t SET state = 2, seq = nextval('greenroom_tasks_seq_seq'), run_at = now()
         WHERE t.id = p_task;
    END IF;
END $$;

-- Tells of a batch's end: an agent by a message, a function by a signal.
CREATE OR REPLACE FUNCTION greenroom_tell_batches_1(p_batches uuid[], p_attempts bigint) RETURNS void LANGUAGE plpgsql AS $$
BEGIN
    INSERT INTO greenroom_tasks (id, partition, lane, target, message, state, priority, max_attempts, input)
    SELECT greenroom_uuid7(), b.partition, 0, b.notify::json ->> 'target', b.notify::json ->> 'message', 2, 0,
           p_attempts,
           convert_to(format('{"batch":"%s","succeeded":%s,"failed":%s}', b.id, b.succeeded, b.failed), 'UTF8')
      FROM greenroom_batches b
     WHERE b.id = ANY (p_batches) AND b.notify::json ->> 'target' IS NOT NULL
     ORDER BY b.id;
    PERFORM greenroom_keep_joined_1(j.task, j.id, j.body)
       FROM (SELECT (b.notify::json ->> 'task')::uuid AS task, b.id,
                    convert_to(format('{"batch":"%s","succeeded":%s,"failed":%s}', b.id, b.succeeded, b.failed),
                               'UTF8') AS body
               FROM greenroom_batches b
              WHERE b.id = ANY (p_batches) AND b.notify::json ->> 'task' IS NOT NULL
              ORDER BY 1, 2) AS j;
END $$;
