-- owner: library
-- The index of one tree of notes. The files are the truth: everything here can be made again from them.
CREATE TABLE library_stamp (
  id     INTEGER PRIMARY KEY CHECK (id = 1),
  source TEXT NOT NULL                     -- which tree, taken apart by which version of the program
) STRICT;

CREATE TABLE library_notes (
  id      INTEGER PRIMARY KEY,
  path    TEXT    NOT NULL UNIQUE,         -- relative to the tree, slashes
  size    INTEGER NOT NULL,                -- bytes
  mtime   INTEGER NOT NULL,                -- unix nanoseconds; 0: not to be trusted, the hash decides
  hash    BLOB    NOT NULL,                -- SHA-256 of the content; empty where it was not read
  title   TEXT    NOT NULL,
  skipped TEXT    NOT NULL DEFAULT ''      -- why the note has no passages; '' it has
) STRICT;

-- What a note is called: path, file name, title, aliases, folded to lower-case words.
CREATE TABLE library_names (
  name    TEXT    NOT NULL,
  note_id INTEGER NOT NULL REFERENCES library_notes (id) ON DELETE CASCADE,
  PRIMARY KEY (name, note_id)
) STRICT, WITHOUT ROWID;
CREATE INDEX library_names_by_note ON library_names (note_id);

CREATE TABLE library_passages (
  id         INTEGER PRIMARY KEY,          -- the rowid in library_fts
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

CREATE VIRTUAL TABLE library_fts USING fts5(
  title, aliases, heading, path, tags, body,
  content='', contentless_delete=1, tokenize='porter unicode61 remove_diacritics 2'
);
CREATE VIRTUAL TABLE library_vocab USING fts5vocab(library_fts, row);
