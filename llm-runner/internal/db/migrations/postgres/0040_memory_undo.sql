-- owner: memory
-- Which change decided a contradiction, so that undoing the change opens it again; and which facts are still to be compared with the others:
-- those that were told or added, for which no model was asked.
ALTER TABLE memory_conflicts ADD COLUMN decided_by BIGINT NOT NULL DEFAULT 0;  -- of memory_changes; 0: none, or from before this column
ALTER TABLE memory_facts     ADD COLUMN compared   BOOLEAN NOT NULL DEFAULT TRUE;
ALTER TABLE memory_facts     ADD COLUMN same     BOOLEAN NOT NULL DEFAULT FALSE;  -- of superseded: what took its place says the same

UPDATE memory_facts SET compared = FALSE WHERE origin <> 'learned' AND state = 'current';
