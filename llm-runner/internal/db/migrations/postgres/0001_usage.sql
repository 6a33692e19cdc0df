-- owner: usage
-- One row per attempt to have a provider answer, written before the first byte goes out.
CREATE TABLE attempts (
  id              BIGINT  PRIMARY KEY,
  started_at      BIGINT  NOT NULL,             -- unix milliseconds, UTC
  purpose         TEXT    NOT NULL,             -- chat, api, ask, embed, ...
  asked           TEXT    NOT NULL,             -- the model name that was asked for
  rule            TEXT    NOT NULL,             -- the rule of the routing decision
  provider        TEXT    NOT NULL,
  model           TEXT    NOT NULL,             -- the model that was asked of the provider
  outcome         TEXT    NOT NULL DEFAULT 'open',  -- open, ok, error, busy, cancelled, interrupted
  error           TEXT    NOT NULL DEFAULT '',  -- kind: message
  first_byte_us   BIGINT,                       -- microseconds after started_at
  total_us        BIGINT,
  input_tokens    BIGINT,                       -- NULL: the provider did not tell
  output_tokens   BIGINT,
  cached_tokens   BIGINT,
  thinking_tokens BIGINT,
  cost_micro_usd  BIGINT                        -- NULL: no price is known
);

-- Rows are found by their ids, which several processes make in the order of time. Open rows of a dead process are found by its
-- name (attempts.worker).
