-- owner: chat
-- Answers that may know what is remembered about the person, and which facts they were told: JSON, numbers only, so that a fact that is
-- forgotten is not kept here.
ALTER TABLE chats ADD COLUMN memory     INTEGER NOT NULL DEFAULT 1;  -- as it was last asked for
ALTER TABLE turns ADD COLUMN memory     INTEGER NOT NULL DEFAULT 0;
ALTER TABLE turns ADD COLUMN remembered TEXT    NOT NULL DEFAULT '';
