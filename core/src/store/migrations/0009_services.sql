-- Services of a release beside the one that its own columns describe, and what that one has for their sake. As JSON; nothing
-- where there is one service that gets everything.
ALTER TABLE releases ADD COLUMN services TEXT;

-- Where services of a tenant reach each other. A port is kept as long as a release that serves or is being deployed has the
-- service.
CREATE TABLE service_ports (
    tenant  TEXT NOT NULL,
    service TEXT NOT NULL,
    port    INTEGER NOT NULL UNIQUE,
    PRIMARY KEY (tenant, service)
);
