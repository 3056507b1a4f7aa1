-- What an operator says is meant, although a node would take it for a mistake.

-- +goose Up
-- The version of the module that the node may go down to; '' is none. Another version has to be allowed anew.
ALTER TABLE assignments ADD COLUMN downgrade_to TEXT NOT NULL DEFAULT '';
-- Whether the node may lose most of its modules at once, until it runs none that isn't assigned.
ALTER TABLE nodes ADD COLUMN remove_most INTEGER NOT NULL DEFAULT 0;
