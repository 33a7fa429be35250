-- What is due again and again. Few rows: no index but the name's.
CREATE TABLE greenroom_schedules (
    name text COLLATE "C" PRIMARY KEY,
    -- Drawn anew when it is changed, paused or resumed.
    revision uuid NOT NULL,
    -- `program` or `operator`.
    origin text NOT NULL,
    paused boolean NOT NULL,
    spec text NOT NULL,
    overlap text NOT NULL,
    misfire text NOT NULL,
    -- The tasks that it submits.
    target text NOT NULL,
    message text NOT NULL,
    priority smallint NOT NULL,
    max_attempts bigint,
    timeout_ms bigint,
    tags text,
    -- The nominal time to come: the guard of whoever moves it on.
    next_at timestamptz,
    -- The last one that got a task, and the task.
    last_at timestamptz,
    last_task uuid,
    created_at timestamptz NOT NULL,
    updated_at timestamptz NOT NULL,
    input bytea NOT NULL
) WITH (fillfactor = 70);

-- Moves one schedule on from a nominal time, with the commit of the one unit that fires it, or that lets it
-- pass. Nothing happens where the schedule is not as it was read (10), or where the commit refuses the unit.
CREATE FUNCTION greenroom_fire_1(
    p_unit int, p_name text, p_revision uuid, p_from timestamptz, p_next timestamptz, p_fired timestamptz,
    p_task uuid,
    p_node uuid, p_history int,
    o_unit int[], o_partition smallint[], o_epoch bigint[],
    s_unit int[], s_id uuid[], s_partition smallint[], s_kind text[], s_key text[], s_epoch bigint[],
    s_base bigint[], s_schema bigint[], s_state bytea[], s_keep boolean[], s_judged uuid[],
    f_unit int[], f_task uuid[], f_attempt bigint[], f_from int[], f_to smallint[], f_run_at timestamptz[],
    f_result bytea[], f_error bytea[], f_event text[], f_detail text[],
    k_unit int[], k_scope uuid[], k_key text[], k_request bytea[], k_task uuid[], k_reply bytea[],
    k_expires_at timestamptz[],
    n_unit int[], n_id uuid[], n_partition smallint[], n_lane smallint[], n_target text[], n_message text[],
    n_priority smallint[], n_run_at timestamptz[], n_max_attempts bigint[], n_timeout_ms bigint[],
    n_run_after_failure boolean[], n_notify text[], n_batch uuid[], n_parent uuid[], n_tags text[],
    n_expires_at timestamptz[], n_idempotency_key text[], n_input bytea[],
    d_unit int[], d_child uuid[], d_parent uuid[],
    b_unit int[], b_id uuid[], b_size bigint[], b_notify text[], b_partition smallint[]
) RETURNS TABLE (unit int, reason smallint, id uuid, code int) LANGUAGE plpgsql
SET enable_seqscan = off SET enable_hashjoin = off SET enable_mergejoin = off SET jit = off AS $$
#variable_conflict use_column
BEGIN
    PERFORM 1 FROM greenroom_schedules s
      WHERE s.name = p_name AND s.revision = p_revision AND s.next_at = p_from AND NOT s.paused
        FOR NO KEY UPDATE;
    IF NOT FOUND THEN
        RETURN QUERY SELECT p_unit, 10::smallint, NULL::uuid, 0;
        RETURN;
    END IF;
    RETURN QUERY SELECT * FROM greenroom_commit_1(
            p_node, p_history, o_unit, o_partition, o_epoch, s_unit, s_id, s_partition, s_kind, s_key, s_epoch,
            s_base, s_schema, s_state, s_keep, s_judged, f_unit, f_task, f_attempt, f_from, f_to, f_run_at,
            f_result, f_error, f_event, f_detail, k_unit, k_scope, k_key, k_request, k_task, k_reply,
            k_expires_at, n_unit, n_id, n_partition, n_lane, n_target, n_message, n_priority, n_run_at,
            n_max_attempts, n_timeout_ms, n_run_after_failure, n_notify, n_batch, n_parent, n_tags,
            n_expires_at, n_idempotency_key, n_input, d_unit, d_child, d_parent, b_unit, b_id, b_size,
            b_notify, b_partition);
    IF FOUND THEN
        RETURN;
    END IF;
    UPDATE greenroom_schedules s
       SET next_at = p_next, last_at = coalesce(p_fired, s.last_at), last_task = coalesce(p_task, s.last_task)
     WHERE s.name = p_name;
END $$;
