-- Which CA bundle a node said that it trusts in its last heartbeat: the SHA-256 in hexadecimal digits.

-- +goose Up
ALTER TABLE reports ADD COLUMN ca_bundle_sha256 TEXT NOT NULL DEFAULT '';
