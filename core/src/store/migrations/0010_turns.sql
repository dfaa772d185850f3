-- Counts what an engine that replaces releases by itself was told of a tenant: a server that comes late with an older turn
-- changes nothing.
ALTER TABLE tenants ADD COLUMN turn INTEGER NOT NULL DEFAULT 0;
