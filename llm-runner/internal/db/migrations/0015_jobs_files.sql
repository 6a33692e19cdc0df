-- owner: jobs
-- What lies in the vault for a job: the file that it came from, and the note with its answer. Paths are below the vault.
ALTER TABLE jobs ADD COLUMN output TEXT NOT NULL DEFAULT '';       -- where the answer was asked to go; '': not said
ALTER TABLE jobs ADD COLUMN dropped TEXT NOT NULL DEFAULT '';      -- the file's name in the queue folder; '': the job came another way
ALTER TABLE jobs ADD COLUMN file TEXT NOT NULL DEFAULT '';         -- where the file lies; '': nowhere any more
ALTER TABLE jobs ADD COLUMN file_next TEXT NOT NULL DEFAULT '';    -- where it is being moved to
ALTER TABLE jobs ADD COLUMN file_hash TEXT NOT NULL DEFAULT '';    -- SHA-256 of what was dropped, in hex
ALTER TABLE jobs ADD COLUMN note TEXT NOT NULL DEFAULT '';         -- where the answer is; '': not written
ALTER TABLE jobs ADD COLUMN vault_due INTEGER NOT NULL DEFAULT 0;  -- when the job went over to what the vault does not show yet; 0: it does
CREATE UNIQUE INDEX jobs_by_file ON jobs (file) WHERE file <> '';
CREATE INDEX jobs_by_file_next ON jobs (file_next) WHERE file_next <> '';
CREATE INDEX jobs_by_dropped ON jobs (dropped) WHERE dropped <> '';
CREATE INDEX jobs_vault_due ON jobs (vault_due) WHERE vault_due > 0;
