-- Parks what waits for a target, or lets it wait again, at new places in its old order; says how many. What is not
-- due yet waits for its time again: a pause in between brings nothing forward.
CREATE OR REPLACE FUNCTION greenroom_park_1(p_target text, p_park boolean) RETURNS bigint LANGUAGE plpgsql AS $$
DECLARE
    n bigint;
BEGIN
    IF p_park THEN
        UPDATE greenroom_tasks t SET state = 5 WHERE t.target = p_target AND t.state IN (1, 2) AND t.lane < 3;
    ELSE
        WITH parked AS (
            SELECT t.id FROM greenroom_tasks t WHERE t.target = p_target AND t.state = 5
             ORDER BY t.seq FOR NO KEY UPDATE
        ), placed AS (
            SELECT parked.id, nextval('greenroom_tasks_seq_seq') AS seq FROM parked
        )
        UPDATE greenroom_tasks t SET state = CASE WHEN t.run_at > now() THEN 1 ELSE 2 END, seq = placed.seq
          FROM placed WHERE t.id = placed.id;
    END IF;
    GET DIAGNOSTICS n = ROW_COUNT;
    RETURN n;
END $$;
