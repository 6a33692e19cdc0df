-- owner: memory
-- What is remembered about the person, where each fact comes from, and what became of it. Times are unix milliseconds, UTC. Numbers are
-- never used twice, so an old link cannot lead to another fact.
CREATE TABLE memory_facts (
  id            INTEGER PRIMARY KEY AUTOINCREMENT,
  text          TEXT    NOT NULL,
  norm          TEXT    NOT NULL,            -- the text as it is compared
  state         TEXT    NOT NULL CHECK (state IN ('current', 'superseded', 'undone', 'forgetting')),
  origin        TEXT    NOT NULL CHECK (origin IN ('learned', 'told', 'added')),
  confidence    REAL    NOT NULL,            -- 0 to 1
  private       INTEGER NOT NULL,            -- 1: no cloud provider may see it
  superseded_by INTEGER,                     -- the fact that took its place; NULL none
  rev           INTEGER NOT NULL DEFAULT 1,  -- grows with every change
  indexed       INTEGER NOT NULL DEFAULT 0,  -- the rev that the library has
  created_at    INTEGER NOT NULL,
  changed_at    INTEGER NOT NULL
) STRICT;

CREATE UNIQUE INDEX memory_facts_once ON memory_facts (norm) WHERE state = 'current';

-- The words that a fact rests on: bytes of a message of the person. A fact that was added by hand has none.
CREATE TABLE memory_sources (
  id         INTEGER PRIMARY KEY AUTOINCREMENT,
  fact       INTEGER NOT NULL REFERENCES memory_facts (id) ON DELETE CASCADE,
  chat       INTEGER NOT NULL,
  message    INTEGER NOT NULL,
  quote      TEXT    NOT NULL,
  start_byte INTEGER NOT NULL,               -- of the quote in the message
  private    INTEGER NOT NULL,
  said_at    INTEGER NOT NULL,
  UNIQUE (fact, message)
) STRICT;

CREATE INDEX memory_sources_by_message ON memory_sources (message);

-- Two facts that cannot both be true, until a person says which one is.
CREATE TABLE memory_conflicts (
  id          INTEGER PRIMARY KEY AUTOINCREMENT,
  older       INTEGER NOT NULL REFERENCES memory_facts (id) ON DELETE CASCADE,
  newer       INTEGER NOT NULL REFERENCES memory_facts (id) ON DELETE CASCADE,
  outcome     TEXT    NOT NULL DEFAULT '',   -- older, newer or both: what holds; undone: one was taken back; '': it is open
  opened_at   INTEGER NOT NULL,
  resolved_at INTEGER,
  UNIQUE (older, newer)
) STRICT;

-- What was done to facts, so that it can be undone.
CREATE TABLE memory_changes (
  id       INTEGER PRIMARY KEY AUTOINCREMENT,
  fact     INTEGER NOT NULL REFERENCES memory_facts (id) ON DELETE CASCADE,
  kind     TEXT    NOT NULL CHECK (kind IN ('made', 'edited', 'resolved')),
  conflict INTEGER NOT NULL DEFAULT 0,       -- of resolved
  before   TEXT    NOT NULL DEFAULT '',      -- of edited: the text
  run      TEXT    NOT NULL,
  undone   INTEGER NOT NULL DEFAULT 0,
  at       INTEGER NOT NULL
) STRICT;

CREATE INDEX memory_changes_by_fact ON memory_changes (fact);

-- The messages that were read: none is read twice.
CREATE TABLE memory_read (
  message INTEGER PRIMARY KEY,
  chat    INTEGER NOT NULL,
  run     TEXT    NOT NULL,
  found   INTEGER NOT NULL,                  -- facts that came of it, repeated ones too
  dropped TEXT    NOT NULL,                  -- JSON: how many did not, by reason
  read_at INTEGER NOT NULL
) STRICT;

CREATE INDEX memory_read_by_chat ON memory_read (chat);

-- How far each conversation was read: when it had changed last.
CREATE TABLE memory_chats (
  chat INTEGER PRIMARY KEY,
  seen INTEGER NOT NULL
) STRICT;

-- What a model has answered about a message that is not read to its end: it is not asked again.
CREATE TABLE memory_answers (
  message INTEGER NOT NULL,
  key     TEXT    NOT NULL,                  -- SHA-256 of the question, in hexadecimal
  answer  TEXT    NOT NULL,
  at      INTEGER NOT NULL,
  PRIMARY KEY (message, key)
) STRICT, WITHOUT ROWID;

-- One row while bytes of forgotten facts may be left in the files of the databases.
CREATE TABLE memory_scrub (
  id INTEGER PRIMARY KEY CHECK (id = 1),
  at INTEGER NOT NULL
) STRICT;
