-- owner: chat
-- A conversation is a tree of messages: an edited question and a regenerated answer stand beside the ones they replace.
-- Times are unix milliseconds, UTC. Numbers are never used twice, so an old link cannot open somebody else's text.
CREATE TABLE chats (
  id         INTEGER PRIMARY KEY AUTOINCREMENT,
  title      TEXT    NOT NULL,
  leaf       INTEGER NOT NULL DEFAULT 0,     -- the last message of the branch that is shown; 0: there is none
  model      TEXT    NOT NULL DEFAULT '',    -- as it was last asked for
  project    INTEGER NOT NULL DEFAULT 0,
  created_at INTEGER NOT NULL,
  updated_at INTEGER NOT NULL
) STRICT;

CREATE INDEX chats_by_time ON chats (updated_at);

CREATE TABLE messages (
  id         INTEGER PRIMARY KEY AUTOINCREMENT,
  chat       INTEGER NOT NULL REFERENCES chats (id) ON DELETE CASCADE,
  parent     INTEGER REFERENCES messages (id) ON DELETE CASCADE,  -- NULL: begins the conversation
  role       TEXT    NOT NULL CHECK (role IN ('user', 'assistant')),
  text       TEXT    NOT NULL,               -- of a running turn: '' until it ends, see turn_pieces
  sent_key   TEXT    UNIQUE,                 -- told by the sender, so that a form sent twice asks once
  created_at INTEGER NOT NULL
) STRICT;

CREATE INDEX messages_by_chat ON messages (chat);
CREATE INDEX messages_by_parent ON messages (parent);

-- A turn is the making of an answer; it has the answer's number.
CREATE TABLE turns (
  id              INTEGER PRIMARY KEY REFERENCES messages (id) ON DELETE CASCADE,
  state           TEXT    NOT NULL,
  seq             INTEGER NOT NULL DEFAULT 0,   -- of the last event in its log
  asked           TEXT    NOT NULL,             -- the model that was asked for; '': none named
  project         INTEGER NOT NULL DEFAULT 0,
  provider        TEXT    NOT NULL DEFAULT '',
  model           TEXT    NOT NULL DEFAULT '',
  rule            TEXT    NOT NULL DEFAULT '',
  why             TEXT    NOT NULL DEFAULT '',
  started_at      INTEGER NOT NULL,
  first_us        INTEGER,                      -- microseconds from the start to the first token
  ended_at        INTEGER,
  input_tokens    INTEGER,                      -- NULL: the provider did not tell
  output_tokens   INTEGER,
  cached_tokens   INTEGER,
  thinking_tokens INTEGER,
  cost_micro_usd  INTEGER,                      -- NULL: no price is known
  thinking        TEXT    NOT NULL DEFAULT '',
  citations       TEXT    NOT NULL DEFAULT '[]',  -- JSON, as llm.Citation
  finish          TEXT    NOT NULL DEFAULT '',
  error           TEXT    NOT NULL DEFAULT '',
  retry_at        INTEGER                       -- when a held turn may be asked again; NULL: nobody knows
) STRICT;

CREATE INDEX turns_running ON turns (id) WHERE state IN ('waiting', 'streaming');

-- What has come of running turns, in the order of seq; folded into messages.text when the turn ends.
CREATE TABLE turn_pieces (
  turn     INTEGER NOT NULL REFERENCES turns (id) ON DELETE CASCADE,
  seq      INTEGER NOT NULL,
  text     TEXT    NOT NULL,
  thinking TEXT    NOT NULL,
  PRIMARY KEY (turn, seq)
) STRICT, WITHOUT ROWID;

CREATE VIRTUAL TABLE messages_fts USING fts5 (text, content='messages', content_rowid='id', tokenize='unicode61 remove_diacritics 2');

CREATE TRIGGER messages_fts_insert AFTER INSERT ON messages BEGIN
  INSERT INTO messages_fts (rowid, text) VALUES (new.id, new.text);
END;

CREATE TRIGGER messages_fts_update AFTER UPDATE OF text ON messages BEGIN
  INSERT INTO messages_fts (messages_fts, rowid, text) VALUES ('delete', old.id, old.text);
  INSERT INTO messages_fts (rowid, text) VALUES (new.id, new.text);
END;

CREATE TRIGGER messages_fts_delete AFTER DELETE ON messages BEGIN
  INSERT INTO messages_fts (messages_fts, rowid, text) VALUES ('delete', old.id, old.text);
END;
