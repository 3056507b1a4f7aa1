-- All that SQLite's migrations up to this number have made: their files say what each column means. Times are
-- milliseconds since the epoch. Texts that are names compare by their bytes, as SQLite's do.

-- +goose Up
CREATE TABLE operator (
    one        INTEGER PRIMARY KEY CHECK (one = 1),
    token_hash BYTEA   NOT NULL,
    created_at BIGINT  NOT NULL
);

CREATE TABLE nodes (
    id           TEXT COLLATE "C" PRIMARY KEY,
    name         TEXT COLLATE "C" NOT NULL UNIQUE,
    architecture TEXT    NOT NULL DEFAULT '' CHECK (architecture IN ('', 'amd64', 'arm64')),
    state        TEXT    NOT NULL DEFAULT 'active' CHECK (state IN ('active', 'terminated')),
    created_at   BIGINT  NOT NULL,
    revoked_at   BIGINT,
    remove_most  BOOLEAN NOT NULL DEFAULT FALSE
);

CREATE TABLE reports (
    node_id          TEXT COLLATE "C" PRIMARY KEY REFERENCES nodes (id) ON DELETE CASCADE,
    received_at      BIGINT NOT NULL,
    boot_id          TEXT   NOT NULL,
    agent_version    TEXT   NOT NULL,
    architecture     TEXT   NOT NULL,
    uptime_seconds   BIGINT NOT NULL,
    module_digests   TEXT   NOT NULL,
    mount_state      TEXT   NOT NULL,
    load_average     TEXT   NOT NULL,
    memory_free_kb   BIGINT NOT NULL,
    root_digest      TEXT   NOT NULL,
    integrity_level  TEXT   NOT NULL,
    generation       BIGINT NOT NULL,
    remarks          TEXT   NOT NULL DEFAULT '[]',
    ca_bundle_sha256 TEXT   NOT NULL DEFAULT ''
) WITH (fillfactor = 70); -- each heartbeat writes its row anew, on the same page

CREATE TABLE certificates (
    -- The order in which they were put on file; SQLite has it by itself.
    rowid            BIGINT GENERATED ALWAYS AS IDENTITY UNIQUE,
    id               TEXT COLLATE "C" PRIMARY KEY,
    node_id          TEXT COLLATE "C" NOT NULL REFERENCES nodes (id) ON DELETE CASCADE,
    serial           TEXT COLLATE "C" NOT NULL UNIQUE,
    fingerprint      BYTEA   NOT NULL UNIQUE,
    key_hash         BYTEA   NOT NULL,
    pem              TEXT    NOT NULL,
    not_before       BIGINT  NOT NULL,
    not_after        BIGINT  NOT NULL,
    created_at       BIGINT  NOT NULL,
    revoked_at       BIGINT,
    used_at          BIGINT,
    superseded_at    BIGINT,
    origin           TEXT    NOT NULL DEFAULT 'enroll' CHECK (origin IN ('enroll', 'refresh', 'renew')),
    dmi_uuid         TEXT    NOT NULL DEFAULT '',
    vm_generation_id TEXT    NOT NULL DEFAULT '',
    unfiled          BOOLEAN NOT NULL DEFAULT FALSE
);
CREATE INDEX certificates_node ON certificates (node_id, created_at);
CREATE INDEX certificates_key ON certificates (key_hash);

CREATE TABLE claims (
    id            TEXT COLLATE "C" PRIMARY KEY,
    code          TEXT COLLATE "C" NOT NULL UNIQUE,
    mac           TEXT COLLATE "C" NOT NULL,
    key_hash      BYTEA  NOT NULL,
    dmi_uuid      TEXT   NOT NULL,
    hostname      TEXT   NOT NULL,
    agent_version TEXT   NOT NULL,
    architecture  TEXT   NOT NULL,
    platform_hint TEXT   NOT NULL,
    heard_from    TEXT   NOT NULL,
    created_at    BIGINT NOT NULL,
    polled_at     BIGINT NOT NULL,
    expires_at    BIGINT NOT NULL,
    state         TEXT   NOT NULL DEFAULT 'pending' CHECK (state IN ('pending', 'accepted', 'rejected')),
    node_id       TEXT COLLATE "C" REFERENCES nodes (id) ON DELETE SET NULL,
    network       TEXT   NOT NULL DEFAULT '',
    site          TEXT   NOT NULL DEFAULT '',
    UNIQUE (mac, key_hash)
);
CREATE INDEX claims_expiry ON claims (expires_at);
CREATE INDEX claims_network ON claims (network);
CREATE INDEX claims_site ON claims (site);
CREATE INDEX claims_node ON claims (node_id) WHERE node_id IS NOT NULL;

