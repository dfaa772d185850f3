-- Which instances of a release are started again that have ended.
ALTER TABLE releases ADD COLUMN restart TEXT NOT NULL DEFAULT '"always"';
-- How many instances of a deployment have ended and are not started again.
ALTER TABLE deployments ADD COLUMN ended BIGINT NOT NULL DEFAULT 0;
