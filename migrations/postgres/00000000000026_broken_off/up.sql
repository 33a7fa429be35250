-- A claim that its node's end broke off goes back apart from one that has not begun: it does not expire any more, and
-- could run as of its acceptance, which is how its function knows that it may have run before.
--
-- In the place of greenroom_give_back_2, which knew only those that have not begun.
CREATE FUNCTION greenroom_give_back_3(p_boot uuid, p_tasks uuid[], p_claims bigint[], p_begun boolean) RETURNS boolean
LANGUAGE plpgsql AS $$
BEGIN
    PERFORM set_config('synchronous_commit', 'off', true);
    UPDATE greenroom_tasks t
       SET state = 2, attempt = t.attempt - 1, started_at = CASE WHEN t.attempt > 1 THEN t.started_at END,
           node = NULL, alone = false, lane = CASE WHEN t.cancel THEN 6 ELSE t.lane END,
           run_at = CASE WHEN p_begun AND t.partition < 0 THEN coalesce(t.run_at, t.created_at) ELSE t.run_at END,
           expires_at = CASE WHEN p_begun AND t.partition < 0 THEN NULL ELSE t.expires_at END
      FROM unnest(p_tasks, p_claims) AS c (id, claim)
     WHERE t.id = c.id AND t.state = 3 AND t.claim = c.claim AND t.node = p_boot;
    RETURN FOUND;
END $$;

-- A task that waits again waits for nothing of before.
DO $$
DECLARE
    was text := pg_get_functiondef((
        SELECT p.oid FROM pg_proc p JOIN pg_namespace n ON n.oid = p.pronamespace
         WHERE n.nspname = current_schema() AND p.proname = 'greenroom_record_1'));
    asked text := 'IF w_task <> ''{}'' THEN';
BEGIN
    IF position(asked IN was) = 0 THEN
        RAISE EXCEPTION 'greenroom_record_1 is not as an earlier migration made it: %', asked;
    END IF;
    EXECUTE replace(was, asked, asked || '
        -- What they waited for before is over.
        UPDATE greenroom_waits x SET open = false
         WHERE x.open AND x.task IN (SELECT w.task FROM unnest(w_unit, w_task) AS w (unit, task)
                                      WHERE w.unit <> ALL (bad));');
END $$;
