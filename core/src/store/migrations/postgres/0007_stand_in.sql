-- The deployment whose instances have the traffic although it was not committed: it could not be undone, because the
-- release before does not serve. It goes with the next one that is committed, or when that release serves again.
ALTER TABLE tenants ADD COLUMN stand_in BIGINT;
