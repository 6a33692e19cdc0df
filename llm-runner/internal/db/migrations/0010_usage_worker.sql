-- owner: usage
-- Which of the processes that share a database makes the attempt; '' where there is one process.
ALTER TABLE attempts ADD COLUMN worker TEXT NOT NULL DEFAULT '';
