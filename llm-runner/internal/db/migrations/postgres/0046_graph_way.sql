-- owner: graph
-- Which way a run goes, so that the many of the straight way can be listed and deleted apart; and how an answer ended.
ALTER TABLE graph_runs ADD COLUMN way TEXT NOT NULL DEFAULT '';     -- straight, thorough; '' not decided, or before there were two
ALTER TABLE graph_calls ADD COLUMN finish TEXT NOT NULL DEFAULT ''; -- as llm.Finish
CREATE INDEX graph_runs_way ON graph_runs (way, id);
