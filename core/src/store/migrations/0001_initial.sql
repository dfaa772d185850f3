-- Times are milliseconds since the epoch. JSON columns hold versioned records of this server.

CREATE TABLE tenants (
    id          TEXT    NOT NULL PRIMARY KEY,
    name        TEXT    NOT NULL,
    port        INTEGER NOT NULL,
    -- The deployment whose release serves; set in the same transaction as its state `verified`.
    live        INTEGER,
    last_number INTEGER NOT NULL DEFAULT 0,
    -- Counts every accepted deployment; an executor with an older one may change nothing.
    generation  INTEGER NOT NULL DEFAULT 0,
    created_at  INTEGER NOT NULL,
    -- A deleted tenant's id is never given out again: its repository and history stay its own.
    deleted_at  INTEGER
) STRICT;

CREATE UNIQUE INDEX tenant_ports ON tenants (port) WHERE deleted_at IS NULL;

-- A release is a capsule: everything it takes to run it again.
CREATE TABLE releases (
    id          INTEGER NOT NULL PRIMARY KEY,
    tenant      TEXT    NOT NULL REFERENCES tenants (id),
    fingerprint TEXT    NOT NULL,
    digest      TEXT    NOT NULL,
    env         TEXT    NOT NULL,
    health      TEXT    NOT NULL,
    created_at  INTEGER NOT NULL,
    UNIQUE (tenant, fingerprint)
) STRICT;

CREATE TABLE deployments (
    tenant          TEXT    NOT NULL REFERENCES tenants (id),
    number          INTEGER NOT NULL,
    generation      INTEGER NOT NULL,
    kind            TEXT    NOT NULL,
    state           TEXT    NOT NULL,
    image           TEXT    NOT NULL,
    tag             TEXT,
    release_id      INTEGER NOT NULL REFERENCES releases (id),
    strategy        TEXT    NOT NULL,
    timeout_seconds INTEGER NOT NULL,
    previous        INTEGER,
    restores        INTEGER,
    actor           TEXT    NOT NULL,
    source          TEXT,
    failure         TEXT,
    created_at      INTEGER NOT NULL,
    updated_at      INTEGER NOT NULL,
    finished_at     INTEGER,
    PRIMARY KEY (tenant, number)
) STRICT;

-- The lock of a tenant: two unfinished deployments cannot be written.
CREATE UNIQUE INDEX one_running_deployment ON deployments (tenant) WHERE finished_at IS NULL;

CREATE TABLE events (
    tenant  TEXT    NOT NULL,
    number  INTEGER NOT NULL,
    seq     INTEGER NOT NULL,
    state   TEXT    NOT NULL,
    message TEXT    NOT NULL,
    at      INTEGER NOT NULL,
    PRIMARY KEY (tenant, number, seq),
    FOREIGN KEY (tenant, number) REFERENCES deployments (tenant, number)
) STRICT;

CREATE TRIGGER events_are_append_only_update BEFORE UPDATE ON events
BEGIN SELECT RAISE(ABORT, 'events are append-only'); END;

CREATE TRIGGER events_are_append_only_delete BEFORE DELETE ON events
BEGIN SELECT RAISE(ABORT, 'events are append-only'); END;

CREATE TABLE tokens (
    id         TEXT    NOT NULL PRIMARY KEY,
    -- SHA-256 of the secret part; the secret itself is nowhere.
    hash       BLOB    NOT NULL,
    kind       TEXT    NOT NULL,
    name       TEXT    NOT NULL,
    role       TEXT    NOT NULL,
    tenant     TEXT    REFERENCES tenants (id),
    -- The token this one was derived from; it ends with it.
    parent     TEXT    REFERENCES tokens (id),
    created_at INTEGER NOT NULL,
    expires_at INTEGER,
    revoked_at INTEGER
) STRICT;

CREATE TABLE idempotency (
    scope      TEXT    NOT NULL,
    key        TEXT    NOT NULL,
    body_hash  BLOB    NOT NULL,
    -- Absent while the first request is in flight.
    status     INTEGER,
    location   TEXT,
    answer     TEXT,
    created_at INTEGER NOT NULL,
    PRIMARY KEY (scope, key)
) STRICT;
