-- Agents on machines: who may report, what they said last, and what the driver told them of the GPUs.

-- Keys that the cell signs with, one row a purpose, made once. The certificate is NULL for a key that has none.
CREATE TABLE authorities (
    purpose     TEXT PRIMARY KEY,
    certificate TEXT,
    sealed      TEXT NOT NULL
) STRICT;

-- One-time tokens. `used_by` is the digest of the key that the token was used with: the same key may ask again, should the
-- first answer have been lost.
CREATE TABLE agent_tokens (
    digest     TEXT PRIMARY KEY,
    machine    TEXT NOT NULL REFERENCES machines (name) ON DELETE CASCADE,
    expires_at INTEGER NOT NULL,
    used_by    TEXT
) STRICT;
CREATE INDEX agent_tokens_by_machine ON agent_tokens (machine);

-- One row a machine with an agent, gone when the machine is set aside, erased or installed anew. `enrolment` is in every
-- certificate of the agent, so that those of an earlier enrolment are known; `said` is the digest of the last report, NULL
-- while its probe is not here; `until` is when its silence counts, and `alive` is 0 from then on.
CREATE TABLE agents (
    machine     TEXT PRIMARY KEY REFERENCES machines (name) ON DELETE CASCADE,
    enrolment   TEXT NOT NULL,
    enrolled_at INTEGER NOT NULL,
    report      TEXT,
    said        TEXT,
    registered  INTEGER,
    reported_at INTEGER,
    until       INTEGER NOT NULL DEFAULT 0,
    alive       INTEGER NOT NULL DEFAULT 0
) STRICT;
CREATE INDEX agents_by_until ON agents (alive, until);

CREATE TABLE probes (
    machine  TEXT PRIMARY KEY REFERENCES agents (machine) ON DELETE CASCADE,
    digest   TEXT NOT NULL,
    document TEXT NOT NULL,
    at       INTEGER NOT NULL
) STRICT;
