-- What platforms over one database have in common of their certificate authority.

-- +goose Up
CREATE TABLE authorities (
    one     INTEGER PRIMARY KEY CHECK (one = 1),
    version BIGINT  NOT NULL,
    -- The ID of the first authority.
    origin  TEXT    NOT NULL,
    -- The authorities with their keys, encrypted by a secret that isn't here; NULL where they aren't shared.
    sealed  BYTEA
);
