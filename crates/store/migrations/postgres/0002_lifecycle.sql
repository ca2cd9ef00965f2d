-- From enrolled to in service and back: who works on which machine, what it is used for, what was erased.

ALTER TABLE machines ADD COLUMN instance TEXT;
-- What the step under way has to remember; forgotten with the state.
ALTER TABLE machines ADD COLUMN work TEXT;
-- Its inventory has to be read again, however fresh it is.
ALTER TABLE machines ADD COLUMN stale BIGINT NOT NULL DEFAULT 0;

-- One row a machine. `due` is NULL while only something else brings it back; `woken` counts what brought it back, so that a
-- step that was under way meanwhile does not put it to sleep again; `epoch` fences out a replica that lost its lease.
CREATE TABLE queue (
    machine TEXT COLLATE "C" PRIMARY KEY REFERENCES machines (name) ON DELETE CASCADE,
    site    TEXT COLLATE "C" NOT NULL,
    due     BIGINT,
    woken   BIGINT NOT NULL DEFAULT 0,
    replica TEXT,
    epoch   BIGINT NOT NULL DEFAULT 0
);
CREATE INDEX queue_by_due ON queue (site, due);

CREATE TABLE replicas (
    id    TEXT COLLATE "C" PRIMARY KEY,
    until BIGINT NOT NULL
);

-- Kept when the machine is deleted: what was erased has to be told long after.
CREATE TABLE erasures (
    id       BIGINT GENERATED ALWAYS AS IDENTITY PRIMARY KEY,
    machine  TEXT COLLATE "C" NOT NULL,
    at       BIGINT NOT NULL,
    document TEXT NOT NULL
);
CREATE INDEX erasures_by_machine ON erasures (machine, id);

CREATE FUNCTION erasures_are_append_only() RETURNS trigger LANGUAGE plpgsql AS $$
BEGIN
    RAISE EXCEPTION 'erasures are append-only';
END;
$$;

CREATE TRIGGER erasures_are_never_changed BEFORE UPDATE OR DELETE ON erasures
    FOR EACH ROW EXECUTE FUNCTION erasures_are_append_only();

CREATE TRIGGER erasures_are_never_emptied BEFORE TRUNCATE ON erasures
    FOR EACH STATEMENT EXECUTE FUNCTION erasures_are_append_only();

-- Failed logins of an account at a BMC, counted across all parts and replicas.
CREATE TABLE failed_logins (
    bmc      TEXT COLLATE "C" NOT NULL,
    account  TEXT COLLATE "C" NOT NULL,
    document TEXT NOT NULL,
    PRIMARY KEY (bmc, account)
);

-- Accounts whose passwords the cell made: the new one from before the BMC is given it, the one before until that is proven.
CREATE TABLE bmc_accounts (
    machine  TEXT COLLATE "C" NOT NULL REFERENCES machines (name) ON DELETE CASCADE,
    holder   TEXT COLLATE "C" NOT NULL,
    username TEXT NOT NULL,
    sealed   TEXT NOT NULL,
    previous TEXT,
    phase    TEXT NOT NULL,
    at       BIGINT NOT NULL,
    PRIMARY KEY (machine, holder)
);

INSERT INTO queue (machine, site, due)
    SELECT m.name, d.document::jsonb #>> '{spec,site}', 0
    FROM machines m JOIN declarations d ON d.kind = 'Machine' AND d.name = m.name;
