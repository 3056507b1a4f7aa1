-- What one looks for among many finds an index.

-- +goose Up
-- Those that haven't ended, of all nodes, the newest first.
CREATE INDEX tasks_open_all ON tasks (seq) WHERE state IN ('pending', 'leased', 'cancelling');
-- Those that are too old.
CREATE INDEX audit_at ON audit (at);
