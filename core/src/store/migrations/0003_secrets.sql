-- Versions of tenants' secrets, sealed; and which of them a release runs with.
CREATE TABLE secrets (
    tenant     TEXT    NOT NULL REFERENCES tenants (id),
    name       TEXT    NOT NULL,
    version    INTEGER NOT NULL,
    -- Somebody else changes it: a rollback does not bring its old value back.
    external   INTEGER NOT NULL,
    -- Nonce and sealed value; absent in the version that removes it.
    sealed     BLOB,
    actor      TEXT    NOT NULL,
    created_at INTEGER NOT NULL,
    PRIMARY KEY (tenant, name, version)
) STRICT;

CREATE TRIGGER secrets_are_never_changed BEFORE UPDATE ON secrets
BEGIN SELECT RAISE(ABORT, 'a version of a secret is never changed'); END;

ALTER TABLE releases ADD COLUMN secrets TEXT NOT NULL DEFAULT '{}';
