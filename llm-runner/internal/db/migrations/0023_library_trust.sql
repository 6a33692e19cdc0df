-- owner: library
-- How far the vectors of a model can be trusted with a collection, as library/trust.go measures it.
CREATE TABLE library_trust (
  collection TEXT    NOT NULL,
  model      TEXT    NOT NULL,
  trust      REAL    NOT NULL,               -- 0 to 1
  notes      INTEGER NOT NULL,               -- that the collection had then
  PRIMARY KEY (collection, model)
) STRICT, WITHOUT ROWID;
