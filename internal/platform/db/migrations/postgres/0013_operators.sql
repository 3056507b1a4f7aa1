-- Operators' named tokens, what operators did, and the root digests that a node's assignments explain.

-- +goose Up
CREATE TABLE operator_tokens (
    name       TEXT COLLATE "C" PRIMARY KEY,
    role       TEXT    NOT NULL CHECK (role IN ('read', 'deploy', 'admin')),
    token_hash BYTEA   NOT NULL UNIQUE,
    created_at BIGINT  NOT NULL,
    created_by TEXT    NOT NULL
);

CREATE TABLE audit (
    id         BIGINT GENERATED ALWAYS AS IDENTITY PRIMARY KEY,
    at         BIGINT  NOT NULL,
    -- The name of the token, and its role then.
    actor      TEXT COLLATE "C"    NOT NULL,
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
);
CREATE INDEX audit_actor ON audit (actor, id);

-- The root digests that the platform has expected of each node.
CREATE TABLE node_roots (
    node_id     TEXT COLLATE "C"    NOT NULL REFERENCES nodes (id) ON DELETE CASCADE,
    root_digest TEXT COLLATE "C"    NOT NULL,
    expected_at BIGINT  NOT NULL,
    PRIMARY KEY (node_id, root_digest)
);
-- What ran before there was this table can't be told from drift any more: it counts as explained.
INSERT INTO node_roots SELECT node_id, root_digest, received_at FROM reports WHERE root_digest <> '';
