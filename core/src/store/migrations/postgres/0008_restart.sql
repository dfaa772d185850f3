-- Which instances of a release are started again that have ended.
ALTER TABLE releases ADD COLUMN restart TEXT NOT NULL DEFAULT '"always"';
-- How many instances of each service of a deployment have ended and are not started again: a JSON object.
ALTER TABLE deployments ADD COLUMN ended TEXT NOT NULL DEFAULT '{}';
