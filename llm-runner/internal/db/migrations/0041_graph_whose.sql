-- owner: graph
-- Whom a run belongs to: the conversation that it is deleted with, and the process that works on a run of its own.
ALTER TABLE graph_runs ADD COLUMN chat INTEGER NOT NULL DEFAULT 0;    -- 0 none
ALTER TABLE graph_runs ADD COLUMN worker TEXT NOT NULL DEFAULT '';    -- of the processes that share the database; '' none
