package jobs

import (
	"time"

	"home.arpa/lab/llm-runner/internal/trace"
)

// traceWait tells how long a job has waited that does no longer, and its end where it has waited too long.
func (s *Service) traceWait(before, after Job) {
	if after.ID == 0 || !before.State.Waiting() {
		return // the call was stale
	}
	if before.State != after.State {
		op := trace.Queue
		if before.State == Held {
			op = trace.Hold
		}
		s.config.Traces.Tell(trace.Telling{Op: op, From: before.trace, Began: before.Since, Describe: func(span *trace.Span) {
			span.Set(trace.WaitsFor, before.WaitsFor)
			span.Set(trace.Dimension, before.Dimension)
			if before.State == Held && !before.ResumeAt.IsZero() {
				span.Set(trace.Until, before.ResumeAt.UTC().Format(time.RFC3339))
			}
			span.SetInt(trace.RunN, int64(before.Run))
		}})
	}
	s.traceEnd(after)
}

// traceEnd tells of a job that has ended: the root of its trace.
func (s *Service) traceEnd(j Job) {
	if !j.State.Ended() {
		return
	}
	x := trace.Telling{Op: trace.Job, Of: string(j.Type), Self: j.trace, From: j.traceFrom, Began: j.Created, Ended: j.Ended, Describe: func(span *trace.Span) {
		span.SetInt(trace.JobID, j.ID)
		span.Set(trace.JobType, string(j.Type))
		span.Set(trace.State, string(j.State))
		span.Set(trace.Asked, j.Asked)
		span.Set(trace.Name, j.Route.Provider)
		span.Set(trace.Answered, j.Route.Model)
		span.Set(trace.Rule, j.Route.Rule)
		span.SetTotal(j.Usage)
		span.SetCost(j.Cost)
		span.SetInt(trace.RunN, int64(j.Run))
		if span.Content() {
			span.Set(trace.Title, j.Title)
		}
	}}
	if j.State != Done {
		x.Fault = string(j.State)
	}
	s.config.Traces.Tell(x)
}

// traceAgain begins the trace of a job that is tried again, with a link to the one before, whose root has been told.
func (s *Service) traceAgain(j *Job) {
	before := j.trace
	j.trace, j.traceFrom = s.config.Traces.Anew(before)
}
