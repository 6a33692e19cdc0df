-- owner: library
-- Documents that are not files of the vault: uploads, fetched pages, facts. All processes index them; their index is each process's own.
CREATE TABLE library_documents (
  collection TEXT   NOT NULL,
  path       TEXT   NOT NULL,              -- its name in the collection
  rev        BIGINT NOT NULL,              -- grows with every change of any document
  title      TEXT   NOT NULL DEFAULT '',   -- '' that of the text
  url        TEXT   NOT NULL DEFAULT '',   -- where it came from
  type       TEXT   NOT NULL DEFAULT '',
  tags       TEXT   NOT NULL DEFAULT '',   -- one per line
  day        TEXT   NOT NULL DEFAULT '',   -- YYYY-MM-DD
  format     TEXT   NOT NULL DEFAULT '',   -- of what it was read from
  pages      TEXT   NOT NULL DEFAULT '',   -- bytes of text at which pages begin, with commas; '' it has none
  remarks    TEXT   NOT NULL DEFAULT '',   -- what could not be read, one per line
  added_at   BIGINT NOT NULL,              -- unix milliseconds
  text       TEXT   NOT NULL,              -- what is quoted are bytes of it
  PRIMARY KEY (collection, path)
);
CREATE INDEX library_documents_by_rev ON library_documents (rev);
