-- Times are milliseconds since 1970-01-01 UTC; documents are JSON text; what is sealed is `v1:` and hexadecimal digits.

CREATE TABLE meta (
    key   TEXT PRIMARY KEY,
    value TEXT NOT NULL
) STRICT;

CREATE TABLE declarations (
    kind       TEXT NOT NULL,
    name       TEXT NOT NULL,
    document   TEXT NOT NULL,
    generation INTEGER NOT NULL,
    updated_at INTEGER NOT NULL,
    PRIMARY KEY (kind, name)
) STRICT;

CREATE TABLE plans (
    digest     TEXT PRIMARY KEY,
    document   TEXT NOT NULL,
    created_at INTEGER NOT NULL,
    created_by TEXT NOT NULL,
    applied_at INTEGER,
    applied_by TEXT
) STRICT;

CREATE TABLE plan_passwords (
    digest  TEXT NOT NULL REFERENCES plans (digest) ON DELETE CASCADE,
    machine TEXT NOT NULL,
    sealed  TEXT NOT NULL,
    PRIMARY KEY (digest, machine)
) STRICT;

CREATE TABLE machines (
    name       TEXT PRIMARY KEY,
    kind       TEXT NOT NULL DEFAULT 'Machine' CHECK (kind = 'Machine'),
    state      TEXT NOT NULL,
    since      INTEGER NOT NULL,
    generation INTEGER NOT NULL,
    waiting    TEXT,
    pin        TEXT,
    serial     TEXT,
    uuid       TEXT,
    FOREIGN KEY (kind, name) REFERENCES declarations (kind, name) ON DELETE CASCADE
) STRICT;
CREATE INDEX machines_by_serial ON machines (serial);
CREATE INDEX machines_by_uuid ON machines (uuid);

CREATE TABLE credentials (
    machine    TEXT PRIMARY KEY REFERENCES machines (name) ON DELETE CASCADE,
    sealed     TEXT NOT NULL,
    updated_at INTEGER NOT NULL
) STRICT;

CREATE TABLE inventories (
    machine  TEXT PRIMARY KEY REFERENCES machines (name) ON DELETE CASCADE,
    document TEXT NOT NULL,
    digest   TEXT NOT NULL,
    at       INTEGER NOT NULL
) STRICT;

CREATE TABLE facts (
    machine TEXT NOT NULL REFERENCES machines (name) ON DELETE CASCADE,
    source  TEXT NOT NULL,
    place   INTEGER NOT NULL,
    key     TEXT NOT NULL,
    value   TEXT NOT NULL,
    path    TEXT NOT NULL,
    at      INTEGER NOT NULL,
    PRIMARY KEY (machine, source, place)
) STRICT, WITHOUT ROWID;

CREATE TABLE gpus (
    machine  TEXT NOT NULL REFERENCES machines (name) ON DELETE CASCADE,
    key      TEXT NOT NULL,
    place    INTEGER NOT NULL,
    serial   TEXT,
    uuid     TEXT,
    model    TEXT,
    document TEXT NOT NULL,
    PRIMARY KEY (machine, key)
) STRICT;
CREATE INDEX gpus_by_serial ON gpus (serial);
CREATE INDEX gpus_by_uuid ON gpus (uuid);

CREATE TABLE events (
    id      INTEGER PRIMARY KEY AUTOINCREMENT,
    at      INTEGER NOT NULL,
    kind    TEXT NOT NULL,
    subject TEXT NOT NULL,
    actor   TEXT NOT NULL,
    data    TEXT NOT NULL
) STRICT;
CREATE INDEX events_by_subject ON events (subject, id);

CREATE TRIGGER events_are_never_changed BEFORE UPDATE ON events
BEGIN
    SELECT RAISE(ABORT, 'events are append-only');
END;

CREATE TRIGGER events_are_never_deleted BEFORE DELETE ON events
BEGIN
    SELECT RAISE(ABORT, 'events are append-only');
END;

CREATE TABLE tokens (
    name       TEXT PRIMARY KEY,
    role       TEXT NOT NULL,
    digest     TEXT NOT NULL UNIQUE,
    created_at INTEGER NOT NULL,
    expires_at INTEGER,
    revoked_at INTEGER
) STRICT;
