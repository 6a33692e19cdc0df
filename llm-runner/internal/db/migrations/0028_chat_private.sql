-- owner: chat
-- Answers that rest on notes which no cloud provider may see: they are left out of what one is asked later.
ALTER TABLE turns ADD COLUMN private INTEGER NOT NULL DEFAULT 0; -- 1: it does
