-- owner: library
-- The index of words is the library's own now: segments instead of FTS5, and notes of several collections side by side. All of it
-- is made again from the files.
DROP TABLE library_vocab;
DROP TABLE library_fts;
DROP TABLE library_passages;
DROP TABLE library_names;
DROP TABLE library_notes;
DELETE FROM library_stamp;

CREATE TABLE library_notes (
  id         INTEGER PRIMARY KEY AUTOINCREMENT, -- never used twice: segments name notes and passages by it
  collection TEXT    NOT NULL,             -- vault, web, memory ...
  path       TEXT    NOT NULL,             -- relative to the tree, slashes
  size       INTEGER NOT NULL,             -- bytes
  mtime      INTEGER NOT NULL,             -- unix nanoseconds; 0: not to be trusted, the hash decides
  hash       BLOB    NOT NULL,             -- SHA-256 of the content; empty where it was not read
  title      TEXT    NOT NULL,
  tags       TEXT    NOT NULL DEFAULT '',  -- folded, each between line feeds
  type       TEXT    NOT NULL DEFAULT '',  -- folded, of the frontmatter
  day        TEXT    NOT NULL DEFAULT '',  -- YYYY-MM-DD, of the frontmatter, the file's name or its time
  language   INTEGER NOT NULL DEFAULT 0,   -- 0 English and all else, 1 German
  skipped    TEXT    NOT NULL DEFAULT '',  -- why the note has no passages; '' it has
  UNIQUE (collection, path)
) STRICT;

-- What a note is called: path, file name, title, aliases, folded to lower-case words.
CREATE TABLE library_names (
  name    TEXT    NOT NULL,
  note_id INTEGER NOT NULL REFERENCES library_notes (id) ON DELETE CASCADE,
  PRIMARY KEY (name, note_id)
) STRICT, WITHOUT ROWID;
CREATE INDEX library_names_by_note ON library_names (note_id);

CREATE TABLE library_passages (
  id         INTEGER PRIMARY KEY AUTOINCREMENT,
  note_id    INTEGER NOT NULL REFERENCES library_notes (id) ON DELETE CASCADE,
  heading    TEXT    NOT NULL,             -- the trail, one heading per line, outermost first
  front      INTEGER NOT NULL,             -- 1: the frontmatter
  start_byte INTEGER NOT NULL,             -- half-open
  end_byte   INTEGER NOT NULL,
  start_line INTEGER NOT NULL,             -- 1-based
  end_line   INTEGER NOT NULL,
  body       TEXT    NOT NULL              -- the bytes of the file
) STRICT;
CREATE INDEX library_passages_by_note ON library_passages (note_id);

CREATE TABLE library_segments (
  id       INTEGER PRIMARY KEY,
  postings BLOB NOT NULL                   -- library/segment.go
) STRICT;

-- What the owner does not want indexed.
CREATE TABLE library_excluded (
  pattern TEXT PRIMARY KEY
) STRICT, WITHOUT ROWID;
