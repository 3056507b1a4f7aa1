-- Machines without a token that ask to become a node. A row lives as long as its machine asks.

-- +goose Up
CREATE TABLE claims (
    id            TEXT    PRIMARY KEY,
    -- What the machine shows and the operator types.
    code          TEXT    NOT NULL UNIQUE,
    mac           TEXT    NOT NULL,
    -- The hash of the machine's own secret, empty where it sent none. Two machines that say one MAC
    -- have two rows.
    key_hash      BLOB    NOT NULL,
    dmi_uuid      TEXT    NOT NULL,
    hostname      TEXT    NOT NULL,
    agent_version TEXT    NOT NULL,
    architecture  TEXT    NOT NULL,
    platform_hint TEXT    NOT NULL,
    -- The address of the last poll.
    heard_from    TEXT    NOT NULL,
    created_at    INTEGER NOT NULL,
    polled_at     INTEGER NOT NULL,
    expires_at    INTEGER NOT NULL,
    -- An accepted one of which a token was used is done.
    state         TEXT    NOT NULL DEFAULT 'pending' CHECK (state IN ('pending', 'accepted', 'rejected')),
    node_id       TEXT    REFERENCES nodes (id) ON DELETE SET NULL,
    UNIQUE (mac, key_hash)
) STRICT;
CREATE INDEX claims_expiry ON claims (expires_at);
CREATE INDEX claims_address ON claims (heard_from);
CREATE INDEX claims_node ON claims (node_id) WHERE node_id IS NOT NULL;
ALTER TABLE tokens ADD COLUMN claim_id TEXT REFERENCES claims (id) ON DELETE SET NULL;
CREATE INDEX tokens_claim ON tokens (claim_id) WHERE claim_id IS NOT NULL;
