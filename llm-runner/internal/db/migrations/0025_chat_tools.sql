-- owner: chat
-- Answers that may have tools run.
ALTER TABLE chats ADD COLUMN tools INTEGER NOT NULL DEFAULT 0;  -- as it was last asked for
ALTER TABLE turns ADD COLUMN tools INTEGER NOT NULL DEFAULT 0;
ALTER TABLE turns ADD COLUMN run   INTEGER NOT NULL DEFAULT 0;  -- the turn whose work it goes on with; 0: its own
