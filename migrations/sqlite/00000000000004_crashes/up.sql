-- Crashes by site: what the log cannot tell after a restart.

CREATE TABLE greenroom_crashes (
    -- Drawn from kind, way and place.
    id BLOB NOT NULL PRIMARY KEY,
    kind TEXT NOT NULL,
    place TEXT NOT NULL,
    first_at BIGINT NOT NULL,
    last_at BIGINT NOT NULL,
    count BIGINT NOT NULL,
    -- The id of the last one, and its report: JSON.
    crash TEXT NOT NULL,
    report BLOB NOT NULL,
    -- Text.
    backtrace BLOB
);
