-- owner: library
-- When everything was read again last, in seconds of Unix time; 0 it was not since this is kept.
ALTER TABLE library_stamp ADD COLUMN renewed INTEGER NOT NULL DEFAULT 0;
