package jobs

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"slices"
	"strings"
	"time"
	"unicode/utf8"

	"home.arpa/lab/llm-runner/internal/db"
	"home.arpa/lab/llm-runner/internal/llm"
)

// A FieldError is what is wrong with one field of a Spec, as a sentence that says what to change.
type FieldError struct {
	Field string `json:"field"`
	Text  string `json:"text"`
}

func (e FieldError) Error() string { return e.Field + ": " + e.Text }

// A SpecError is everything that is wrong with a Spec.
type SpecError []FieldError

func (e SpecError) Error() string {
	all := make([]string, len(e))
	for i, f := range e {
		all[i] = f.Error()
	}
	return strings.Join(all, "; ")
}

const (
	maxPrompt       = 4 << 20
	defaultPriority = 5
	defaultAttempts = 5
	mostAttempts    = 100
)

// job checks a Spec and fills in what it leaves out; f is nil where there are no vault folders. The error is a SpecError.
func (c Spec) job(f *Folders) (Job, error) {
	var wrong SpecError
	fault := func(field, format string, args ...any) {
		wrong = append(wrong, FieldError{field, fmt.Sprintf(format, args...)})
	}
	j := Job{Type: c.Type, Prompt: strings.TrimSpace(strings.ToValidUTF8(c.Prompt, "\uFFFD")), Asked: strings.TrimSpace(c.Model),
		Requires: strings.TrimSpace(c.Requires), Project: c.Project, Priority: c.Priority, MaxAttempts: c.MaxAttempts, Tools: c.Tools, Plan: c.Plan, Notify: c.Notify, Output: c.Output}
	if j.Type == "" {
		j.Type = Text
	}
	if len(c.Request) > 0 {
		j.Request = c.Request
		req, err := parse(c.Request)
		switch {
		case len(c.Request) > maxPrompt:
			fault("request", "has %d bytes, more than %d: send smaller pictures", len(c.Request), maxPrompt)
		case err != nil:
			fault("request", "%v", err)
		case j.Type != Text || j.Prompt != "" || j.Asked != "":
			fault("request", "is given, so type, prompt and model must be left out: they stand in it")
		default:
			j.Prompt, j.Asked = question(req), req.Model
		}
	}
	if !slices.Contains(Types, j.Type) {
		fault("type", "%q is not one of text, chain, research", c.Type)
	}
	switch {
	case len(j.Request) > 0: // it has been checked
	case j.Prompt == "":
		fault("prompt", "is empty: write what is to be done")
	case len(j.Prompt) > maxPrompt:
		fault("prompt", "has %d bytes, more than %d: shorten it", len(j.Prompt), maxPrompt)
	case j.Type == Chain && len(split(j.Prompt)) == 0:
		fault("prompt", "has no step: begin each step of a chain with a heading of level 2 (## Name) and text below it")
	}
	if j.Priority == 0 {
		j.Priority = defaultPriority
	}
	if j.Priority < 1 || j.Priority > 9 {
		fault("priority", "%d is not between 1 (first) and 9 (last)", c.Priority)
	}
	switch j.Notify {
	case NotifyNever, NotifyAlways, NotifySuccess, NotifyFailure:
	default:
		fault("notify", "%q is not one of always, success, failure: leave it out to be told nothing", c.Notify)
	}
	if c.Deadline != "" {
		d, err := time.ParseDuration(c.Deadline)
		switch {
		case err != nil:
			fault("deadline", "%q is not a duration: write 90m or 12h", c.Deadline)
		case d < time.Millisecond:
			fault("deadline", "%s is not more than nothing: leave it out to wait as long as it takes", c.Deadline)
		}
		j.Deadline = d
	}
	if j.MaxAttempts == 0 {
		j.MaxAttempts = defaultAttempts
	}
	if j.MaxAttempts < 1 || j.MaxAttempts > mostAttempts {
		fault("max_attempts", "%d is not between 1 and %d", c.MaxAttempts, mostAttempts)
	}
	for i, name := range c.Tools {
		if name == "" || strings.ContainsAny(name, " \t\r\n,") {
			fault(fmt.Sprintf("tools[%d]", i), "%q is not the name of a tool: write for example web_search, or * for all", name)
		}
	}
	switch {
	case len(c.Tools) > 0 && j.Type == Research:
		fault("tools", "research looks into your sources and the web by itself and calls no tools: leave tools out, or make the type text")
	case len(c.Tools) > 0 && len(j.Request) > 0:
		fault("tools", "are given, and a request brings its own: leave one of the two out")
	}
	switch {
	case c.Plan != "" && c.Plan != llm.PlanAsk && c.Plan != llm.PlanAuto:
		fault("plan", "%q is not one of ask, auto: ask shows you the plan before anything is searched", c.Plan)
	case c.Plan != "" && j.Type != Research:
		fault("plan", "only research has a plan: leave it out, or make the type research")
	}
	if j.Type == Research && (j.Asked != "" && j.Asked != "vault" && j.Asked != researcher) {
		fault("model", "research is answered by the model research: leave the model out")
	}
	if c.Output != "" {
		if why := f.outputFault(c.Output); why != "" {
			fault("output", "%s", why)
		}
	}
	if j.Title = title(c.Title); j.Title == "" {
		j.Title = title(j.Prompt)
	}
	if len(wrong) > 0 {
		return Job{}, wrong
	}
	return j, nil
}

