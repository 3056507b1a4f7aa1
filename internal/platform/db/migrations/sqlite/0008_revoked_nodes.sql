-- When an operator last revoked all of a node: that counts for certificates, too, that the database had lost and that are
-- shown only later.

-- +goose Up
ALTER TABLE nodes ADD COLUMN revoked_at INTEGER;
