-- What task functions have asked for and been answered, what they wait for, and what they say of themselves.

CREATE TABLE greenroom_journal (
    task uuid NOT NULL,
    -- Of target and input; and the how manieth equal call it was.
    hash bytea NOT NULL,
    occurrence bigint NOT NULL,
    target text NOT NULL,
    -- The how manieth call to this target it was.
    ordinal bigint NOT NULL,
    -- JSON; none where it was begun and must not be made twice.
    answer bytea,
    at timestamptz NOT NULL DEFAULT now(),
    PRIMARY KEY (task, hash, occurrence)
);

CREATE TABLE greenroom_waits (
    task uuid NOT NULL,
    name text NOT NULL,
    occurrence bigint NOT NULL,
    until timestamptz,
    -- It has not ended.
    open boolean NOT NULL,
    PRIMARY KEY (task, name, occurrence)
);
CREATE INDEX greenroom_waits_until ON greenroom_waits (until) WHERE open AND until IS NOT NULL;

CREATE TABLE greenroom_signals (
    rowid bigint GENERATED ALWAYS AS IDENTITY PRIMARY KEY,
    task uuid NOT NULL,
    name text NOT NULL,
    id uuid NOT NULL,
    body bytea NOT NULL,
    at timestamptz NOT NULL DEFAULT now(),
    UNIQUE (task, id)
);

-- How far a task says it is: the last word counts.
CREATE TABLE greenroom_task_progress (
    task uuid PRIMARY KEY,
    at timestamptz NOT NULL,
    progress bytea NOT NULL
) WITH (fillfactor = 70);

CREATE TABLE greenroom_task_logs (
    rowid bigint GENERATED ALWAYS AS IDENTITY PRIMARY KEY,
    task uuid NOT NULL,
    at timestamptz NOT NULL,
    level smallint NOT NULL,
    text text NOT NULL
);
CREATE INDEX greenroom_task_logs_task ON greenroom_task_logs (task);

-- Records what running task functions have come to, each under the guard of its claim (u): calls (j), calls
-- that had begun and came to nothing (d), and what it waits for (w). One that waits is not running any more, and its attempt is given back; it is ready
-- at once where more signals of a name are there than it has seen. Answers the units that were refused.
CREATE FUNCTION greenroom_record_1(
    p_node uuid, u_unit int[], u_task uuid[], u_claim bigint[],
    j_unit int[], j_task uuid[], j_hash bytea[], j_occurrence bigint[], j_target text[], j_ordinal bigint[],
    j_answer bytea[],
    d_unit int[], d_task uuid[], d_hash bytea[], d_occurrence bigint[],
    w_unit int[], w_task uuid[], w_name text[], w_occurrence bigint[], w_until timestamptz[], w_seen bigint[]
) RETURNS SETOF int LANGUAGE plpgsql
SET enable_seqscan = off SET enable_hashjoin = off SET enable_mergejoin = off SET jit = off AS $$
DECLARE
    bad int[];
