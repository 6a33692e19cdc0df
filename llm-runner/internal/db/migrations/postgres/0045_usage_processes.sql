-- owner: usage
-- How many processes have opened the books that they share: each makes the ids of its rows with its number.
CREATE TABLE usage_processes (
  id    BIGINT  PRIMARY KEY,       -- 1
  begun BIGINT  NOT NULL
);
INSERT INTO usage_processes VALUES (1, 0);
