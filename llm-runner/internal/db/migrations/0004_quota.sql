-- owner: quota
-- What is known of the providers' rate limits, and how much of each was used: written about once a second while it changes,
-- read at the start. Times are unix nanoseconds, UTC; 0 where there is none.
CREATE TABLE quota_buckets (
  provider  TEXT    NOT NULL,
  model     TEXT    NOT NULL,                -- '': of the whole account
  dimension TEXT    NOT NULL,                -- requests/minute, tokens/day, ...
  refill    INTEGER NOT NULL,                -- 0 window, 1 rolling, 2 continuous, 3 day in California
  counts    INTEGER NOT NULL,                -- bits: 1 cached input does not count, 2 max_tokens are taken at once, 4 repeats another
  most      INTEGER,                         -- NULL: nobody told
  used      REAL    NOT NULL,
  uses      TEXT    NOT NULL,                -- JSON, of rolling windows: [{"back": time, "n": amount}, ...]
  at        INTEGER NOT NULL,                -- when used was so much
  reset_at  INTEGER NOT NULL,
  closed    INTEGER NOT NULL,                -- a refusal said: not before
  PRIMARY KEY (provider, model, dimension)
) STRICT, WITHOUT ROWID;
