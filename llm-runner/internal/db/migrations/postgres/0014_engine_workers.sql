-- owner: engine
-- The processes that share a database. A row whose beat stands still is a dead process: another one takes over its work and
-- removes the row. Where there is one process the table stays empty.
CREATE TABLE engine_workers (
  id    TEXT    PRIMARY KEY,
  place TEXT    NOT NULL,  -- the data directory it works in: the next process there knows that this one is gone
  beat  BIGINT  NOT NULL   -- counts up while it lives; -1: it has stopped
);
