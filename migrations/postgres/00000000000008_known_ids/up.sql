-- The group commit asked for each new task whether its id is known, by two sub-queries joined with OR. Those
-- are answered from a hash of the whole table as soon as its statistics are older than it is large: what one
-- submission costs grew with the queue. Asked by their ids alone, both tables answer from their keys.
DO $$
DECLARE
    was text := pg_get_functiondef((
        SELECT p.oid FROM pg_proc p JOIN pg_namespace n ON n.oid = p.pronamespace
         WHERE n.nspname = current_schema() AND p.proname = 'greenroom_commit_1'));
    asked text := 'WHERE EXISTS (SELECT 1 FROM greenroom_tasks t WHERE t.id = n.id)
                OR EXISTS (SELECT 1 FROM greenroom_task_archive a WHERE a.id = n.id)';
    asks text := 'WHERE n.id = ANY (ARRAY(SELECT t.id FROM greenroom_tasks t WHERE t.id = ANY (n_id)
                   UNION ALL SELECT a.id FROM greenroom_task_archive a WHERE a.id = ANY (n_id)))';
BEGIN
    IF position(asked IN was) = 0 THEN
        RAISE EXCEPTION 'greenroom_commit_1 is not as the first migration made it';
    END IF;
    EXECUTE replace(was, asked, asks);
END $$;
