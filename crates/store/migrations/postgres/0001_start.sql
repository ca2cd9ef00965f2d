-- Times are milliseconds since 1970-01-01 UTC; documents are JSON text; what is sealed is `v1:` and hexadecimal digits.

CREATE TABLE meta (
    key   TEXT COLLATE "C" PRIMARY KEY,
    value TEXT NOT NULL
);

CREATE TABLE declarations (
    kind       TEXT COLLATE "C" NOT NULL,
    name       TEXT COLLATE "C" NOT NULL,
    document   TEXT NOT NULL,
    generation BIGINT NOT NULL,
    updated_at BIGINT NOT NULL,
    PRIMARY KEY (kind, name)
);

CREATE TABLE plans (
    digest     TEXT PRIMARY KEY,
    document   TEXT NOT NULL,
    created_at BIGINT NOT NULL,
    created_by TEXT NOT NULL,
    applied_at BIGINT,
    applied_by TEXT
);

CREATE TABLE plan_passwords (
    digest  TEXT NOT NULL REFERENCES plans (digest) ON DELETE CASCADE,
    machine TEXT COLLATE "C" NOT NULL,
    sealed  TEXT NOT NULL,
    PRIMARY KEY (digest, machine)
);

CREATE TABLE machines (
    name       TEXT COLLATE "C" PRIMARY KEY,
    kind       TEXT COLLATE "C" NOT NULL DEFAULT 'Machine' CHECK (kind = 'Machine'),
    state      TEXT NOT NULL,
    since      BIGINT NOT NULL,
    generation BIGINT NOT NULL,
    waiting    TEXT,
    pin        TEXT,
    serial     TEXT,
    uuid       TEXT,
    FOREIGN KEY (kind, name) REFERENCES declarations (kind, name) ON DELETE CASCADE
);
CREATE INDEX machines_by_serial ON machines (serial);
CREATE INDEX machines_by_uuid ON machines (uuid);

CREATE TABLE credentials (
    machine    TEXT COLLATE "C" PRIMARY KEY REFERENCES machines (name) ON DELETE CASCADE,
    sealed     TEXT NOT NULL,
    updated_at BIGINT NOT NULL
);

CREATE TABLE inventories (
    machine  TEXT COLLATE "C" PRIMARY KEY REFERENCES machines (name) ON DELETE CASCADE,
    document TEXT NOT NULL,
    digest   TEXT NOT NULL,
    at       BIGINT NOT NULL
);

CREATE TABLE facts (
    machine TEXT COLLATE "C" NOT NULL REFERENCES machines (name) ON DELETE CASCADE,
    source  TEXT NOT NULL,
    place   BIGINT NOT NULL,
    key     TEXT COLLATE "C" NOT NULL,
    value   TEXT NOT NULL,
    path    TEXT NOT NULL,
    at      BIGINT NOT NULL,
    PRIMARY KEY (machine, source, place)
);

CREATE TABLE gpus (
    machine  TEXT COLLATE "C" NOT NULL REFERENCES machines (name) ON DELETE CASCADE,
    key      TEXT COLLATE "C" NOT NULL,
    place    BIGINT NOT NULL,
    serial   TEXT,
    uuid     TEXT,
    model    TEXT,
    document TEXT NOT NULL,
    PRIMARY KEY (machine, key)
);
CREATE INDEX gpus_by_serial ON gpus (serial);
CREATE INDEX gpus_by_uuid ON gpus (uuid);

CREATE TABLE events (
    id      BIGINT GENERATED ALWAYS AS IDENTITY PRIMARY KEY,
    at      BIGINT NOT NULL,
    kind    TEXT COLLATE "C" NOT NULL,
    subject TEXT COLLATE "C" NOT NULL,
    actor   TEXT NOT NULL,
    data    TEXT NOT NULL
);
CREATE INDEX events_by_subject ON events (subject, id);

CREATE FUNCTION events_are_append_only() RETURNS trigger LANGUAGE plpgsql AS $$
BEGIN
    RAISE EXCEPTION 'events are append-only';
END;
$$;

CREATE TRIGGER events_are_never_changed BEFORE UPDATE OR DELETE ON events
    FOR EACH ROW EXECUTE FUNCTION events_are_append_only();

CREATE TRIGGER events_are_never_emptied BEFORE TRUNCATE ON events
    FOR EACH STATEMENT EXECUTE FUNCTION events_are_append_only();

CREATE TABLE tokens (
    name       TEXT COLLATE "C" PRIMARY KEY,
    role       TEXT NOT NULL,
    digest     TEXT NOT NULL UNIQUE,
    created_at BIGINT NOT NULL,
    expires_at BIGINT,
    revoked_at BIGINT
);
