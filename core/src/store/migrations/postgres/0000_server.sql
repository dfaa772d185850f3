-- What servers need before they know the schema: its version, and who leads. Both have one row.
CREATE TABLE schema_version (
    one     BOOLEAN NOT NULL PRIMARY KEY DEFAULT TRUE CHECK (one),
    version BIGINT  NOT NULL
);

INSERT INTO schema_version (version) VALUES (0);

-- Each write begins by locking this row: there is one writer at a time, of all servers, as in the embedded database.
CREATE TABLE leader (
    one     BOOLEAN NOT NULL PRIMARY KEY DEFAULT TRUE CHECK (one),
    -- Counts those who have led; a server with an older one may write nothing.
    token   BIGINT  NOT NULL,
    -- Its id and, for people, its address.
    server  TEXT    NOT NULL,
    address TEXT    NOT NULL,
    -- When another may lead, by the database's clock: milliseconds since the epoch.
    until   BIGINT  NOT NULL
);

INSERT INTO leader (token, server, address, until) VALUES (0, '', '', 0);