BEGIN
    PERFORM 1 FROM greenroom_tasks t WHERE t.id = ANY (u_task) ORDER BY t.id FOR NO KEY UPDATE;
    SELECT coalesce(array_agg(u.unit), '{}') INTO bad
      FROM unnest(u_unit, u_task, u_claim) AS u (unit, id, claim)
      LEFT JOIN greenroom_tasks t ON t.id = u.id
     WHERE t.id IS NULL OR t.state <> 3 OR t.claim <> u.claim OR t.node IS DISTINCT FROM p_node;
    INSERT INTO greenroom_journal AS k (task, hash, occurrence, target, ordinal, answer)
    SELECT j.task, j.hash, j.occurrence, j.target, j.ordinal, j.answer
      FROM unnest(j_unit, j_task, j_hash, j_occurrence, j_target, j_ordinal, j_answer)
           AS j (unit, task, hash, occurrence, target, ordinal, answer)
     WHERE j.unit <> ALL (bad)
     ORDER BY j.task, j.hash, j.occurrence
    ON CONFLICT (task, hash, occurrence) DO UPDATE SET answer = coalesce(k.answer, excluded.answer);
    DELETE FROM greenroom_journal k
     USING unnest(d_unit, d_task, d_hash, d_occurrence) AS d (unit, task, hash, occurrence)
     WHERE k.task = d.task AND k.hash = d.hash AND k.occurrence = d.occurrence AND k.answer IS NULL
       AND d.unit <> ALL (bad);
    IF w_task <> '{}' THEN
        INSERT INTO greenroom_waits (task, name, occurrence, until, open)
        SELECT w.task, w.name, w.occurrence, w.until, true
          FROM unnest(w_unit, w_task, w_name, w_occurrence, w_until) AS w (unit, task, name, occurrence, until)
         WHERE w.unit <> ALL (bad)
         ORDER BY w.task, w.name, w.occurrence
        ON CONFLICT (task, name, occurrence) DO UPDATE SET until = excluded.until, open = true;
        WITH waiting AS (
            SELECT w.task, string_agg(DISTINCT w.name, ', ') AS names,
                   bool_or((SELECT count(*) FROM greenroom_signals s WHERE s.task = w.task AND s.name = w.name)
                           > w.seen) AS come
              FROM unnest(w_unit, w_task, w_name, w_seen) AS w (unit, task, name, seen)
             WHERE w.unit <> ALL (bad)
             GROUP BY w.task
        ), told AS (
            INSERT INTO greenroom_task_events (task, event, attempt, node, detail)
            SELECT w.task, 'waiting', t.attempt, p_node, 'for ' || w.names
              FROM waiting w JOIN greenroom_tasks t ON t.id = w.task
        )
        UPDATE greenroom_tasks t
           SET state = CASE WHEN w.come THEN 2 ELSE 4 END,
               seq = CASE WHEN w.come THEN nextval('greenroom_tasks_seq_seq') ELSE t.seq END,
               run_at = CASE WHEN w.come THEN now() ELSE t.run_at END,
               -- It has started in time.
               expires_at = NULL,
               attempt = t.attempt - 1, node = NULL, alone = false,
               -- What was flagged while it ran does not go on: it is doomed.
               lane = CASE WHEN t.cancel THEN 6 ELSE t.lane END
          FROM waiting w
         WHERE t.id = w.task;
        UPDATE greenroom_waits x SET open = false
          FROM greenroom_tasks t
         WHERE x.task = ANY (w_task) AND t.id = x.task AND t.state = 2 AND x.open;
    END IF;
    RETURN QUERY SELECT unnest(bad);
END $$;

-- Keeps a signal, and makes the task ready that waits for it. Answers the task's state as it was; null where
-- nobody knows it, -1 where it has too many signals already.
CREATE FUNCTION greenroom_signal_1(p_task uuid, p_name text, p_id uuid, p_body bytea, p_max int)
RETURNS smallint LANGUAGE plpgsql AS $$
DECLARE
    found_in smallint;
BEGIN
    SELECT t.state INTO found_in FROM greenroom_tasks t WHERE t.id = p_task FOR NO KEY UPDATE;
    IF NOT FOUND THEN
        SELECT a.state INTO found_in FROM greenroom_task_archive a WHERE a.id = p_task;
        RETURN found_in;
    END IF;
    IF EXISTS (SELECT 1 FROM greenroom_signals s WHERE s.task = p_task AND s.id = p_id) THEN
        RETURN found_in;
    END IF;
    IF (SELECT count(*) FROM greenroom_signals s WHERE s.task = p_task) >= p_max THEN
        RETURN -1;
    END IF;
    INSERT INTO greenroom_signals (task, name, id, body) VALUES (p_task, p_name, p_id, p_body);
    INSERT INTO greenroom_task_events (task, event, attempt, detail)
    SELECT t.id, 'signalled', t.attempt, p_name FROM greenroom_tasks t WHERE t.id = p_task;
    IF found_in = 4 AND EXISTS (SELECT 1 FROM greenroom_waits w
                                 WHERE w.task = p_task AND w.name = p_name AND w.open) THEN
        UPDATE greenroom_waits w SET open = false WHERE w.task = p_task AND w.open;
        UPDATE greenroom_tasks t SET state = 2, seq = nextval('greenroom_tasks_seq_seq'), run_at = now()
         WHERE t.id = p_task;
    END IF;
    RETURN found_in;
