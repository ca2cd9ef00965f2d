-- Where GPUs were accepted, by whom: one row an identity of each (`serial/…`, `uuid/…`, `certificate/…`). `gpu` tells those of one
-- machine apart.
CREATE TABLE accepted_gpus (
    machine  TEXT COLLATE "C" NOT NULL REFERENCES machines (name) ON DELETE CASCADE,
    gpu      TEXT NOT NULL,
    identity TEXT NOT NULL,
    actor    TEXT NOT NULL,
    at       BIGINT NOT NULL,
    PRIMARY KEY (machine, gpu, identity)
);
CREATE INDEX accepted_gpus_by_identity ON accepted_gpus (identity);

-- Until when the probe that is here counts as what the agent tells: each report that names its digest renews it.
ALTER TABLE agents ADD COLUMN probe_until BIGINT NOT NULL DEFAULT 0;
