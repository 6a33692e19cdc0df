-- owner: toolbox
-- What tools may do, what they were asked, and what became of it. Times are unix milliseconds, UTC.
CREATE TABLE tool_policies (
  tool       TEXT    NOT NULL,
  chat       INTEGER NOT NULL,           -- 0: everywhere
  policy     TEXT    NOT NULL CHECK (policy IN ('allow', 'ask', 'deny')),
  changed_at INTEGER NOT NULL,
  PRIMARY KEY (tool, chat)
) STRICT, WITHOUT ROWID;

-- A run is one answer in the making that calls tools: turn-42, job-7-0. A step is one answer of the model in it, kept as soon
-- as it is whole, so that a run which is taken up again repeats no paid call.
CREATE TABLE tool_steps (
  run     TEXT    NOT NULL,
  n       INTEGER NOT NULL,              -- from 0
  message TEXT    NOT NULL,              -- JSON, as llm.Message
  usage   TEXT    NOT NULL,              -- JSON, as llm.Usage
  route   TEXT    NOT NULL,              -- JSON, as llm.Route
  finish  TEXT    NOT NULL,
  made_at INTEGER NOT NULL,
  PRIMARY KEY (run, n)
) STRICT, WITHOUT ROWID;

-- Every call of a tool, from before it runs: the audit log.
CREATE TABLE tool_calls (
  id         INTEGER PRIMARY KEY AUTOINCREMENT,
  run        TEXT    NOT NULL,           -- '': of no run (MCP)
  step       INTEGER NOT NULL,
  place      INTEGER NOT NULL,           -- among the calls of its step
  source     TEXT    NOT NULL,           -- chat, job, mcp, ...
  chat       INTEGER NOT NULL,           -- 0: of no conversation
  tool       TEXT    NOT NULL,
  arguments  TEXT    NOT NULL,           -- JSON
  preview    TEXT    NOT NULL,           -- what a person is shown before they decide
  seal       TEXT    NOT NULL,           -- what must still hold when it runs, '' nothing
  effects    INTEGER NOT NULL,           -- 1: it changes something outside, so it is never run twice unasked
  policy     TEXT    NOT NULL,           -- that applied
  why        TEXT    NOT NULL,           -- a person is asked, or it was refused; then why it failed
  state      TEXT    NOT NULL,
  worker     TEXT    NOT NULL,           -- the process that runs it
  result     TEXT    NOT NULL,           -- as the model gets it, bounded
  links      TEXT    NOT NULL,           -- JSON: addresses that its result vouches for
  is_error   INTEGER NOT NULL,
  asked_at   INTEGER NOT NULL,
  decided_at INTEGER,
  started_at INTEGER,
  ended_at   INTEGER
) STRICT;

CREATE UNIQUE INDEX tool_calls_by_run ON tool_calls (run, step, place) WHERE run <> '';
CREATE INDEX tool_calls_open ON tool_calls (id) WHERE state IN ('waiting', 'approved', 'running');
CREATE INDEX tool_calls_by_time ON tool_calls (asked_at);
