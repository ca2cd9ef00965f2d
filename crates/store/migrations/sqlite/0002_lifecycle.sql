-- From enrolled to in service and back: who works on which machine, what it is used for, what was erased.

ALTER TABLE machines ADD COLUMN instance TEXT;
-- What the step under way has to remember; forgotten with the state.
ALTER TABLE machines ADD COLUMN work TEXT;
-- Its inventory has to be read again, however fresh it is.
ALTER TABLE machines ADD COLUMN stale INTEGER NOT NULL DEFAULT 0;

-- One row a machine. `due` is NULL while only something else brings it back; `woken` counts what brought it back, so that a
-- step that was under way meanwhile does not put it to sleep again; `epoch` fences out a replica that lost its lease.
CREATE TABLE queue (
    machine TEXT PRIMARY KEY REFERENCES machines (name) ON DELETE CASCADE,
    site    TEXT NOT NULL,
    due     INTEGER,
    woken   INTEGER NOT NULL DEFAULT 0,
    replica TEXT,
    epoch   INTEGER NOT NULL DEFAULT 0
) STRICT;
CREATE INDEX queue_by_due ON queue (site, due);

CREATE TABLE replicas (
    id    TEXT PRIMARY KEY,
    until INTEGER NOT NULL
) STRICT;

-- Kept when the machine is deleted: what was erased has to be told long after.
CREATE TABLE erasures (
    id       INTEGER PRIMARY KEY AUTOINCREMENT,
    machine  TEXT NOT NULL,
    at       INTEGER NOT NULL,
    document TEXT NOT NULL
) STRICT;
CREATE INDEX erasures_by_machine ON erasures (machine, id);

CREATE TRIGGER erasures_are_never_changed BEFORE UPDATE ON erasures
BEGIN
    SELECT RAISE(ABORT, 'erasures are append-only');
END;

CREATE TRIGGER erasures_are_never_deleted BEFORE DELETE ON erasures
BEGIN
    SELECT RAISE(ABORT, 'erasures are append-only');
END;

-- Failed logins of an account at a BMC, counted across all parts and replicas.
CREATE TABLE failed_logins (
    bmc      TEXT NOT NULL,
    account  TEXT NOT NULL,
    document TEXT NOT NULL,
    PRIMARY KEY (bmc, account)
) STRICT;

-- Accounts whose passwords the cell made: the new one from before the BMC is given it, the one before until that is proven.
CREATE TABLE bmc_accounts (
    machine  TEXT NOT NULL REFERENCES machines (name) ON DELETE CASCADE,
    holder   TEXT NOT NULL,
    username TEXT NOT NULL,
    sealed   TEXT NOT NULL,
    previous TEXT,
    phase    TEXT NOT NULL,
    at       INTEGER NOT NULL,
    PRIMARY KEY (machine, holder)
) STRICT;

INSERT INTO queue (machine, site, due)
    SELECT m.name, d.document ->> '$.spec.site', 0 FROM machines m JOIN declarations d ON d.kind = 'Machine' AND d.name = m.name;
