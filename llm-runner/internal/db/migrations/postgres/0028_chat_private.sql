-- owner: chat
-- Answers that rest on notes which no cloud provider may see: they are left out of what one is asked later.
ALTER TABLE turns ADD COLUMN private BOOLEAN NOT NULL DEFAULT false;
