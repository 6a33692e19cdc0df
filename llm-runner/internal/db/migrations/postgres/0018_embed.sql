-- owner: embed
-- Vectors by what they were made of, so that nothing is embedded twice. They can be made again; what was not used for a
-- while is removed.
CREATE TABLE embeddings (
  hash     TEXT    PRIMARY KEY,              -- SHA-256 of model, dimensions, prefix and text, in hexadecimal
  vector   BYTEA   NOT NULL,                 -- 16-bit floats, little-endian
  covers   BIGINT  NOT NULL,                 -- bytes of the text that the model has read
  used_day BIGINT  NOT NULL                  -- unix days, UTC
);
