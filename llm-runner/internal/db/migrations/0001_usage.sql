-- owner: usage
-- One row per attempt to have a provider answer, written before the first byte goes out.
CREATE TABLE attempts (
  id              INTEGER PRIMARY KEY,
  started_at      INTEGER NOT NULL,          -- unix milliseconds, UTC
  purpose         TEXT    NOT NULL,          -- chat, api, ask, embed, ...
  asked           TEXT    NOT NULL,          -- the model name that was asked for
  rule            TEXT    NOT NULL,          -- the rule of the routing decision
  provider        TEXT    NOT NULL,
  model           TEXT    NOT NULL,          -- the model that was asked of the provider
  outcome         TEXT    NOT NULL DEFAULT 'open',  -- open, ok, error, busy, cancelled, interrupted
  error           TEXT    NOT NULL DEFAULT '',      -- kind: message
  first_byte_us   INTEGER,                   -- microseconds after started_at
  total_us        INTEGER,
  input_tokens    INTEGER,                   -- NULL: the provider did not tell
  output_tokens   INTEGER,
  cached_tokens   INTEGER,
  thinking_tokens INTEGER,
  cost_micro_usd  INTEGER                    -- NULL: no price is known
) STRICT;

-- There is no index beside the key: each would be one more page written before every request. Rows are written in the order
-- of their ids, so a moment is found by halving, and open rows of a dead process lie behind the mark.
CREATE TABLE attempts_mark (
  id      INTEGER PRIMARY KEY CHECK (id = 1),
  settled INTEGER NOT NULL                   -- no row up to this id is open
) STRICT;
INSERT INTO attempts_mark VALUES (1, 0);