// title is the first words of a text, at most about 60 characters, without the marks of a heading.
func title(text string) string {
	text = strings.Join(strings.Fields(strings.TrimLeft(strings.ToValidUTF8(text, ""), "# \n\t")), " ")
	const most = 60
	if utf8.RuneCountInString(text) <= most {
		return text
	}
	return strings.TrimRight(string([]rune(text)[:most]), " ,.;:-") + "\u2026"
}

// Submit acknowledges a job: when it returns without an error, the job is on disk and will end. A key that was used before
// returns the job of that time, with fresh false; ErrKeyUsed if that was another job.
func (s *Service) Submit(ctx context.Context, c Spec, key string) (j Job, fresh bool, err error) {
	if j, err = c.job(s.config.Folders); err != nil {
		return Job{}, false, err
	}
	j.Key = key
	return s.acknowledge(ctx, j)
}

// acknowledge writes a checked job down, for the engine to call.
func (s *Service) acknowledge(ctx context.Context, wanted Job) (j Job, fresh bool, err error) {
	wanted.trace, wanted.traceFrom = s.config.Traces.Origin(ctx)
	write := func(tx *transaction) error {
		if j, fresh = wanted, false; j.Key != "" {
			before, err := byKey(ctx, tx, j.Key)
			if err == nil {
				if !same(before, j) {
					return ErrKeyUsed
				}
				j = before
				return nil
			}
			if !errors.Is(err, ErrNotFound) {
				return err
			}
		}
		fresh = true
		if err := insert(ctx, tx, &j, time.Now()); err != nil {
			return err
		}
		if err := s.start(tx, &j, 0); err != nil {
			return err
		}
		if err := save(ctx, tx, &j); err != nil {
			return err
		}
		return tell(ctx, s.db, tx, "")
	}
	err = s.db.Tx(ctx, write)
	if db.Taken(err) { // the same job came to another process at the same moment: now it is there
		err = s.db.Tx(ctx, write)
	}
	if err != nil {
		return Job{}, false, err
	}
	s.announce()
	j, err = s.read(ctx, j.ID)
	return j, fresh, err
}

func same(a, b Job) bool {
	return a.Type == b.Type && a.Prompt == b.Prompt && a.Asked == b.Asked && a.Requires == b.Requires && a.Project == b.Project &&
		a.Priority == b.Priority && a.Deadline == b.Deadline && a.MaxAttempts == b.MaxAttempts && slices.Equal(a.Tools, b.Tools) && a.Plan == b.Plan && a.Notify == b.Notify && bytes.Equal(a.Request, b.Request) &&
		a.Output == b.Output
}

