-- Work for nodes, by leases. A node's list of modules has a number that grows with each change of it.

-- +goose Up
CREATE TABLE tasks (
    -- The order of creation.
    seq              INTEGER PRIMARY KEY AUTOINCREMENT,
    id               TEXT    NOT NULL UNIQUE,
    node_id          TEXT    NOT NULL REFERENCES nodes (id) ON DELETE CASCADE,
    kind             TEXT    NOT NULL,
    -- A JSON object.
    options          TEXT    NOT NULL,
    requested_by     TEXT    NOT NULL,
    created_at       INTEGER NOT NULL,
    deadline_seconds INTEGER NOT NULL,
    state            TEXT    NOT NULL DEFAULT 'pending' CHECK (state IN ('pending', 'leased', 'cancelling', 'complete', 'failed', 'cancelled')),
    -- What lease.Task says: the lease in force, or the one that ended the task.
    lease_id         TEXT    NOT NULL DEFAULT '',
    expires_at       INTEGER NOT NULL DEFAULT 0,
    begun            INTEGER NOT NULL DEFAULT 0,
    attempt          INTEGER NOT NULL DEFAULT 1,
    grants           INTEGER NOT NULL DEFAULT 0,
    -- When its node took it up first, and when it ended; 0 is not yet.
    begun_at         INTEGER NOT NULL DEFAULT 0,
    ended_at         INTEGER NOT NULL DEFAULT 0,
    cancelled_by     TEXT    NOT NULL DEFAULT '',
    percent          INTEGER NOT NULL DEFAULT 0,
    message          TEXT    NOT NULL DEFAULT '',
    code             TEXT    NOT NULL DEFAULT '',
    error            TEXT    NOT NULL DEFAULT '',
    -- A JSON object, or ''.
    result           TEXT    NOT NULL DEFAULT ''
) STRICT;
CREATE INDEX tasks_node ON tasks (node_id, seq);
CREATE INDEX tasks_open ON tasks (node_id, seq) WHERE state IN ('pending', 'leased', 'cancelling');

-- What a task has printed, as lease.Output has it.
CREATE TABLE task_outputs (
    task_id  TEXT    PRIMARY KEY REFERENCES tasks (id) ON DELETE CASCADE,
    text     TEXT    NOT NULL,
    known_to INTEGER NOT NULL,
    dropped  INTEGER NOT NULL
) STRICT;

-- What nodes tell of themselves.
CREATE TABLE node_events (
    seq         INTEGER PRIMARY KEY AUTOINCREMENT,
    node_id     TEXT    NOT NULL REFERENCES nodes (id) ON DELETE CASCADE,
    -- The node's own name of it: the same event may be sent again.
    event_id    TEXT    NOT NULL,
    received_at INTEGER NOT NULL,
    at          INTEGER NOT NULL,
    kind        TEXT    NOT NULL,
    severity    TEXT    NOT NULL CHECK (severity IN ('info', 'warning', 'error')),
    text        TEXT    NOT NULL,
    -- A JSON object of texts.
    fields      TEXT    NOT NULL,
    UNIQUE (node_id, event_id)
) STRICT;
CREATE INDEX node_events_node ON node_events (node_id, seq);

-- By which hash the node knows the state in its report, '' for none, and which configuration it has come to.
ALTER TABLE reports ADD COLUMN state_hash TEXT NOT NULL DEFAULT '';
ALTER TABLE reports ADD COLUMN config_digest TEXT NOT NULL DEFAULT '';

-- The number of a node's list of modules now, and when the node read it last.
ALTER TABLE nodes ADD COLUMN list_now INTEGER NOT NULL DEFAULT 0;
ALTER TABLE nodes ADD COLUMN list_read INTEGER NOT NULL DEFAULT 0;
-- +goose StatementBegin
CREATE TRIGGER assignments_added AFTER INSERT ON assignments BEGIN
    UPDATE nodes SET list_now = list_now + 1 WHERE id = NEW.node_id;
END;
-- +goose StatementEnd
-- +goose StatementBegin
CREATE TRIGGER assignments_changed AFTER UPDATE ON assignments BEGIN
    UPDATE nodes SET list_now = list_now + 1 WHERE id = NEW.node_id;
END;
-- +goose StatementEnd
-- +goose StatementBegin
CREATE TRIGGER assignments_removed AFTER DELETE ON assignments BEGIN
    UPDATE nodes SET list_now = list_now + 1 WHERE id = OLD.node_id;
END;
-- +goose StatementEnd
-- +goose StatementBegin
CREATE TRIGGER modules_changed AFTER UPDATE ON modules BEGIN
    UPDATE nodes SET list_now = list_now + 1 WHERE id IN (SELECT node_id FROM assignments WHERE module_id = NEW.id);
END;
-- +goose StatementEnd
