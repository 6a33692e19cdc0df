-- owner: memory
-- Which change decided a contradiction, so that undoing the change opens it again; and which facts are still to be compared with the others:
-- those that were told or added, for which no model was asked.
ALTER TABLE memory_conflicts ADD COLUMN decided_by INTEGER NOT NULL DEFAULT 0;  -- of memory_changes; 0: none, or from before this column
ALTER TABLE memory_facts     ADD COLUMN compared   INTEGER NOT NULL DEFAULT 1;
ALTER TABLE memory_facts     ADD COLUMN same     INTEGER NOT NULL DEFAULT 0;  -- of superseded: what took its place says the same

UPDATE memory_facts SET compared = 0 WHERE origin <> 'learned' AND state = 'current';
