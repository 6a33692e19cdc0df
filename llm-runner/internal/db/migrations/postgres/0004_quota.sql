-- owner: quota
-- What is known of the providers' rate limits, and how much of each was used: written about once a second while it changes,
-- read at the start. Times are unix nanoseconds, UTC; 0 where there is none.
CREATE TABLE quota_buckets (
  provider  TEXT    NOT NULL,
  model     TEXT    NOT NULL,  -- '': of the whole account
  dimension TEXT    NOT NULL,  -- requests/minute, tokens/day, ...
  refill    BIGINT  NOT NULL,  -- 0 window, 1 rolling, 2 continuous, 3 day in California
  counts    BIGINT  NOT NULL,  -- bits: 1 cached input does not count, 2 max_tokens are taken at once, 4 repeats another
  most      BIGINT,            -- NULL: nobody told
  used      DOUBLE PRECISION NOT NULL,
  uses      TEXT    NOT NULL,  -- JSON, of rolling windows: [{"back": time, "n": amount}, ...]
  at        BIGINT  NOT NULL,  -- when used was so much
  reset_at  BIGINT  NOT NULL,
  closed    BIGINT  NOT NULL,  -- a refusal said: not before
  PRIMARY KEY (provider, model, dimension)
);
