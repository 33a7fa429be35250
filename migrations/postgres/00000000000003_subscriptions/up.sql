-- Who is subscribed to which topic: an agent at most once to each.
CREATE TABLE greenroom_subscriptions (
    -- `name`, or `name/key`.
    topic text COLLATE "C" NOT NULL,
    agent uuid NOT NULL,
    kind text COLLATE "C" NOT NULL,
    key text COLLATE "C" NOT NULL,
    -- The message that it takes from the topic.
    message text NOT NULL,
    created_at timestamptz NOT NULL DEFAULT now(),
    PRIMARY KEY (topic, agent)
);

-- The group commit of units of which some begin or end subscriptions: t, with a message where one begins and
-- none where one ends. Units of one call must not touch the same agent's subscriptions either. Nothing is
-- refused for these: they are written for the units that the commit of everything else did not refuse.
CREATE FUNCTION greenroom_commit_3(
    t_unit int[], t_topic text[], t_agent uuid[], t_kind text[], t_key text[], t_message text[],
    c_unit int[], c_id uuid[], c_title text[], c_metadata bytea[], c_delete boolean[],
    m_unit int[], m_id uuid[], m_conversation uuid[], m_role text[], m_content bytea[],
    x_unit int[], x_id text[], x_change smallint[], x_version uuid[], x_data bytea[], x_ttl_ms bigint[],
    x_expect smallint[], x_expected uuid[],
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
DECLARE
    refused int[];
    reasons smallint[];
    ids uuid[];
    codes int[];
BEGIN
    SELECT coalesce(array_agg(r.unit), '{}'), coalesce(array_agg(r.reason), '{}'), coalesce(array_agg(r.id), '{}'),
           coalesce(array_agg(r.code), '{}')
      INTO refused, reasons, ids, codes
      FROM greenroom_commit_2(
        c_unit, c_id, c_title, c_metadata, c_delete, m_unit, m_id, m_conversation, m_role, m_content, x_unit, x_id,
        x_change, x_version, x_data, x_ttl_ms, x_expect, x_expected, p_node, p_history, o_unit, o_partition,
        o_epoch, s_unit, s_id, s_partition, s_kind, s_key, s_epoch, s_base, s_schema, s_state, s_keep, s_judged,
        f_unit, f_task, f_attempt, f_from, f_to, f_run_at, f_result, f_error, f_event, f_detail, k_unit, k_scope,
        k_key, k_request, k_task, k_reply, k_expires_at, n_unit, n_id, n_partition, n_lane, n_target, n_message,
        n_priority, n_run_at, n_max_attempts, n_timeout_ms, n_run_after_failure, n_notify, n_batch, n_parent,
        n_tags, n_expires_at, n_idempotency_key, n_input, d_unit, d_child, d_parent, b_unit, b_id, b_size, b_notify,
        b_partition) AS r;
    DELETE FROM greenroom_subscriptions s
     USING unnest(t_unit, t_topic, t_agent, t_message) AS t (unit, topic, agent, message)
     WHERE s.topic = t.topic AND s.agent = t.agent AND t.message IS NULL AND t.unit <> ALL (refused);
    INSERT INTO greenroom_subscriptions AS s (topic, agent, kind, key, message)
    SELECT t.topic, t.agent, t.kind, t.key, t.message
      FROM unnest(t_unit, t_topic, t_agent, t_kind, t_key, t_message) AS t (unit, topic, agent, kind, key, message)
     WHERE t.message IS NOT NULL AND t.unit <> ALL (refused)
     ORDER BY t.topic, t.agent
    ON CONFLICT (topic, agent) DO UPDATE SET message = excluded.message WHERE s.message <> excluded.message;
    RETURN QUERY SELECT * FROM unnest(refused, reasons, ids, codes);
END $$;
