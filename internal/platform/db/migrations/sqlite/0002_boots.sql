-- What the last boots of each node said of themselves, as JSON. A boot that is reported again keeps
-- its place.

-- +goose Up
CREATE TABLE boots (
    id          INTEGER PRIMARY KEY AUTOINCREMENT,
    node_id     TEXT    NOT NULL REFERENCES nodes (id) ON DELETE CASCADE,
    boot_id     TEXT    NOT NULL,
    received_at INTEGER NOT NULL,
    report      TEXT    NOT NULL,
    UNIQUE (node_id, boot_id)
) STRICT;
