-- owner: jobs
-- The jobs that ended longest ago are deleted first.
CREATE INDEX jobs_by_end ON jobs (since) WHERE state IN ('done', 'failed', 'cancelled');
