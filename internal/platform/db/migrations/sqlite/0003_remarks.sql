-- What a node says in its last heartbeat that an operator should know, as a JSON list.

-- +goose Up
ALTER TABLE reports ADD COLUMN remarks TEXT NOT NULL DEFAULT '[]';
