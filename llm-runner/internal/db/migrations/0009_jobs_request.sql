-- owner: jobs
-- A job that is a whole chat request of OpenAI's API instead of a prompt, and the answer in the same form.
ALTER TABLE jobs ADD COLUMN request TEXT NOT NULL DEFAULT '';        -- JSON; '': the prompt is all
ALTER TABLE job_steps ADD COLUMN response TEXT NOT NULL DEFAULT '';  -- JSON