END $$;

-- Makes tasks ready whose wait has ended without a signal; says how many.
CREATE FUNCTION greenroom_end_waits_1(p_now timestamptz, p_limit int) RETURNS bigint LANGUAGE plpgsql AS $$
DECLARE
    due uuid[];
    woken uuid[];
BEGIN
    due := ARRAY(SELECT w.task FROM greenroom_waits w WHERE w.open AND w.until <= p_now ORDER BY w.until LIMIT p_limit);
    IF due = '{}' THEN
        RETURN 0;
    END IF;
    woken := ARRAY(SELECT t.id FROM greenroom_tasks t WHERE t.id = ANY (due) AND t.state = 4
                    ORDER BY t.id FOR NO KEY UPDATE SKIP LOCKED);
    UPDATE greenroom_waits w SET open = false
     WHERE w.task = ANY (due) AND w.open
       AND (w.task = ANY (woken) OR NOT EXISTS (SELECT 1 FROM greenroom_tasks t WHERE t.id = w.task));
    WITH placed AS (
        SELECT w.id, nextval('greenroom_tasks_seq_seq') AS seq FROM unnest(woken) AS w (id)
    )
    UPDATE greenroom_tasks t SET state = 2, seq = placed.seq, run_at = now() FROM placed WHERE t.id = placed.id;
    RETURN cardinality(woken);
END $$;

-- The return of a task, which forgets what it had begun: a person has said that it may be done again.
CREATE FUNCTION greenroom_retry_2(p_id uuid, p_state smallint, p_partition smallint, p_lane smallint)
RETURNS boolean LANGUAGE plpgsql AS $$
BEGIN
    IF NOT greenroom_retry_1(p_id, p_state, p_partition, p_lane) THEN
        RETURN false;
    END IF;
    DELETE FROM greenroom_journal j WHERE j.task = p_id AND j.answer IS NULL;
    RETURN true;
END $$;

-- Forgets what tasks wrote whose time in the archive is over, before they go themselves.
CREATE FUNCTION greenroom_forget_written_1(p_before timestamptz, p_limit int) RETURNS bigint
LANGUAGE plpgsql SET enable_seqscan = off SET jit = off AS $$
DECLARE
    old uuid[];
BEGIN
    old := ARRAY(SELECT x.id FROM greenroom_task_archive x WHERE x.finished_at < p_before
                  ORDER BY x.finished_at LIMIT p_limit);
    DELETE FROM greenroom_journal x WHERE x.task = ANY (old);
    DELETE FROM greenroom_waits x WHERE x.task = ANY (old);
    DELETE FROM greenroom_signals x WHERE x.task = ANY (old);
    DELETE FROM greenroom_task_progress x WHERE x.task = ANY (old);
    DELETE FROM greenroom_task_logs x WHERE x.task = ANY (old);
    RETURN cardinality(old);
END $$;

-- Writes down what tasks say of themselves: how far they are, and lines for their logs.
CREATE FUNCTION greenroom_note_tasks_1(
    p_task uuid[], p_at timestamptz[], p_progress bytea[],
    l_task uuid[], l_at timestamptz[], l_level smallint[], l_text text[]
) RETURNS boolean LANGUAGE plpgsql AS $$
BEGIN
    PERFORM set_config('synchronous_commit', 'off', true);
    INSERT INTO greenroom_task_progress AS x (task, at, progress)
    SELECT p.task, p.at, p.progress FROM unnest(p_task, p_at, p_progress) AS p (task, at, progress)
     ORDER BY p.task
    ON CONFLICT (task) DO UPDATE SET at = excluded.at, progress = excluded.progress;
    INSERT INTO greenroom_task_logs (task, at, level, text)
    SELECT l.task, l.at, l.level, l.text
      FROM unnest(l_task, l_at, l_level, l_text) WITH ORDINALITY AS l (task, at, level, text, o)
     ORDER BY l.o;
    RETURN true;
END $$;