// Cancel ends a job that has not ended. A job that was cancelled before stays so.
func (s *Service) Cancel(ctx context.Context, id int64) (Job, error) {
	var before Job
	j, err := s.change(ctx, id, func(tx *transaction, j *Job) error {
		before = *j
		if j.State == Cancelled {
			return nil
		}
		if j.State.Ended() {
			return &StateError{j.State, "cancel"}
		}
		if err := move(ctx, tx, j, Cancelled, "cancelled by a person"); err != nil {
			return err
		}
		return tell(ctx, s.db, tx, cancelWord+j.key())
	})
	if err != nil {
		return j, err
	}
	s.end(j.key())
	switch {
	case before.State.Waiting():
		s.traceWait(before, j)
	case !before.State.Ended():
		s.traceEnd(j)
	}
	if err := s.engine.Cancel(j.call()); err != nil { // a call that comes all the same finds the job cancelled
		s.log.Warn("cancel job", "job", id, "error", err)
	}
	return j, nil
}

// Release has a held job go on now.
func (s *Service) Release(ctx context.Context, id int64) (Job, error) {
	return s.release(ctx, id, "released by a person", time.Now())
}

func (s *Service) release(ctx context.Context, id int64, note string, at time.Time) (Job, error) {
	var before Job
	j, err := s.change(ctx, id, func(tx *transaction, j *Job) error {
		if before = *j; j.State != Held {
			return &StateError{j.State, "release"}
		}
		j.ResumeAt = at
		return move(ctx, tx, j, Queued, note)
	})
	if err != nil {
		return j, err
	}
	s.traceWait(before, j)
	return j, s.engine.Wake(j.call(), at)
}

// Retry has a failed or cancelled job begin once more, with all its attempts. Finished steps of a chain are kept.
func (s *Service) Retry(ctx context.Context, id int64) (Job, error) {
	return s.change(ctx, id, func(tx *transaction, j *Job) error {
		if j.State != Failed && j.State != Cancelled {
			return &StateError{j.State, "retry"}
		}
		j.Attempts, j.Holds, j.Waited, j.Ended = 0, 0, 0, time.Time{}
		s.traceAgain(j)
		j.free()
		if err := move(ctx, tx, j, Queued, "tried again by a person"); err != nil {
			return err
		}
		return s.start(tx, j, 0)
	})
}

// Room has the jobs go on that are held for a provider's limit and whose turn has come before the time they were told: an answer
// used less than was thought, or told of more room. They are let go in the order of their line, and as many as there is room for.
func (s *Service) Room(ctx context.Context, provider string) error {
	if s.config.Turn == nil {
		return nil
	}
	line, err := limitLine(ctx, s.db.Read(), provider, 64)
	if err != nil {
		return err
	}
	before := map[string]int{} // by model: who has their turn already
	for _, w := range line {
		turn, now := s.config.Turn(provider, w.model, w.size, before[w.model]), time.Now()
		if turn.After(now) {
			before[w.model] = 1 << 20 // and so has nobody after it
			continue
		}
		before[w.model]++
		if w.resume.Before(now.Add(spread)) {
			continue // it goes on by itself
		}
		_, err := s.release(ctx, w.id, "there is room earlier than was thought", now)
		var other *StateError
		if err != nil && !errors.As(err, &other) { // it went on or ended meanwhile
			return err
		}
	}
	return nil
}

// Back has the jobs go on that are held for a provider, or for the limit of its fallback: it is there again. They come one after
// another, a little apart, so that a machine that has just started is not stormed.
func (s *Service) Back(ctx context.Context, provider string) error {
	all, err := list(ctx, s.db.Read(), Filter{States: []State{Held}, Limit: 1 << 30})
	if err != nil {
		return err
	}
	all = slices.DeleteFunc(all, func(j Job) bool {
		return j.WaitsFor != provider && (j.Dimension == "" || s.config.Lane == nil || s.config.Lane(s.request(&j, "")) != provider)
	})
	const apart = 20 * time.Millisecond
	for i, j := range all {
		_, err := s.release(ctx, j.ID, provider+" is back", time.Now().Add(time.Duration(i)*apart))
		var other *StateError
		if err != nil && !errors.As(err, &other) { // it went on or ended meanwhile
			return err
		}
	}
	return nil
}
