-- Who changed what, when and from where. A row holds the hash of the one before it, so that none can be changed,
-- taken out or put in between without a trace. No foreign keys: what a row tells of may go, the row stays.
CREATE TABLE audit (
    -- From 1, without a gap.
    seq        BIGINT NOT NULL PRIMARY KEY,
    at         BIGINT NOT NULL,
    action     TEXT   NOT NULL,
    tenant     TEXT COLLATE "C",
    deployment BIGINT,
    actor      TEXT   NOT NULL,
    -- Id of the token that people made; the one that asked, or the one it was derived from.
    token      TEXT,
    role       TEXT,
    address    TEXT,
    -- A JSON object.
    details    TEXT   NOT NULL,
    previous   BYTEA  NOT NULL,
    hash       BYTEA  NOT NULL
);

CREATE INDEX audit_of_tenant ON audit (tenant, seq);

-- Two writers cannot continue the same row, and none can begin anew.
CREATE FUNCTION audit_continues() RETURNS TRIGGER LANGUAGE plpgsql AS $$
BEGIN
    IF NEW.seq <> (SELECT COALESCE(MAX(seq), 0) + 1 FROM audit)
        OR NEW.previous <> COALESCE(
            (SELECT hash FROM audit ORDER BY seq DESC LIMIT 1),
            decode(repeat('00', 32), 'hex'))
    THEN RAISE EXCEPTION 'the audit log is a chain';
    END IF;
    RETURN NEW;
END
$$;

CREATE TRIGGER audit_continues BEFORE INSERT ON audit
FOR EACH ROW EXECUTE FUNCTION audit_continues();

CREATE TRIGGER audit_is_append_only BEFORE UPDATE OR DELETE ON audit
FOR EACH ROW EXECUTE FUNCTION refuse('the audit log is append-only');

CREATE TRIGGER audit_is_not_emptied BEFORE TRUNCATE ON audit
FOR EACH STATEMENT EXECUTE FUNCTION refuse('the audit log is append-only');
