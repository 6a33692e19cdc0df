-- owner: jobs
-- Names of the tools that a job's model may call, separated by spaces; '': none.
ALTER TABLE jobs ADD COLUMN tools TEXT NOT NULL DEFAULT '';
