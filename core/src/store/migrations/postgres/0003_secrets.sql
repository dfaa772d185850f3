-- Versions of tenants' secrets, sealed; and which of them a release runs with.
CREATE TABLE secrets (
    tenant     TEXT COLLATE "C" NOT NULL REFERENCES tenants (id),
    name       TEXT COLLATE "C" NOT NULL,
    version    BIGINT NOT NULL,
    -- Somebody else changes it: a rollback does not bring its old value back.
    external   BIGINT NOT NULL,
    -- Nonce and sealed value; absent in the version that removes it.
    sealed     BYTEA,
    actor      TEXT   NOT NULL,
    created_at BIGINT NOT NULL,
    PRIMARY KEY (tenant, name, version)
);

CREATE TRIGGER secrets_are_never_changed BEFORE UPDATE ON secrets
FOR EACH ROW EXECUTE FUNCTION refuse('a version of a secret is never changed');

ALTER TABLE releases ADD COLUMN secrets TEXT NOT NULL DEFAULT '{}';
