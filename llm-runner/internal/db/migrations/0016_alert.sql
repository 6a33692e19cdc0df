-- owner: alert
-- What a person is told: incidents, which begin and end, and news, which only happen. A row is written before it is told,
-- so that no outage of whoever passes it on, and no restart, loses it. Times are unix milliseconds, UTC.
CREATE TABLE alerts (
  id         INTEGER PRIMARY KEY AUTOINCREMENT,
  key        TEXT    NOT NULL,             -- what an incident is about: down/davas, quota/groq/tokens/day, disk; '': news
  provider   TEXT    NOT NULL DEFAULT '',  -- jobs that are held for it count; '': none
  while_held INTEGER NOT NULL DEFAULT 0,   -- 1: it is over once no job is held for the provider
  text       TEXT    NOT NULL,             -- what is told of its beginning
  began_at   INTEGER NOT NULL,
  due_at     INTEGER NOT NULL,             -- not told before; what is over by then is not told at all
  seen_at    INTEGER NOT NULL,             -- when it was last heard of
  ended_at   INTEGER,                      -- NULL: it lasts; of news the same as began_at
  over       TEXT    NOT NULL DEFAULT '',  -- what is told of its end
  told       INTEGER NOT NULL DEFAULT 0    -- 0 nothing, 1 the beginning, 2 all there is
) STRICT;

CREATE UNIQUE INDEX alerts_open ON alerts (key) WHERE ended_at IS NULL;
CREATE INDEX alerts_untold ON alerts (id) WHERE told < 2;

-- The jobs that were held while an incident lasted.
CREATE TABLE alert_jobs (
  alert INTEGER NOT NULL REFERENCES alerts (id) ON DELETE CASCADE,
  job   INTEGER NOT NULL,
  since INTEGER NOT NULL,
  PRIMARY KEY (alert, job)
) STRICT, WITHOUT ROWID;

-- Who passes alerts on: of several processes on one database one at a time.
CREATE TABLE alert_sender (
  id         INTEGER PRIMARY KEY CHECK (id = 1),
  holder     TEXT    NOT NULL,
  until      INTEGER NOT NULL
) STRICT;
INSERT INTO alert_sender VALUES (1, '', 0);
