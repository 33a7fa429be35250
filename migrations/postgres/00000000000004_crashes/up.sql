-- Crashes by site: what the log cannot tell after a restart.

CREATE TABLE greenroom_crashes (
    -- Drawn from kind, way and place.
    id uuid PRIMARY KEY,
    kind text NOT NULL,
    place text NOT NULL,
    first_at timestamptz NOT NULL,
    last_at timestamptz NOT NULL,
    count bigint NOT NULL,
    -- The id of the last one, and its report: JSON.
    crash text NOT NULL,
    report bytea NOT NULL,
    -- Text.
    backtrace bytea
) WITH (fillfactor = 70);

-- Merges groups into those that are there: as the model's `CrashGroup::merge`. Nodes write side by side, so
-- all lock in one order. No id comes twice.
CREATE FUNCTION greenroom_note_crashes_1(
    g_id uuid[], g_kind text[], g_place text[], g_first_at timestamptz[], g_last_at timestamptz[], g_count bigint[],
    g_crash text[], g_report bytea[], g_backtrace bytea[]
) RETURNS bigint LANGUAGE plpgsql AS $$
DECLARE
    n bigint;
BEGIN
    INSERT INTO greenroom_crashes AS c (id, kind, place, first_at, last_at, count, crash, report, backtrace)
    SELECT * FROM unnest(g_id, g_kind, g_place, g_first_at, g_last_at, g_count, g_crash, g_report, g_backtrace)
        AS g (id, kind, place, first_at, last_at, count, crash, report, backtrace)
     ORDER BY g.id
    ON CONFLICT (id) DO UPDATE SET
        first_at = least(c.first_at, excluded.first_at),
        last_at = greatest(c.last_at, excluded.last_at),
        count = least(c.count::numeric + excluded.count, 9223372036854775807)::bigint,
        crash = CASE WHEN (excluded.last_at, excluded.crash COLLATE "C") > (c.last_at, c.crash COLLATE "C")
                     THEN excluded.crash ELSE c.crash END,
        report = CASE WHEN (excluded.last_at, excluded.crash COLLATE "C") > (c.last_at, c.crash COLLATE "C")
                      THEN excluded.report ELSE c.report END,
        backtrace = coalesce(excluded.backtrace, c.backtrace);
    GET DIAGNOSTICS n = ROW_COUNT;
    RETURN n;
END $$;

-- Forgets groups without a crash since, and the longest quiet of those beyond so many.
CREATE FUNCTION greenroom_clean_crashes_1(p_before timestamptz, p_keep int) RETURNS bigint LANGUAGE plpgsql AS $$
DECLARE
    n bigint;
BEGIN
    DELETE FROM greenroom_crashes c
     WHERE c.id IN (SELECT x.id FROM greenroom_crashes x
                     WHERE x.last_at < p_before
                        OR x.id IN (SELECT y.id FROM greenroom_crashes y ORDER BY y.last_at DESC, y.id DESC OFFSET p_keep)
                     ORDER BY x.id FOR UPDATE SKIP LOCKED);
    GET DIAGNOSTICS n = ROW_COUNT;
    RETURN n;
END $$;
