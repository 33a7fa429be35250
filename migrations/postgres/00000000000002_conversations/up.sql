-- Conversations, their messages, and sessions. What is said about them in src/store/entities.rs is done here.
--
-- Retention looks for days and hours, in columns of their own: an index on the moment itself would be moved
-- by every message.

CREATE TABLE greenroom_conversations (
    id uuid PRIMARY KEY,
    title text,
    metadata bytea NOT NULL,
    -- The place of the last message, and so how many there are.
    last_seq bigint NOT NULL DEFAULT 0,
    version bigint NOT NULL DEFAULT 1,
    created_at timestamptz NOT NULL DEFAULT now(),
    updated_at timestamptz NOT NULL DEFAULT now(),
    -- The day of the last change, since 1970.
    used_on int NOT NULL,
    -- It is not there any more, and waits for its messages to be forgotten.
    deleted boolean NOT NULL DEFAULT false
) WITH (fillfactor = 80);
CREATE INDEX greenroom_conversations_used ON greenroom_conversations (used_on) WHERE NOT deleted;
CREATE INDEX greenroom_conversations_deleted ON greenroom_conversations (id) WHERE deleted;

CREATE TABLE greenroom_messages (
    conversation uuid NOT NULL,
    -- 1, 2, 3 …: given in the commit.
    seq bigint NOT NULL,
    id uuid NOT NULL UNIQUE,
    role text NOT NULL,
    created_at timestamptz NOT NULL DEFAULT now(),
    content bytea NOT NULL,
    PRIMARY KEY (conversation, seq)
);

CREATE TABLE greenroom_sessions (
    id text PRIMARY KEY,
    -- Drawn by each writer.
    version uuid NOT NULL,
    -- Rises with each write and each use that is written down.
    revision bigint NOT NULL,
    ttl_ms bigint NOT NULL,
    created_at timestamptz NOT NULL DEFAULT now(),
    updated_at timestamptz NOT NULL DEFAULT now(),
    expires_at timestamptz NOT NULL,
    -- The hour in which it expires, since 1970.
    expires_in int NOT NULL,
    data bytea NOT NULL
) WITH (fillfactor = 80);
CREATE INDEX greenroom_sessions_expiry ON greenroom_sessions (expires_in);

CREATE FUNCTION greenroom_day(p_at timestamptz) RETURNS int LANGUAGE sql IMMUTABLE AS $$
    SELECT floor(extract(epoch FROM p_at) / 86400)::int
$$;
CREATE FUNCTION greenroom_hour(p_at timestamptz) RETURNS int LANGUAGE sql IMMUTABLE AS $$
    SELECT floor(extract(epoch FROM p_at) / 3600)::int
$$;

