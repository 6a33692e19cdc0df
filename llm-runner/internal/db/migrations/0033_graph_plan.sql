-- owner: graph
-- Research whose plan a person sees first. In jobs the column is that of the package jobs: '' and auto go on without asking, ask waits.
CREATE TABLE graph_plans (
  chat  INTEGER PRIMARY KEY,  -- a conversation
  first INTEGER NOT NULL       -- 1: plans are shown first there, 0: they are not
) STRICT;
ALTER TABLE jobs ADD COLUMN plan TEXT NOT NULL DEFAULT '';
