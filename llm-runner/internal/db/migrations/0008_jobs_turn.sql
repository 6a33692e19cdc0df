-- owner: jobs
-- What a held job waits for, as exactly as it is known: the model at waits_for, and the limit that is used up.
ALTER TABLE jobs ADD COLUMN waits_model TEXT NOT NULL DEFAULT '';
ALTER TABLE jobs ADD COLUMN dimension TEXT NOT NULL DEFAULT '';  -- '': it is no limit
CREATE INDEX jobs_in_line ON jobs (waits_for, ord, id) WHERE state = 'held' AND dimension <> '';
