-- owner: graph
-- Runs of graphs: each step is on disk before it begins and when it has ended, each answer of a model as soon as it is there, so that a
-- run goes on after a crash where it was. Times are unix milliseconds, UTC.
CREATE TABLE graph_runs (
  id          INTEGER PRIMARY KEY AUTOINCREMENT,
  graph       TEXT    NOT NULL,
  key         TEXT    NOT NULL DEFAULT '',  -- the work that it is part of; '': a run of its own
  title       TEXT    NOT NULL DEFAULT '',
  status      TEXT    NOT NULL,
  input       TEXT    NOT NULL,             -- JSON: the state that it began with
  question    TEXT    NOT NULL DEFAULT '',  -- that a person has to decide
  decision    TEXT    NOT NULL DEFAULT '',  -- what was decided, until the node that asked has ended
  error       TEXT    NOT NULL DEFAULT '',
  over        TEXT    NOT NULL DEFAULT '',  -- the bound of the budget that was reached
  forked_from INTEGER NOT NULL DEFAULT 0,   -- a run; 0 none
  forked_step INTEGER NOT NULL DEFAULT 0,
  steps       INTEGER NOT NULL DEFAULT 0,
  calls       INTEGER NOT NULL DEFAULT 0,
  tokens      INTEGER NOT NULL DEFAULT 0,
  micro_usd   INTEGER NOT NULL DEFAULT 0,
  work_ms     INTEGER NOT NULL DEFAULT 0,   -- in steps that have ended
  began_at    INTEGER NOT NULL,
  ended_at    INTEGER
) STRICT;
CREATE UNIQUE INDEX graph_runs_by_key ON graph_runs (key) WHERE key <> '';
CREATE INDEX graph_runs_ended ON graph_runs (ended_at) WHERE ended_at IS NOT NULL;

CREATE TABLE graph_steps (
  run      INTEGER NOT NULL,
  n        INTEGER NOT NULL,                -- 0-based
  node     TEXT    NOT NULL,
  state    TEXT    NOT NULL,                -- JSON, after it
  next     TEXT    NOT NULL,                -- the node that follows; '': the end
  note     TEXT    NOT NULL,
  began_at INTEGER NOT NULL,
  ended_at INTEGER,                         -- NULL: it runs, or the process died in it
  PRIMARY KEY (run, n)
) STRICT, WITHOUT ROWID;

CREATE TABLE graph_calls (
  run           INTEGER NOT NULL,
  step          INTEGER NOT NULL,
  name          TEXT    NOT NULL,           -- what the node calls the question
  asked         TEXT    NOT NULL,
  answered      TEXT    NOT NULL,
  provider      TEXT    NOT NULL,
  model         TEXT    NOT NULL,
  input_tokens  INTEGER NOT NULL,
  output_tokens INTEGER NOT NULL,
  micro_usd     INTEGER NOT NULL,
  took_ms       INTEGER NOT NULL,
  withheld      INTEGER NOT NULL,            -- private parts that the model was not shown
  PRIMARY KEY (run, step, name)
) STRICT, WITHOUT ROWID;
