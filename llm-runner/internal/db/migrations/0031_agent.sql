-- owner: agent
-- Agents: what is remembered of each, their runs with the steps and the deliveries of each.
CREATE TABLE agents (
  name     TEXT    PRIMARY KEY,
  paused   INTEGER,                        -- 1: by a person; 0: switched on by one; NULL: nobody has said
  schedule TEXT    NOT NULL DEFAULT '',    -- as it was when seen was set
  seen     INTEGER NOT NULL                -- unix milliseconds: due times up to here have been seen to
) STRICT;

CREATE TABLE agent_runs (
  id         INTEGER PRIMARY KEY AUTOINCREMENT,
  agent      TEXT    NOT NULL,
  key        TEXT    NOT NULL UNIQUE,      -- the work that it is: agent and due time, so that none is done twice
  cause      TEXT    NOT NULL,             -- schedule, person, dry, agent
  due_at     INTEGER NOT NULL,             -- unix milliseconds
  covers     INTEGER NOT NULL DEFAULT 1,   -- due times
  parent     INTEGER,                      -- the run that called it
  depth      INTEGER NOT NULL DEFAULT 0,
  task       TEXT    NOT NULL DEFAULT '',  -- that the parent gave
  state      TEXT    NOT NULL,
  call       INTEGER NOT NULL DEFAULT 0,   -- of the engine
  worker     TEXT    NOT NULL DEFAULT '',  -- process that runs it
  attempts   INTEGER NOT NULL DEFAULT 0,   -- faults so far that may pass
  next_at    INTEGER,                      -- when it goes on; NULL: it does not wait for a time
  waits_for  TEXT    NOT NULL DEFAULT '',
  reason     TEXT    NOT NULL DEFAULT '',  -- why it waits, or failed
  output     TEXT    NOT NULL DEFAULT '',  -- JSON of what it says
  over       TEXT    NOT NULL DEFAULT '',  -- which bound of its budget ended it
  provider   TEXT    NOT NULL DEFAULT '',
  model      TEXT    NOT NULL DEFAULT '',
  tokens     INTEGER NOT NULL DEFAULT 0,
  micro_usd  INTEGER NOT NULL DEFAULT 0,
  work_ms    INTEGER NOT NULL DEFAULT 0,
  created_at INTEGER NOT NULL,
  started_at INTEGER,
  ended_at   INTEGER
) STRICT;
CREATE INDEX agent_runs_by_agent ON agent_runs (agent, id);
CREATE INDEX agent_runs_open ON agent_runs (state) WHERE ended_at IS NULL;

CREATE TABLE agent_steps (
  run      INTEGER NOT NULL REFERENCES agent_runs (id) ON DELETE CASCADE,
  name     TEXT    NOT NULL,
  output   TEXT    NOT NULL DEFAULT '',
  note     TEXT    NOT NULL DEFAULT '',    -- in a few words, for people
  began_at INTEGER NOT NULL,
  ended_at INTEGER,
  PRIMARY KEY (run, name)
) STRICT, WITHOUT ROWID;

CREATE TABLE agent_deliveries (
  run      INTEGER NOT NULL REFERENCES agent_runs (id) ON DELETE CASCADE,
  sink     TEXT    NOT NULL,
  part     INTEGER NOT NULL,               -- of several messages or notes, from 1
  name     TEXT    NOT NULL DEFAULT '',    -- of a note
  text     TEXT    NOT NULL,
  state    TEXT    NOT NULL,               -- waiting, sending, done, failed, skipped
  call     INTEGER NOT NULL DEFAULT 0,
  attempts INTEGER NOT NULL DEFAULT 0,
  next_at  INTEGER,
  place    TEXT    NOT NULL DEFAULT '',    -- where it is: a note's path
  reason   TEXT    NOT NULL DEFAULT '',
  made_at  INTEGER NOT NULL,
  ended_at INTEGER,
  PRIMARY KEY (run, sink, part)
) STRICT, WITHOUT ROWID;
CREATE INDEX agent_deliveries_open ON agent_deliveries (next_at) WHERE ended_at IS NULL;
