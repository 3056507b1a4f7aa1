-- Until when a task may wait for its node.

-- +goose Up
-- 0 is without an end: those that were asked for before there was one were asked for so.
ALTER TABLE tasks ADD COLUMN good_until INTEGER NOT NULL DEFAULT 0;
CREATE INDEX tasks_until ON tasks (good_until) WHERE state IN ('pending', 'leased', 'cancelling');