-- The group commit of units of which some touch conversations or sessions. Units of one call must not touch
-- the same conversation or session either. Arrays go together by their first letter: c conversations that are
-- made or deleted, m messages, x sessions (change: 0 put, 1 touch, 2 remove; expect: 0 anything, 1 that it is
-- not there, 2 this version).
--
-- These are locked and judged first, in one order. Units that are refused for them are given to the commit of
-- everything else under an epoch that no partition ever has, so that it leaves no trace of them. Reasons
-- beside those of greenroom_commit_1: 7 no such conversation (which), 8 a session is not as expected (which of
-- x), 9 a message's id is known in another conversation (which).
CREATE FUNCTION greenroom_commit_2(
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
    bad int[] := '{}';
    reasons smallint[] := '{}';
    ids uuid[] := '{}';
    codes int[] := '{}';
    other_units int[];
    other_reasons smallint[];
    other_ids uuid[];
    other_codes int[];
    refused int[];
BEGIN
    IF c_id <> '{}' OR m_id <> '{}' THEN
        PERFORM 1 FROM greenroom_conversations c WHERE c.id = ANY (c_id || m_conversation)
          ORDER BY c.id FOR NO KEY UPDATE;
        SELECT coalesce(array_agg(r.unit), '{}'), coalesce(array_agg(r.reason), '{}'),
               coalesce(array_agg(r.id), '{}'), coalesce(array_agg(0), '{}')
          INTO bad, reasons, ids, codes
          FROM (
            SELECT DISTINCT ON (m.unit) m.unit,
                   CASE WHEN g.id IS NULL THEN 7::smallint ELSE 9::smallint END AS reason,
                   CASE WHEN g.id IS NULL THEN m.conversation ELSE m.id END AS id
              FROM unnest(m_unit, m_id, m_conversation) WITH ORDINALITY AS m (unit, id, conversation, o)
              LEFT JOIN greenroom_conversations c ON c.id = m.conversation
              LEFT JOIN greenroom_messages g ON g.id = m.id AND g.conversation <> m.conversation
             WHERE g.id IS NOT NULL
                OR NOT coalesce(NOT c.deleted, EXISTS (
                    SELECT 1 FROM unnest(c_unit, c_id, c_delete) AS n (unit, id, gone)
                     WHERE n.unit = m.unit AND n.id = m.conversation AND NOT n.gone))
             ORDER BY m.unit, m.o
          ) AS r;
    END IF;
    IF x_id <> '{}' THEN
        PERFORM 1 FROM greenroom_sessions s WHERE s.id = ANY (x_id) ORDER BY s.id FOR NO KEY UPDATE;
        SELECT bad || coalesce(array_agg(r.unit), '{}'), reasons || coalesce(array_agg(8::smallint), '{}'),
               ids || coalesce(array_agg(NULL::uuid), '{}'), codes || coalesce(array_agg(r.o), '{}')
          INTO bad, reasons, ids, codes
          FROM (
            SELECT DISTINCT ON (x.unit) x.unit, x.o::int AS o
              FROM unnest(x_unit, x_id, x_expect, x_expected) WITH ORDINALITY AS x (unit, id, expect, expected, o)
              LEFT JOIN greenroom_sessions s ON s.id = x.id AND s.expires_at > now()
             WHERE x.unit <> ALL (bad)
               AND CASE x.expect WHEN 0 THEN false WHEN 1 THEN s.id IS NOT NULL
                                 ELSE s.version IS DISTINCT FROM x.expected END
             ORDER BY x.unit, x.o
          ) AS r;
    END IF;

    SELECT coalesce(array_agg(r.unit), '{}'), coalesce(array_agg(r.reason), '{}'), coalesce(array_agg(r.id), '{}'),
           coalesce(array_agg(r.code), '{}')
      INTO other_units, other_reasons, other_ids, other_codes
      FROM greenroom_commit_1(
        p_node, p_history, o_unit || bad, o_partition || array_fill(0::smallint, ARRAY[cardinality(bad)]),
        o_epoch || array_fill(-1::bigint, ARRAY[cardinality(bad)]), s_unit, s_id, s_partition, s_kind, s_key,
        s_epoch, s_base, s_schema, s_state, s_keep, s_judged, f_unit, f_task, f_attempt, f_from, f_to, f_run_at,
        f_result, f_error, f_event, f_detail, k_unit, k_scope, k_key, k_request, k_task, k_reply, k_expires_at,
        n_unit, n_id, n_partition, n_lane, n_target, n_message, n_priority, n_run_at, n_max_attempts, n_timeout_ms,
        n_run_after_failure, n_notify, n_batch, n_parent, n_tags, n_expires_at, n_idempotency_key, n_input, d_unit,
        d_child, d_parent, b_unit, b_id, b_size, b_notify, b_partition) AS r
     WHERE r.unit <> ALL (bad);
    refused := bad || other_units;

    IF false = ANY (c_delete) THEN
        INSERT INTO greenroom_conversations (id, title, metadata, used_on)
        SELECT c.id, c.title, c.metadata, greenroom_day(now())
          FROM unnest(c_unit, c_id, c_title, c_metadata, c_delete) AS c (unit, id, title, metadata, gone)
         WHERE NOT c.gone AND c.unit <> ALL (refused)
         ORDER BY c.id
        ON CONFLICT DO NOTHING;
        -- Another may have made one of them a moment ago, and speak in it.
        PERFORM 1 FROM greenroom_conversations c WHERE c.id = ANY (c_id) ORDER BY c.id FOR NO KEY UPDATE;
    END IF;
    IF m_id <> '{}' THEN
        WITH new AS (
            SELECT m.*, row_number() OVER (PARTITION BY m.conversation ORDER BY m.o) AS n
              FROM (
                SELECT DISTINCT ON (m.id) m.*
                  FROM unnest(m_unit, m_id, m_conversation, m_role, m_content) WITH ORDINALITY
                       AS m (unit, id, conversation, role, content, o)
                 WHERE m.unit <> ALL (refused) AND NOT EXISTS (SELECT 1 FROM greenroom_messages g WHERE g.id = m.id)
                 ORDER BY m.id, m.o
              ) AS m
        ), said AS (
            INSERT INTO greenroom_messages (conversation, seq, id, role, content)
            SELECT new.conversation, c.last_seq + new.n, new.id, new.role, new.content
              FROM new JOIN greenroom_conversations c ON c.id = new.conversation
             ORDER BY new.o
            RETURNING conversation, seq
        )
        UPDATE greenroom_conversations c
           SET last_seq = s.seq, version = c.version + 1, updated_at = now(), used_on = greenroom_day(now())
          FROM (SELECT said.conversation, max(said.seq) AS seq FROM said GROUP BY said.conversation) AS s
         WHERE c.id = s.conversation;
    END IF;
    IF true = ANY (c_delete) THEN
        UPDATE greenroom_conversations c SET deleted = true, version = c.version + 1
          FROM unnest(c_unit, c_id, c_delete) AS d (unit, id, gone)
         WHERE c.id = d.id AND d.gone AND NOT c.deleted AND d.unit <> ALL (refused);
    END IF;
    IF x_id <> '{}' THEN
        UPDATE greenroom_sessions s
           SET expires_at = now() + s.ttl_ms * interval '1 millisecond', revision = s.revision + 1,
               expires_in = greenroom_hour(now() + s.ttl_ms * interval '1 millisecond')
          FROM unnest(x_unit, x_id, x_change) AS x (unit, id, change)
         WHERE s.id = x.id AND x.change = 1 AND x.unit <> ALL (refused) AND s.expires_at > now()
           AND s.expires_at < now() + s.ttl_ms * interval '1 millisecond';
        DELETE FROM greenroom_sessions s
         USING unnest(x_unit, x_id, x_change) AS x (unit, id, change)
         WHERE s.id = x.id AND x.change = 2 AND x.unit <> ALL (refused);
        UPDATE greenroom_sessions s
           SET version = x.version, revision = s.revision + 1, ttl_ms = x.ttl_ms,
               created_at = CASE WHEN s.expires_at > now() THEN s.created_at ELSE now() END, updated_at = now(),
               expires_at = now() + x.ttl_ms * interval '1 millisecond',
               expires_in = greenroom_hour(now() + x.ttl_ms * interval '1 millisecond'), data = x.data
          FROM unnest(x_unit, x_id, x_change, x_version, x_data, x_ttl_ms)
               AS x (unit, id, change, version, data, ttl_ms)
         WHERE s.id = x.id AND x.change = 0 AND x.unit <> ALL (refused);
        -- Above the revision of any earlier one under this id. Where another makes it at this moment, this
        -- fails, and is judged again.
        INSERT INTO greenroom_sessions (id, version, revision, ttl_ms, expires_at, expires_in, data)
        SELECT x.id, x.version, floor(extract(epoch FROM now()) * 1000000)::bigint, x.ttl_ms,
               now() + x.ttl_ms * interval '1 millisecond',
               greenroom_hour(now() + x.ttl_ms * interval '1 millisecond'), x.data
          FROM unnest(x_unit, x_id, x_change, x_version, x_data, x_ttl_ms)
               AS x (unit, id, change, version, data, ttl_ms)
         WHERE x.change = 0 AND x.unit <> ALL (refused)
           AND NOT EXISTS (SELECT 1 FROM greenroom_sessions s WHERE s.id = x.id)
         ORDER BY x.id;
    END IF;
    RETURN QUERY SELECT * FROM unnest(bad || other_units, reasons || other_reasons, ids || other_ids, codes || other_codes);
END $$;

-- Deletes conversations that nobody has added to since; answers which.
CREATE FUNCTION greenroom_delete_idle_1(p_since timestamptz, p_limit int) RETURNS SETOF uuid
LANGUAGE sql SET enable_seqscan = off SET jit = off AS $$
    UPDATE greenroom_conversations c SET deleted = true, version = c.version + 1
     WHERE c.id IN (SELECT x.id FROM greenroom_conversations x
                     WHERE NOT x.deleted AND x.used_on <= greenroom_day(p_since) AND x.updated_at < p_since
                     ORDER BY x.used_on LIMIT p_limit FOR UPDATE SKIP LOCKED)
    RETURNING c.id
$$;

-- Forgets expired sessions, messages of deleted conversations, and those of these that have none left.
CREATE FUNCTION greenroom_forget_1(p_now timestamptz, p_limit int, p_messages int) RETURNS bigint
LANGUAGE plpgsql SET enable_seqscan = off SET enable_hashjoin = off SET enable_mergejoin = off SET jit = off AS $$
DECLARE
    total bigint := 0;
    n bigint;
BEGIN
    DELETE FROM greenroom_sessions s
     WHERE s.id IN (SELECT x.id FROM greenroom_sessions x
                     WHERE x.expires_in <= greenroom_hour(p_now) AND x.expires_at <= p_now
                     ORDER BY x.expires_in LIMIT p_limit FOR UPDATE SKIP LOCKED);
    GET DIAGNOSTICS n = ROW_COUNT;
    total := total + n;
    DELETE FROM greenroom_messages m
     USING (SELECT g.conversation, g.seq FROM greenroom_conversations c
              JOIN greenroom_messages g ON g.conversation = c.id
             WHERE c.deleted ORDER BY c.id, g.seq LIMIT p_messages) AS old
     WHERE m.conversation = old.conversation AND m.seq = old.seq;
    GET DIAGNOSTICS n = ROW_COUNT;
    total := total + n;
    DELETE FROM greenroom_conversations c
     WHERE c.id IN (SELECT x.id FROM greenroom_conversations x
                     WHERE x.deleted AND NOT EXISTS (SELECT 1 FROM greenroom_messages g WHERE g.conversation = x.id)
                     ORDER BY x.id LIMIT p_limit FOR UPDATE SKIP LOCKED);
    GET DIAGNOSTICS n = ROW_COUNT;
    RETURN total + n;
END $$;
