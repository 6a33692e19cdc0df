-- owner: progress
-- What a project had on a day, as it was seen last then: the way up that the notes themselves do not keep.
CREATE TABLE progress_days (
  path  TEXT    NOT NULL,                  -- of the project's note
  day   TEXT    NOT NULL,                  -- YYYY-MM-DD, local
  done  INTEGER NOT NULL,                  -- tasks
  total INTEGER NOT NULL,
  PRIMARY KEY (path, day)
) STRICT, WITHOUT ROWID;
