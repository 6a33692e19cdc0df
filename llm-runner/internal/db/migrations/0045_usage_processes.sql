-- owner: usage
-- How many processes have opened the books that they share: each makes the ids of its rows with its number. Where there is one process
-- it stays 0.
CREATE TABLE usage_processes (
  id    INTEGER PRIMARY KEY,       -- 1
  begun INTEGER NOT NULL
) STRICT;
INSERT INTO usage_processes VALUES (1, 0);
