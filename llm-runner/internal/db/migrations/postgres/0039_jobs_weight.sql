-- owner: jobs
-- How heavy a job is, so that nobody reads all prompts of a line to know it; and how often a process ended in it.
ALTER TABLE jobs ADD COLUMN bytes BIGINT NOT NULL DEFAULT 0; -- that it asks with, about
ALTER TABLE jobs ADD COLUMN steps BIGINT NOT NULL DEFAULT 1; -- that there are
ALTER TABLE jobs ADD COLUMN begun BIGINT NOT NULL DEFAULT 0; -- how often its present step was begun and neither ended nor was put down
UPDATE jobs SET bytes = length(prompt) + length(request), steps = CASE WHEN type = 'chain'
  THEN greatest((length(prompt) - length(replace(prompt, chr(10) || '## ', ''))) / 4 + CASE WHEN substr(prompt, 1, 3) = '## ' THEN 1 ELSE 0 END, 1) ELSE 1 END;
CREATE INDEX jobs_ahead ON jobs (state, ord, id) WHERE state IN ('queued', 'running');
-- Those that were let go at their turn and are not asked yet.
CREATE INDEX jobs_let_go ON jobs (waits_for, ord, id) WHERE state = 'queued' AND dimension <> '';
-- Those that may not wait for ever, and those that wait for a machine.
CREATE INDEX jobs_with_deadline ON jobs (since, waited_ms, deadline_ms, id) WHERE deadline_ms > 0 AND state IN ('queued', 'held');
CREATE INDEX jobs_for_machine ON jobs (waits_for, ord, id) WHERE state = 'held' AND dimension = '';
