-- The changes of up.sql, undone.
DO $$
DECLARE
    was text := pg_get_functiondef((
        SELECT p.oid FROM pg_proc p JOIN pg_namespace n ON n.oid = p.pronamespace
         WHERE n.nspname = current_schema() AND p.proname = 'greenroom_record_1'));
    asked text := '
        -- What they waited for before is over.
        UPDATE greenroom_waits x SET open = false
         WHERE x.open AND x.task IN (SELECT w.task FROM unnest(w_unit, w_task) AS w (unit, task)
                                      WHERE w.unit <> ALL (bad));';
BEGIN
    IF position(asked IN was) = 0 THEN
        RAISE EXCEPTION 'greenroom_record_1 is not as an earlier migration made it: %', asked;
    END IF;
    EXECUTE replace(was, asked, '');
END $$;
DROP FUNCTION greenroom_give_back_3;
