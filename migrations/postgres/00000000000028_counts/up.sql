-- Claims and ends count what they move. The triggers that did it for them were given each row twice at a claim and twice
-- at an end, whole, with its input: a tenth of what the server does for a task. What else changes a task's state is
-- counted row by row. What runs is counted by who claims it (the claims of before are called by nobody), what leaves the
-- table or comes to the archive by who ends it: there are no others.
DROP TRIGGER greenroom_tasks_updated ON greenroom_tasks;
DROP TRIGGER greenroom_tasks_deleted ON greenroom_tasks;
DROP TRIGGER greenroom_task_archive_inserted ON greenroom_task_archive;
DROP FUNCTION greenroom_count_updated;

CREATE FUNCTION greenroom_count_moved() RETURNS trigger LANGUAGE plpgsql AS $$
BEGIN
    INSERT INTO greenroom_count_changes (id, n) VALUES (OLD.state, -1), (NEW.state, 1);
    RETURN NULL;
END $$;
CREATE TRIGGER greenroom_tasks_moved AFTER UPDATE ON greenroom_tasks
    FOR EACH ROW WHEN (OLD.state <> NEW.state AND NEW.state <> 3) EXECUTE FUNCTION greenroom_count_moved();

-- Counts tasks that have gone from some states to others, in any order; those that were nowhere have only come.
CREATE FUNCTION greenroom_count_ends_1(p_from smallint[], p_to smallint[]) RETURNS void LANGUAGE plpgsql AS $$
BEGIN
    INSERT INTO greenroom_count_changes (id, n)
    SELECT s.state, sum(s.n)
      FROM (SELECT f.state, -1 AS n FROM unnest(p_from) AS f (state)
            UNION ALL
            SELECT t.state, 1 FROM unnest(p_to) AS t (state)) AS s
     GROUP BY s.state;
END $$;

-- A call that was under way when this came counts nothing: soon after, it is counted again, once.
CREATE TABLE greenroom_recounts (
    due_at timestamptz PRIMARY KEY
);
INSERT INTO greenroom_recounts (due_at) VALUES (now() + interval '2 minutes');

-- Makes good what nobody has counted. Whoever moves a task writes down its count in the same transaction: what one
-- statement sees of both agrees, but for that. A table that it may take too long to count is left as it is: a statement
-- has a minute.
CREATE FUNCTION greenroom_recount_1() RETURNS void LANGUAGE plpgsql SET jit = off AS $$
DECLARE
    few_open boolean := (SELECT c.reltuples < 1e6 FROM pg_class c WHERE c.oid = 'greenroom_tasks'::regclass);
    few_ended boolean := (SELECT c.reltuples < 1e6 FROM pg_class c WHERE c.oid = 'greenroom_task_archive'::regclass);
BEGIN
    INSERT INTO greenroom_count_changes (id, n)
    SELECT kept.id, coalesce(found.n, 0) - kept.n
      FROM (SELECT c.id, sum(c.n) AS n
              FROM (SELECT id, n FROM greenroom_counts UNION ALL SELECT id, n FROM greenroom_count_changes) AS c
             GROUP BY c.id) AS kept
      LEFT JOIN (SELECT t.state AS id, count(*) AS n FROM greenroom_tasks t WHERE few_open GROUP BY t.state
                 UNION ALL
                 SELECT a.state, count(*) FROM greenroom_task_archive a WHERE few_ended GROUP BY a.state) AS found
        ON found.id = kept.id
     WHERE CASE WHEN kept.id < 10 THEN few_open ELSE kept.id < 100 AND few_ended END
       AND coalesce(found.n, 0) <> kept.n;
END $$;

-- Small changes to functions that stand, each where the text says so.
DO $$
DECLARE
    patch record;
    was text;
BEGIN
    FOR patch IN SELECT * FROM (VALUES
        ('greenroom_claim_4', 't.claim, t.expires_at;
', 't.claim, t.expires_at;
            GET DIAGNOSTICS taken = ROW_COUNT;
            IF taken > 0 THEN
                INSERT INTO greenroom_count_changes (id, n) VALUES (2, -taken), (3, taken);
            END IF;
'),
        ('greenroom_end_1', 'DECLARE
', 'DECLARE
    left_states smallint[];
    final_states smallint[];
'),
        ('greenroom_end_1', 'SELECT array_agg(e.id),
', 'SELECT array_agg(e.state), array_agg(e.final), array_agg(e.id),
'),
        ('greenroom_end_1', 'INTO done, freed, freed_well, counted, counted_well, counted_attempts
      FROM ended e;
', 'INTO left_states, final_states, done, freed, freed_well, counted, counted_well, counted_attempts
      FROM ended e;
    IF done IS NOT NULL THEN
        PERFORM greenroom_count_ends_1(left_states, final_states);
    END IF;
'),
        ('greenroom_commit_1', 'DECLARE
', 'DECLARE
    left_states smallint[];
    final_states smallint[];
'),
        ('greenroom_commit_1', 'SELECT array_agg(e.id) FILTER (WHERE e.awaited)',
         'SELECT array_agg(e.state), array_agg(e.final), array_agg(e.id) FILTER (WHERE e.awaited)'),
        ('greenroom_commit_1', 'INTO freed, freed_well, counted, counted_well, counted_attempts
          FROM ended e;
', 'INTO left_states, final_states, freed, freed_well, counted, counted_well, counted_attempts
          FROM ended e;
        IF left_states IS NOT NULL THEN
            PERFORM greenroom_count_ends_1(left_states, final_states);
        END IF;
'),
        ('greenroom_dismiss_many_1', '-- what is counted is counted as it goes and comes',
         '-- that it goes is counted by the table'),
        ('greenroom_dismiss_many_1', 'INSERT INTO greenroom_task_archive SELECT (a).*;
', 'INSERT INTO greenroom_task_archive SELECT (a).*;
        PERFORM greenroom_count_ends_1(''{}'', ARRAY[a.state]);
'),
        ('greenroom_fold_counts_1', 'BEGIN
', 'BEGIN
    IF EXISTS (SELECT 1 FROM greenroom_recounts r WHERE r.due_at <= now()) THEN
        DELETE FROM greenroom_recounts r
         WHERE r.ctid = ANY (ARRAY(SELECT x.ctid FROM greenroom_recounts x FOR UPDATE SKIP LOCKED));
        IF FOUND THEN
            PERFORM greenroom_recount_1();
        END IF;
    END IF;
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
