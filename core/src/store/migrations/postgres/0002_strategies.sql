-- Several instances of a release; and of each deployment the settings of its strategy and the command that runs
-- before it, as they were when it was accepted.
ALTER TABLE releases ADD COLUMN replicas BIGINT NOT NULL DEFAULT 1;
ALTER TABLE deployments ADD COLUMN rollout TEXT NOT NULL DEFAULT '{}';
ALTER TABLE deployments ADD COLUMN release_command TEXT NOT NULL DEFAULT '[]';
