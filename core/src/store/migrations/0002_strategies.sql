-- Several instances of a release, and the settings of each rollout as they were when it was accepted.
ALTER TABLE releases ADD COLUMN replicas INTEGER NOT NULL DEFAULT 1;
ALTER TABLE deployments ADD COLUMN rollout TEXT NOT NULL DEFAULT '{}';
