-- owner: jobs
-- Which of the processes that share a database runs the job, or ran it last; '' where there is one process.
ALTER TABLE jobs ADD COLUMN worker TEXT NOT NULL DEFAULT '';
