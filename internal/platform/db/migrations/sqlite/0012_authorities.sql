-- What platforms over one database have in common of their certificate authority. SQLite has one platform; the table is
-- there so that both databases have the same.

-- +goose Up
CREATE TABLE authorities (
    one     INTEGER PRIMARY KEY CHECK (one = 1),
    version INTEGER NOT NULL,
    -- The ID of the first authority.
    origin  TEXT    NOT NULL,
    -- The authorities with their keys, encrypted by a secret that isn't here; NULL where they aren't shared.
    sealed  BLOB
) STRICT;
