-- owner: engine
-- By how much the clock of a database that processes share was set in all, as they have seen and moved what waits: each move once.
CREATE TABLE engine_clock (
  id       BIGINT  PRIMARY KEY,    -- 1
  moved_ms BIGINT  NOT NULL
);
