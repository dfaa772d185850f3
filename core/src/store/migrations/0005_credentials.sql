-- Registry tokens are signed and no rows any more. A token that was rotated knows the one that took its place, and
-- the values of secrets may be sealed anew with another key; nothing else of a version is ever changed.
DELETE FROM tokens WHERE kind = 'registry';

ALTER TABLE tokens ADD COLUMN replaced_by TEXT REFERENCES tokens (id);

DROP TRIGGER secrets_are_never_changed;

CREATE TRIGGER secrets_are_never_changed
BEFORE UPDATE OF tenant, name, version, external, actor, created_at ON secrets
BEGIN SELECT RAISE(ABORT, 'a version of a secret is never changed'); END;

CREATE TRIGGER secrets_are_only_sealed_anew BEFORE UPDATE OF sealed ON secrets
WHEN (OLD.sealed IS NULL) <> (NEW.sealed IS NULL)
BEGIN SELECT RAISE(ABORT, 'a version of a secret is never changed'); END;
