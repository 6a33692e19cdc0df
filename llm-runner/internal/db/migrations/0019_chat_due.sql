-- owner: chat
-- A turn that was held or interrupted is asked again by itself.
ALTER TABLE turns ADD COLUMN due     INTEGER NOT NULL DEFAULT 0;  -- 1: it will be
ALTER TABLE turns ADD COLUMN holds   INTEGER NOT NULL DEFAULT 0;  -- how often in a row it was held
ALTER TABLE turns ADD COLUMN resumes INTEGER NOT NULL DEFAULT 0;  -- how often it was asked again because a process ended

CREATE INDEX turns_due ON turns (id) WHERE due;
