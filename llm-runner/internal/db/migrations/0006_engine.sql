-- owner: engine
-- The durable engine keeps its own tables in this database and migrates them itself (DBOS: workflow_status and its
-- companions). What is ours is the name by which it finds its own unfinished work again: one for each data directory.
CREATE TABLE engine_identity (
  executor TEXT NOT NULL
) STRICT;
