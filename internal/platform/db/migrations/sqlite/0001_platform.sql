-- Times are milliseconds since the epoch. Hashes are blobs of 32 bytes. IDs are UUIDs.

-- +goose Up
CREATE TABLE operator (
    -- One row: the hash of the operator token.
    one        INTEGER PRIMARY KEY CHECK (one = 1),
    token_hash BLOB    NOT NULL,
    created_at INTEGER NOT NULL
) STRICT;

CREATE TABLE nodes (
    id           TEXT PRIMARY KEY,
    name         TEXT NOT NULL UNIQUE,
    architecture TEXT NOT NULL DEFAULT '' CHECK (architecture IN ('', 'amd64', 'arm64')),
    state        TEXT NOT NULL DEFAULT 'active' CHECK (state IN ('active', 'terminated')),
    created_at   INTEGER NOT NULL
) STRICT;

-- The last heartbeat of each node.
CREATE TABLE reports (
    node_id         TEXT PRIMARY KEY REFERENCES nodes (id) ON DELETE CASCADE,
    received_at     INTEGER NOT NULL,
    boot_id         TEXT    NOT NULL,
    agent_version   TEXT    NOT NULL,
    architecture    TEXT    NOT NULL,
    uptime_seconds  INTEGER NOT NULL,
    module_digests  TEXT    NOT NULL,
    mount_state     TEXT    NOT NULL,
    load_average    TEXT    NOT NULL,
    memory_free_kb  INTEGER NOT NULL,
    root_digest     TEXT    NOT NULL,
    integrity_level TEXT    NOT NULL,
    generation      INTEGER NOT NULL
) STRICT;

CREATE TABLE certificates (
    id          TEXT PRIMARY KEY,
    node_id     TEXT    NOT NULL REFERENCES nodes (id) ON DELETE CASCADE,
    serial      TEXT    NOT NULL UNIQUE,
    fingerprint BLOB    NOT NULL UNIQUE,
    key_hash    BLOB    NOT NULL,
    pem         TEXT    NOT NULL,
    not_before  INTEGER NOT NULL,
    not_after   INTEGER NOT NULL,
    created_at  INTEGER NOT NULL,
    revoked_at  INTEGER
) STRICT;
CREATE INDEX certificates_node ON certificates (node_id, created_at);

CREATE TABLE tokens (
    id             TEXT PRIMARY KEY,
    node_id        TEXT    NOT NULL REFERENCES nodes (id) ON DELETE CASCADE,
    hash           BLOB    NOT NULL UNIQUE,
    created_at     INTEGER NOT NULL,
    expires_at     INTEGER NOT NULL,
    -- Both are set when the token is used, in the transaction that issues the certificate.
    used_at        INTEGER,
    certificate_id TEXT REFERENCES certificates (id)
) STRICT;

CREATE TABLE modules (
    id                TEXT PRIMARY KEY,
    name              TEXT    NOT NULL UNIQUE,
    variety           TEXT    NOT NULL CHECK (variety IN ('subscription', 'config', 'instance')),
    category_position INTEGER NOT NULL,
    priority          INTEGER NOT NULL,
    version_id        TEXT    NOT NULL REFERENCES versions (id) DEFERRABLE INITIALLY DEFERRED,
    created_at        INTEGER NOT NULL
) STRICT;

CREATE TABLE versions (
    id              TEXT PRIMARY KEY,
    module_id       TEXT    NOT NULL REFERENCES modules (id) ON DELETE CASCADE,
    version         TEXT    NOT NULL,
    repository      TEXT    NOT NULL,
    digest          TEXT    NOT NULL,
    reboot_required INTEGER NOT NULL,
    created_at      INTEGER NOT NULL,
    UNIQUE (module_id, version)
) STRICT;
CREATE INDEX versions_repository ON versions (repository);

-- What a version is on each architecture.
CREATE TABLE images (
    version_id      TEXT NOT NULL REFERENCES versions (id) ON DELETE CASCADE,
    architecture    TEXT NOT NULL CHECK (architecture IN ('amd64', 'arm64', 'all')),
    manifest_digest TEXT NOT NULL,
    seal            TEXT NOT NULL,
    manifest        TEXT NOT NULL,
    PRIMARY KEY (version_id, architecture)
) STRICT;

CREATE TABLE assignments (
    node_id    TEXT    NOT NULL REFERENCES nodes (id) ON DELETE CASCADE,
    module_id  TEXT    NOT NULL REFERENCES modules (id),
    created_at INTEGER NOT NULL,
    PRIMARY KEY (node_id, module_id)
) STRICT;
CREATE INDEX assignments_module ON assignments (module_id);

-- Compositions that were computed, by the hash of what went into them. Either root_digest is set,
-- or refusal says why these modules make no composition.
CREATE TABLE roots (
    input_hash  BLOB PRIMARY KEY,
    root_digest TEXT    NOT NULL,
    refusal     TEXT    NOT NULL,
    conflicts   TEXT    NOT NULL,
    computed_at INTEGER NOT NULL
) STRICT;
CREATE INDEX roots_computed ON roots (computed_at);

CREATE TABLE events (
    id      INTEGER PRIMARY KEY AUTOINCREMENT,
    at      INTEGER NOT NULL,
    kind    TEXT    NOT NULL,
    node_id TEXT    NOT NULL DEFAULT '',
    text    TEXT    NOT NULL
) STRICT;
CREATE INDEX events_node ON events (node_id, id);

-- The registry: which content a repository holds. The bytes lie in files by digest.
CREATE TABLE registry_blobs (
    repository TEXT    NOT NULL,
    digest     TEXT    NOT NULL,
    size       INTEGER NOT NULL,
    PRIMARY KEY (repository, digest)
) STRICT, WITHOUT ROWID;

CREATE TABLE registry_manifests (
    repository    TEXT    NOT NULL,
    digest        TEXT    NOT NULL,
    size          INTEGER NOT NULL,
    media_type    TEXT    NOT NULL,
    -- What the referrers API tells of a manifest with a subject.
    subject       TEXT    NOT NULL DEFAULT '',
    artifact_type TEXT    NOT NULL DEFAULT '',
    annotations   TEXT    NOT NULL DEFAULT '',
    PRIMARY KEY (repository, digest)
) STRICT, WITHOUT ROWID;
CREATE INDEX registry_referrers ON registry_manifests (repository, subject, digest) WHERE subject <> '';

CREATE TABLE registry_tags (
    repository TEXT NOT NULL,
    tag        TEXT NOT NULL,
    digest     TEXT NOT NULL,
    PRIMARY KEY (repository, tag),
    FOREIGN KEY (repository, digest) REFERENCES registry_manifests (repository, digest)
) STRICT, WITHOUT ROWID;
