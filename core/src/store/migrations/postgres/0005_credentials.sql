-- A token that was rotated knows the one that took its place, and the values of secrets may be sealed anew with another
-- key; nothing else of a version is ever changed.
ALTER TABLE tokens ADD COLUMN replaced_by TEXT COLLATE "C" REFERENCES tokens (id) DEFERRABLE;

DROP TRIGGER secrets_are_never_changed ON secrets;

CREATE TRIGGER secrets_are_never_changed
BEFORE UPDATE OF tenant, name, version, external, actor, created_at ON secrets
FOR EACH ROW EXECUTE FUNCTION refuse('a version of a secret is never changed');

CREATE TRIGGER secrets_are_only_sealed_anew BEFORE UPDATE OF sealed ON secrets
FOR EACH ROW WHEN ((OLD.sealed IS NULL) <> (NEW.sealed IS NULL))
EXECUTE FUNCTION refuse('a version of a secret is never changed');
