-- owner: chat
-- Which of the processes that share a database makes the answer; '' where there is one process.
ALTER TABLE turns ADD COLUMN worker TEXT NOT NULL DEFAULT '';