CREATE TABLE tokens (
    id             TEXT COLLATE "C" PRIMARY KEY,
    node_id        TEXT COLLATE "C" NOT NULL REFERENCES nodes (id) ON DELETE CASCADE,
    hash           BYTEA  NOT NULL UNIQUE,
    created_at     BIGINT NOT NULL,
    expires_at     BIGINT NOT NULL,
    used_at        BIGINT,
    certificate_id TEXT COLLATE "C" REFERENCES certificates (id),
    claim_id       TEXT COLLATE "C" REFERENCES claims (id) ON DELETE SET NULL
);
CREATE INDEX tokens_node ON tokens (node_id);
CREATE INDEX tokens_certificate ON tokens (certificate_id) WHERE certificate_id IS NOT NULL;
CREATE INDEX tokens_claim ON tokens (claim_id) WHERE claim_id IS NOT NULL;

CREATE TABLE modules (
    id                TEXT COLLATE "C" PRIMARY KEY,
    name              TEXT COLLATE "C" NOT NULL UNIQUE,
    variety           TEXT   NOT NULL CHECK (variety IN ('subscription', 'config', 'instance')),
    category_position BIGINT NOT NULL,
    priority          BIGINT NOT NULL,
    version_id        TEXT COLLATE "C" NOT NULL,
    created_at        BIGINT NOT NULL
);

CREATE TABLE versions (
    id              TEXT COLLATE "C" PRIMARY KEY,
    module_id       TEXT COLLATE "C" NOT NULL REFERENCES modules (id) ON DELETE CASCADE,
    version         TEXT COLLATE "C" NOT NULL,
    repository      TEXT COLLATE "C" NOT NULL,
    digest          TEXT COLLATE "C" NOT NULL,
    reboot_required BOOLEAN NOT NULL,
    created_at      BIGINT  NOT NULL,
    UNIQUE (module_id, version)
);
CREATE INDEX versions_repository ON versions (repository);
ALTER TABLE modules ADD FOREIGN KEY (version_id) REFERENCES versions (id) DEFERRABLE INITIALLY DEFERRED;

CREATE TABLE images (
    version_id      TEXT COLLATE "C" NOT NULL REFERENCES versions (id) ON DELETE CASCADE,
    architecture    TEXT COLLATE "C" NOT NULL CHECK (architecture IN ('amd64', 'arm64', 'all')),
    manifest_digest TEXT NOT NULL,
    seal            TEXT NOT NULL,
    manifest        TEXT NOT NULL,
    PRIMARY KEY (version_id, architecture)
);

CREATE TABLE assignments (
    node_id      TEXT COLLATE "C" NOT NULL REFERENCES nodes (id) ON DELETE CASCADE,
    module_id    TEXT COLLATE "C" NOT NULL REFERENCES modules (id),
    created_at   BIGINT NOT NULL,
    downgrade_to TEXT COLLATE "C" NOT NULL DEFAULT '',
    PRIMARY KEY (node_id, module_id)
);
CREATE INDEX assignments_module ON assignments (module_id);

CREATE TABLE roots (
    input_hash  BYTEA PRIMARY KEY,
    root_digest TEXT   NOT NULL,
    refusal     TEXT   NOT NULL,
    conflicts   TEXT   NOT NULL,
    computed_at BIGINT NOT NULL
);
CREATE INDEX roots_computed ON roots (computed_at);

