-- The changes of up.sql, undone.
DO $$
DECLARE
    patch record;
    was text;
BEGIN
    FOR patch IN SELECT * FROM (VALUES
        ('greenroom_fold_counts_1', 'BEGIN
    IF EXISTS (SELECT 1 FROM greenroom_recounts r WHERE r.due_at <= now()) THEN
        DELETE FROM greenroom_recounts r
         WHERE r.ctid = ANY (ARRAY(SELECT x.ctid FROM greenroom_recounts x FOR UPDATE SKIP LOCKED));
        IF FOUND THEN
            PERFORM greenroom_recount_1();
        END IF;
    END IF;
',
         'BEGIN
'),
        ('greenroom_dismiss_many_1', 'INSERT INTO greenroom_task_archive SELECT (a).*;
        PERFORM greenroom_count_ends_1(''{}'', ARRAY[a.state]);
',
         'INSERT INTO greenroom_task_archive SELECT (a).*;
'),
        ('greenroom_dismiss_many_1', '-- that it goes is counted by the table',
         '-- what is counted is counted as it goes and comes'),
        ('greenroom_commit_1', 'INTO left_states, final_states, freed, freed_well, counted, counted_well, counted_attempts
          FROM ended e;
        IF left_states IS NOT NULL THEN
            PERFORM greenroom_count_ends_1(left_states, final_states);
        END IF;
',
         'INTO freed, freed_well, counted, counted_well, counted_attempts
          FROM ended e;
'),
        ('greenroom_commit_1', 'SELECT array_agg(e.state), array_agg(e.final), array_agg(e.id) FILTER (WHERE e.awaited)',
         'SELECT array_agg(e.id) FILTER (WHERE e.awaited)'),
        ('greenroom_commit_1', 'DECLARE
    left_states smallint[];
    final_states smallint[];
',
         'DECLARE
'),
        ('greenroom_end_1', 'INTO left_states, final_states, done, freed, freed_well, counted, counted_well, counted_attempts
      FROM ended e;
    IF done IS NOT NULL THEN
        PERFORM greenroom_count_ends_1(left_states, final_states);
    END IF;
',
         'INTO done, freed, freed_well, counted, counted_well, counted_attempts
      FROM ended e;
'),
        ('greenroom_end_1', 'SELECT array_agg(e.state), array_agg(e.final), array_agg(e.id),
',
         'SELECT array_agg(e.id),
'),
        ('greenroom_end_1', 'DECLARE
    left_states smallint[];
    final_states smallint[];
',
         'DECLARE
'),
        ('greenroom_claim_4', 't.claim, t.expires_at;
            GET DIAGNOSTICS taken = ROW_COUNT;
            IF taken > 0 THEN
                INSERT INTO greenroom_count_changes (id, n) VALUES (2, -taken), (3, taken);
            END IF;
',
         't.claim, t.expires_at;
')
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

DROP TRIGGER greenroom_tasks_moved ON greenroom_tasks;
DROP FUNCTION greenroom_count_moved, greenroom_count_ends_1, greenroom_recount_1;
DROP TABLE greenroom_recounts;
CREATE FUNCTION greenroom_count_updated() RETURNS trigger LANGUAGE plpgsql AS $$
BEGIN
    INSERT INTO greenroom_count_changes (id, n)
    SELECT state, sum(n) FROM (
        SELECT state, count(*) AS n FROM added GROUP BY state
        UNION ALL
        SELECT state, -count(*) FROM taken GROUP BY state
    ) AS moved GROUP BY state HAVING sum(n) <> 0;
    RETURN NULL;
END $$;
CREATE TRIGGER greenroom_tasks_deleted AFTER DELETE ON greenroom_tasks
    REFERENCING OLD TABLE AS taken FOR EACH STATEMENT EXECUTE FUNCTION greenroom_count_deleted();
CREATE TRIGGER greenroom_tasks_updated AFTER UPDATE ON greenroom_tasks
    REFERENCING OLD TABLE AS taken NEW TABLE AS added FOR EACH STATEMENT EXECUTE FUNCTION greenroom_count_updated();
CREATE TRIGGER greenroom_task_archive_inserted AFTER INSERT ON greenroom_task_archive
    REFERENCING NEW TABLE AS added FOR EACH STATEMENT EXECUTE FUNCTION greenroom_count_inserted();
