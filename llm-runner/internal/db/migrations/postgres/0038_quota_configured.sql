-- owner: quota
-- The size of the limit as it was configured last; NULL: it was not. What was learned since is kept while this stays the same.
ALTER TABLE quota_buckets ADD COLUMN configured BIGINT;
