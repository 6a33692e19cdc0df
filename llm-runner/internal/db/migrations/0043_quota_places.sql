-- owner: quota
-- The places of a machine that does a few requests at a time, where several processes share it (see quota/places.go): a row
-- for each process that uses some or waits.
CREATE TABLE quota_places (
  provider TEXT    NOT NULL,
  worker   TEXT    NOT NULL,
  taken    INTEGER NOT NULL,                -- places in use there
  waiting  INTEGER NOT NULL,                -- requests that wait there for a place
  since    INTEGER NOT NULL,                -- when its turn to wait began, unix nanoseconds; 0: none waits
  at       INTEGER NOT NULL,                -- when the row was written, unix nanoseconds
  PRIMARY KEY (provider, worker)
) STRICT, WITHOUT ROWID;
