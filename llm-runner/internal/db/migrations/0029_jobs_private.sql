-- owner: jobs
-- Steps whose answers rest on notes which no cloud provider may see.
ALTER TABLE job_steps ADD COLUMN private INTEGER NOT NULL DEFAULT 0; -- 1: it does
