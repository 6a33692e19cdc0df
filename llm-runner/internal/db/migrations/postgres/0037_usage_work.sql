-- owner: usage
-- What the attempt was made for: job-7 for a job; '' where nothing that is kept. There is no index: rows of a job lie between its beginning and its end.
ALTER TABLE attempts ADD COLUMN work TEXT NOT NULL DEFAULT '';
