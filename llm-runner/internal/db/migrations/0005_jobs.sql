-- owner: jobs
-- A job is a piece of work that is acknowledged once and then ends, whatever happens to this program. Its whole life is
-- here; the engine holds only the call that works on it. Times are unix milliseconds, UTC.
CREATE TABLE jobs (
  id             INTEGER PRIMARY KEY AUTOINCREMENT,
  sent_key       TEXT    UNIQUE,              -- told by the sender, so that a job sent twice is one job
  type           TEXT    NOT NULL,            -- text, chain, research
  title          TEXT    NOT NULL,
  prompt         TEXT    NOT NULL,
  asked          TEXT    NOT NULL,            -- the model that was asked for; '': none named
  requires       TEXT    NOT NULL,            -- a provider that must answer; '': any
  project        INTEGER NOT NULL,
  priority       INTEGER NOT NULL,            -- 1 first ... 9 last
  deadline_ms    INTEGER NOT NULL,            -- how long it may wait in all; 0: as long as it takes
  max_attempts   INTEGER NOT NULL,

  state          TEXT    NOT NULL,
  since          INTEGER NOT NULL,            -- when it came into that state
  waited_ms      INTEGER NOT NULL DEFAULT 0,  -- queued and held, up to since
  run            INTEGER NOT NULL DEFAULT 0,  -- number of the engine's call that may work on it; older ones do nothing
  attempts       INTEGER NOT NULL DEFAULT 0,  -- faults so far that may pass
  holds          INTEGER NOT NULL DEFAULT 0,  -- in a row
  reason         TEXT    NOT NULL DEFAULT '', -- why it is held, or how it failed
  waits_for      TEXT    NOT NULL DEFAULT '', -- the provider it is held for
  resume_at      INTEGER,                     -- when it goes on
  created_at     INTEGER NOT NULL,
  started_at     INTEGER,                     -- for the first time
  ended_at       INTEGER,

  answer         TEXT    NOT NULL DEFAULT '',
  citations      TEXT    NOT NULL DEFAULT '[]',  -- JSON, as llm.Citation
  finish         TEXT    NOT NULL DEFAULT '',
  provider       TEXT    NOT NULL DEFAULT '',
  model          TEXT    NOT NULL DEFAULT '',
  rule           TEXT    NOT NULL DEFAULT '',
  why            TEXT    NOT NULL DEFAULT '',
  input_tokens   INTEGER,                     -- of all steps; NULL: the provider did not tell
  output_tokens  INTEGER,
  cost_micro_usd INTEGER                      -- NULL: no price is known
) STRICT;

CREATE INDEX jobs_by_state ON jobs (state, priority, id);

-- The steps that are finished. A step that stands here is never run again.
CREATE TABLE job_steps (
  job            INTEGER NOT NULL REFERENCES jobs (id) ON DELETE CASCADE,
  step           INTEGER NOT NULL,            -- from 0
  output         TEXT    NOT NULL,
  citations      TEXT    NOT NULL,
  finish         TEXT    NOT NULL,
  provider       TEXT    NOT NULL,
  model          TEXT    NOT NULL,
  rule           TEXT    NOT NULL,
  why            TEXT    NOT NULL,
  input_tokens   INTEGER,
  output_tokens  INTEGER,
  cost_micro_usd INTEGER,
  ended_at       INTEGER NOT NULL,
  PRIMARY KEY (job, step)
) STRICT, WITHOUT ROWID;

-- What happened to a job, in order.
CREATE TABLE job_events (
  job        INTEGER NOT NULL REFERENCES jobs (id) ON DELETE CASCADE,
  seq        INTEGER NOT NULL,                -- from 1, in each job
  at         INTEGER NOT NULL,
  from_state TEXT    NOT NULL,                -- '': it began
  to_state   TEXT    NOT NULL,                -- the same as from_state where something happened within a state
  note       TEXT    NOT NULL,
  PRIMARY KEY (job, seq)
) STRICT, WITHOUT ROWID;
