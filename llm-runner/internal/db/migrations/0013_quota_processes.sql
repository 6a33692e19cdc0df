-- owner: quota
-- What several processes need to count together (see quota/processes.go): seen orders the answers that told of a bucket;
-- reserved is what requests under way of each process have taken that the provider has not told of.
ALTER TABLE quota_buckets ADD COLUMN seen INTEGER NOT NULL DEFAULT 0;

CREATE TABLE quota_reserved (
  provider  TEXT    NOT NULL,
  model     TEXT    NOT NULL,
  dimension TEXT    NOT NULL,
  worker    TEXT    NOT NULL,
  amount    INTEGER NOT NULL,
  at        INTEGER NOT NULL,               -- when it was written, unix nanoseconds
  PRIMARY KEY (provider, model, dimension, worker)
) STRICT, WITHOUT ROWID;
