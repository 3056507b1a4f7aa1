-- The life of a certificate beyond its making: first use, succession, and what the machine that uses
-- it says of itself. Renewals are what nodes with an ended certificate ask an operator for.

-- +goose Up
ALTER TABLE certificates ADD COLUMN used_at INTEGER;
ALTER TABLE certificates ADD COLUMN superseded_at INTEGER;
ALTER TABLE certificates ADD COLUMN origin TEXT NOT NULL DEFAULT 'enroll' CHECK (origin IN ('enroll', 'refresh', 'renew'));
-- The machine that used the certificate first; '' while it hasn't said.
ALTER TABLE certificates ADD COLUMN dmi_uuid TEXT NOT NULL DEFAULT '';
ALTER TABLE certificates ADD COLUMN vm_generation_id TEXT NOT NULL DEFAULT '';
CREATE INDEX certificates_key ON certificates (key_hash);

CREATE TABLE renewals (
    id             TEXT PRIMARY KEY,
    node_id        TEXT    NOT NULL REFERENCES nodes (id) ON DELETE CASCADE,
    certificate_id TEXT    NOT NULL REFERENCES certificates (id) ON DELETE CASCADE,
    key_hash       BLOB    NOT NULL,
    reason         TEXT    NOT NULL CHECK (reason IN ('expired', 'superseded')),
    state          TEXT    NOT NULL DEFAULT 'waiting' CHECK (state IN ('waiting', 'approved', 'denied')),
    asked_at       INTEGER NOT NULL,
    last_asked_at  INTEGER NOT NULL,
    asked_from     TEXT    NOT NULL,
    dmi_uuid       TEXT    NOT NULL,
    agent_version  TEXT    NOT NULL,
    decided_at     INTEGER,
    UNIQUE (certificate_id, key_hash)
) STRICT;
CREATE INDEX renewals_node ON renewals (node_id, asked_at);

-- The boot IDs that a node's heartbeats had, the last ones.
CREATE TABLE boot_ids (
    id      INTEGER PRIMARY KEY AUTOINCREMENT,
    node_id TEXT    NOT NULL REFERENCES nodes (id) ON DELETE CASCADE,
    boot_id TEXT    NOT NULL,
    seen_at INTEGER NOT NULL,
    UNIQUE (node_id, boot_id)
) STRICT;
INSERT INTO boot_ids (node_id, boot_id, seen_at) SELECT node_id, boot_id, received_at FROM reports;

-- Why an operator should look at a node, once for each kind, until it is cleared.
CREATE TABLE attention (
    node_id TEXT    NOT NULL REFERENCES nodes (id) ON DELETE CASCADE,
    kind    TEXT    NOT NULL,
    at      INTEGER NOT NULL,
    text    TEXT    NOT NULL,
    PRIMARY KEY (node_id, kind)
) STRICT, WITHOUT ROWID;
