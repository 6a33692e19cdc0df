-- owner: engine
-- By how much the clock of a database that processes share was set in all, as they have seen and moved what waits: each move once. Where
-- there is one process the table stays empty.
CREATE TABLE engine_clock (
  id       INTEGER PRIMARY KEY,    -- 1
  moved_ms INTEGER NOT NULL
) STRICT;
