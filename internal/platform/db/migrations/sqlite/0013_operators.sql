-- Operators' named tokens, what operators did, and the root digests that a node's assignments explain.

-- +goose Up
CREATE TABLE operator_tokens (
    name       TEXT PRIMARY KEY,
    role       TEXT    NOT NULL CHECK (role IN ('read', 'deploy', 'admin')),
    token_hash BLOB    NOT NULL UNIQUE,
    created_at INTEGER NOT NULL,
    created_by TEXT    NOT NULL
) STRICT;

CREATE TABLE audit (
    id         INTEGER PRIMARY KEY AUTOINCREMENT,
    at         INTEGER NOT NULL,
    -- The name of the token, and its role then.
    actor      TEXT    NOT NULL,
    role       TEXT    NOT NULL,
    address    TEXT    NOT NULL,
    action     TEXT    NOT NULL,
    target     TEXT    NOT NULL,
    -- The beginning of what was asked for.
    request    TEXT    NOT NULL,
    -- 'ok', or the code of the error.
    result     TEXT    NOT NULL,
    error      TEXT    NOT NULL,
    request_id TEXT    NOT NULL
) STRICT;
CREATE INDEX audit_actor ON audit (actor, id);

-- The root digests that the platform has expected of each node.
CREATE TABLE node_roots (
    node_id     TEXT    NOT NULL REFERENCES nodes (id) ON DELETE CASCADE,
    root_digest TEXT    NOT NULL,
    expected_at INTEGER NOT NULL,
    PRIMARY KEY (node_id, root_digest)
) STRICT;
-- What ran before there was this table can't be told from drift any more: it counts as explained.
INSERT INTO node_roots SELECT node_id, root_digest, received_at FROM reports WHERE root_digest <> '';
