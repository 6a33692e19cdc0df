-- owner: quota
-- The places of a machine that does a few requests at a time, where several processes share it (see quota/places.go): a row
-- for each process that uses some or waits.
CREATE TABLE quota_places (
  provider TEXT    NOT NULL,
  worker   TEXT    NOT NULL,
  taken    BIGINT  NOT NULL,                -- places in use there
  waiting  BIGINT  NOT NULL,                -- requests that wait there for a place
  since    BIGINT  NOT NULL,                -- when its turn to wait began, unix nanoseconds; 0: none waits
  at       BIGINT  NOT NULL,                -- when the row was written, unix nanoseconds
  PRIMARY KEY (provider, worker)
);
