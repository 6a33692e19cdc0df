-- owner: jobs
-- A job's trace outlives processes: its root span is told once, when the job has ended, and the spans of each life hang below it.
-- Both are in the form of the header traceparent.
ALTER TABLE jobs ADD COLUMN trace      TEXT NOT NULL DEFAULT '';  -- the root span; '': the job is not traced
ALTER TABLE jobs ADD COLUMN trace_from TEXT NOT NULL DEFAULT '';  -- the caller's span above it, or what it was tried again from; '': none
