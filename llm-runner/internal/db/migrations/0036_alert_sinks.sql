-- owner: alert
-- Several pass alerts on, and each has a telling of its own: one that is away neither holds up nor repeats what another one tells. alerts.told
-- stays what has been told at all, by the one who is ahead.
CREATE TABLE alert_sinks (
  name     TEXT    PRIMARY KEY,                -- Discord, ntfy, webhook
  after_id INTEGER NOT NULL,                   -- alerts up to this one are not its business: told all, or older than itself
  holder   TEXT    NOT NULL DEFAULT '',        -- which process tells it: of several on one database one at a time
  until    INTEGER NOT NULL DEFAULT 0          -- unix milliseconds
) STRICT;

CREATE TABLE alert_tellings (
  sink  TEXT    NOT NULL,
  alert INTEGER NOT NULL REFERENCES alerts (id) ON DELETE CASCADE,
  told  INTEGER NOT NULL,                      -- as in alerts
  PRIMARY KEY (sink, alert)
) STRICT;

-- Until now there was Discord.
INSERT INTO alert_sinks (name, after_id) VALUES ('Discord', 0);
INSERT INTO alert_tellings (sink, alert, told) SELECT 'Discord', id, told FROM alerts WHERE told > 0;

DROP TABLE alert_sender;
