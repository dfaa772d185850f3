-- Who changed what, when and from where. A row holds the hash of the one before it, so that none can be changed,
-- taken out or put in between without a trace. No foreign keys: what a row tells of may go, the row stays.
CREATE TABLE audit (
    -- From 1, without a gap.
    seq        INTEGER NOT NULL PRIMARY KEY,
    at         INTEGER NOT NULL,
    action     TEXT    NOT NULL,
    tenant     TEXT,
    deployment INTEGER,
    actor      TEXT    NOT NULL,
    -- Id of the token that people made; the one that asked, or the one it was derived from.
    token      TEXT,
    role       TEXT,
    address    TEXT,
    -- A JSON object.
    details    TEXT    NOT NULL,
    previous   BLOB    NOT NULL,
    hash       BLOB    NOT NULL
) STRICT;

CREATE INDEX audit_of_tenant ON audit (tenant, seq);

-- Two writers cannot continue the same row, and none can begin anew; INSERT OR REPLACE included, which would delete
-- without asking the trigger below.
CREATE TRIGGER audit_continues BEFORE INSERT ON audit
WHEN NEW.seq <> (SELECT COALESCE(MAX(seq), 0) + 1 FROM audit)
  OR NEW.previous <> COALESCE((SELECT hash FROM audit ORDER BY seq DESC LIMIT 1), zeroblob(32))
BEGIN SELECT RAISE(ABORT, 'the audit log is a chain'); END;

CREATE TRIGGER audit_is_append_only_update BEFORE UPDATE ON audit
BEGIN SELECT RAISE(ABORT, 'the audit log is append-only'); END;

CREATE TRIGGER audit_is_append_only_delete BEFORE DELETE ON audit
BEGIN SELECT RAISE(ABORT, 'the audit log is append-only'); END;
