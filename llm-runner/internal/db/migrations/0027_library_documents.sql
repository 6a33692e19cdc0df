-- owner: library
-- Documents that are not files of the vault: uploads, fetched pages, facts. They cannot be made again, so their text is kept here;
-- what is found of them is in the index like that of notes.
CREATE TABLE library_documents (
  collection TEXT    NOT NULL,
  path       TEXT    NOT NULL,             -- its name in the collection
  rev        INTEGER NOT NULL,             -- grows with every change of any document
  title      TEXT    NOT NULL DEFAULT '',  -- '' that of the text
  url        TEXT    NOT NULL DEFAULT '',  -- where it came from
  type       TEXT    NOT NULL DEFAULT '',
  tags       TEXT    NOT NULL DEFAULT '',  -- one per line
  day        TEXT    NOT NULL DEFAULT '',  -- YYYY-MM-DD
  format     TEXT    NOT NULL DEFAULT '',  -- of what it was read from
  pages      TEXT    NOT NULL DEFAULT '',  -- bytes of text at which pages begin, with commas; '' it has none
  remarks    TEXT    NOT NULL DEFAULT '',  -- what could not be read, one per line
  added_at   INTEGER NOT NULL,             -- unix milliseconds
  text       TEXT    NOT NULL,             -- what is quoted are bytes of it
  PRIMARY KEY (collection, path)
) STRICT;
CREATE INDEX library_documents_by_rev ON library_documents (rev);

-- Notes that are not Markdown: what is quoted are bytes of their text, which the passages put together are.
ALTER TABLE library_notes ADD COLUMN pages TEXT NOT NULL DEFAULT '';
ALTER TABLE library_notes ADD COLUMN remarks TEXT NOT NULL DEFAULT '';