CREATE TABLE events (
    id      BIGINT GENERATED ALWAYS AS IDENTITY PRIMARY KEY,
    at      BIGINT NOT NULL,
    kind    TEXT COLLATE "C" NOT NULL,
    node_id TEXT COLLATE "C" NOT NULL DEFAULT '',
    text    TEXT   NOT NULL
);
CREATE INDEX events_node ON events (node_id, id);

CREATE TABLE boots (
    id          BIGINT GENERATED ALWAYS AS IDENTITY PRIMARY KEY,
    node_id     TEXT COLLATE "C" NOT NULL REFERENCES nodes (id) ON DELETE CASCADE,
    boot_id     TEXT COLLATE "C" NOT NULL,
    received_at BIGINT NOT NULL,
    report      TEXT   NOT NULL,
    UNIQUE (node_id, boot_id)
);

CREATE TABLE boot_ids (
    id      BIGINT GENERATED ALWAYS AS IDENTITY PRIMARY KEY,
    node_id TEXT COLLATE "C" NOT NULL REFERENCES nodes (id) ON DELETE CASCADE,
    boot_id TEXT COLLATE "C" NOT NULL,
    seen_at BIGINT NOT NULL,
    UNIQUE (node_id, boot_id)
);

CREATE TABLE renewals (
    id             TEXT COLLATE "C" PRIMARY KEY,
    node_id        TEXT COLLATE "C" NOT NULL REFERENCES nodes (id) ON DELETE CASCADE,
    certificate_id TEXT COLLATE "C" NOT NULL REFERENCES certificates (id) ON DELETE CASCADE,
    key_hash       BYTEA  NOT NULL,
    reason         TEXT   NOT NULL CHECK (reason IN ('expired', 'superseded')),
    state          TEXT   NOT NULL DEFAULT 'waiting' CHECK (state IN ('waiting', 'approved', 'denied')),
    asked_at       BIGINT NOT NULL,
    last_asked_at  BIGINT NOT NULL,
    asked_from     TEXT   NOT NULL,
    dmi_uuid       TEXT   NOT NULL,
    agent_version  TEXT   NOT NULL,
    decided_at     BIGINT,
    UNIQUE (certificate_id, key_hash)
);
CREATE INDEX renewals_node ON renewals (node_id, asked_at);

CREATE TABLE attention (
    node_id TEXT COLLATE "C" NOT NULL REFERENCES nodes (id) ON DELETE CASCADE,
    kind    TEXT COLLATE "C" NOT NULL,
    at      BIGINT NOT NULL,
    text    TEXT   NOT NULL,
    PRIMARY KEY (node_id, kind)
);

CREATE TABLE node_configs (
    node_id    TEXT COLLATE "C" PRIMARY KEY REFERENCES nodes (id) ON DELETE CASCADE,
    config     TEXT   NOT NULL,
    digest     TEXT   NOT NULL,
    changed_at BIGINT NOT NULL
);

CREATE TABLE registry_blobs (
    repository TEXT COLLATE "C" NOT NULL,
    digest     TEXT COLLATE "C" NOT NULL,
    size       BIGINT NOT NULL,
    PRIMARY KEY (repository, digest)
);

CREATE TABLE registry_manifests (
    repository    TEXT COLLATE "C" NOT NULL,
    digest        TEXT COLLATE "C" NOT NULL,
    size          BIGINT NOT NULL,
    media_type    TEXT   NOT NULL,
    subject       TEXT COLLATE "C" NOT NULL DEFAULT '',
    artifact_type TEXT   NOT NULL DEFAULT '',
    annotations   TEXT   NOT NULL DEFAULT '',
    PRIMARY KEY (repository, digest)
);
CREATE INDEX registry_referrers ON registry_manifests (repository, subject, digest) WHERE subject <> '';

CREATE TABLE registry_tags (
    repository TEXT COLLATE "C" NOT NULL,
    tag        TEXT COLLATE "C" NOT NULL,
    digest     TEXT COLLATE "C" NOT NULL,
    PRIMARY KEY (repository, tag),
    FOREIGN KEY (repository, digest) REFERENCES registry_manifests (repository, digest)
);
