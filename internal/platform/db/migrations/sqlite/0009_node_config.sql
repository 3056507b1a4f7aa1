-- What the operator has set of a node beside its modules.

-- +goose Up
CREATE TABLE node_configs (
    node_id    TEXT    PRIMARY KEY REFERENCES nodes (id) ON DELETE CASCADE,
    -- A nodeapi.NodeConfig as JSON; its own digest, by which nodes know it, beside it.
    config     TEXT    NOT NULL,
    digest     TEXT    NOT NULL,
    changed_at INTEGER NOT NULL
) STRICT;
