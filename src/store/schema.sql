-- The state of a Blockseal home, schema version 1. Times are microseconds since 1970 on the home's movable clock.

-- Settings of the home: clock_offset_seconds, home_id, root_key_fingerprint, ...
CREATE TABLE settings (
    name  TEXT PRIMARY KEY,
    value TEXT NOT NULL
) STRICT, WITHOUT ROWID;
