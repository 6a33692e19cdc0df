-- owner: chat
-- Answers that may have tools run.
ALTER TABLE chats ADD COLUMN tools BOOLEAN NOT NULL DEFAULT false;  -- as it was last asked for
ALTER TABLE turns ADD COLUMN tools BOOLEAN NOT NULL DEFAULT false;
ALTER TABLE turns ADD COLUMN run   BIGINT  NOT NULL DEFAULT 0;      -- the turn whose work it goes on with; 0: its own
