-- owner: jobs
-- Who is first in line: the moment of submission, and a quarter of an hour more for each step of priority (unix milliseconds).
-- It never changes, so no later job overtakes for longer than the steps between their priorities.
ALTER TABLE jobs ADD COLUMN ord INTEGER NOT NULL DEFAULT 0;
UPDATE jobs SET ord = created_at + (priority - 1) * 900000;
-- Whether a person is told of the end: '' no, always, success, failure.
ALTER TABLE jobs ADD COLUMN notify TEXT NOT NULL DEFAULT '';
DROP INDEX jobs_by_state;
CREATE INDEX jobs_by_state ON jobs (state, ord, id);
