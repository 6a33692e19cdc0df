package jobs

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"strings"
	"time"
	"unicode/utf8"
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

// job checks a Spec and fills in what it leaves out. The error is a SpecError.
func (c Spec) job() (Job, error) {
	var wrong SpecError
	fault := func(field, format string, args ...any) {
		wrong = append(wrong, FieldError{field, fmt.Sprintf(format, args...)})
	}
	j := Job{Type: c.Type, Prompt: strings.TrimSpace(strings.ToValidUTF8(c.Prompt, "\uFFFD")), Asked: strings.TrimSpace(c.Model),
		Requires: strings.TrimSpace(c.Requires), Project: c.Project, Priority: c.Priority, MaxAttempts: c.MaxAttempts}
	if j.Type == "" {
		j.Type = Text
	}
	if !slices.Contains(Types, j.Type) {
		fault("type", "%q is not one of text, chain, research", c.Type)
	}
	switch {
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
	if j.Type == Research && (j.Asked != "" && j.Asked != vault) {
		fault("model", "research is answered by the notes (model vault): leave the model out")
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
	if j, err = c.job(); err != nil {
		return Job{}, false, err
	}
	j.Key = key
	err = s.db.Tx(ctx, func(tx *transaction) error {
		if key != "" {
			before, err := byKey(ctx, tx, key)
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
		return save(ctx, tx, &j)
	})
	if err != nil {
		return Job{}, false, err
	}
	s.announce()
	j, err = s.Job(ctx, j.ID)
	return j, fresh, err
}

func same(a, b Job) bool {
	return a.Type == b.Type && a.Prompt == b.Prompt && a.Asked == b.Asked && a.Requires == b.Requires && a.Project == b.Project &&
		a.Priority == b.Priority && a.Deadline == b.Deadline && a.MaxAttempts == b.MaxAttempts
}

// Cancel ends a job that has not ended. A job that was cancelled before stays so.
func (s *Service) Cancel(ctx context.Context, id int64) (Job, error) {
	j, err := s.change(ctx, id, func(tx *transaction, j *Job) error {
		if j.State == Cancelled {
			return nil
		}
		if j.State.Ended() {
			return &StateError{j.State, "cancel"}
		}
		return move(ctx, tx, j, Cancelled, "cancelled by a person")
	})
	if err != nil {
		return j, err
	}
	s.mu.Lock()
	if stop := s.running[j.key()]; stop != nil {
		stop(errCancelled)
	}
	s.mu.Unlock()
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
	j, err := s.change(ctx, id, func(tx *transaction, j *Job) error {
		if j.State != Held {
			return &StateError{j.State, "release"}
		}
		j.ResumeAt = at
		return move(ctx, tx, j, Queued, note)
	})
	if err != nil {
		return j, err
	}
	return j, s.engine.Wake(j.call(), at)
}

// Retry has a failed or cancelled job begin once more, with all its attempts. Finished steps of a chain are kept.
func (s *Service) Retry(ctx context.Context, id int64) (Job, error) {
	return s.change(ctx, id, func(tx *transaction, j *Job) error {
		if j.State != Failed && j.State != Cancelled {
			return &StateError{j.State, "retry"}
		}
		j.Attempts, j.Holds, j.Waited, j.Reason, j.WaitsFor, j.Ended, j.ResumeAt = 0, 0, 0, "", "", time.Time{}, time.Time{}
		if err := move(ctx, tx, j, Queued, "tried again by a person"); err != nil {
			return err
		}
		return s.start(tx, j, 0)
	})
}

// Back has the jobs go on that are held for a provider: it is there again. They come one after another, a little apart, so
// that a machine that has just started is not stormed.
func (s *Service) Back(ctx context.Context, provider string) error {
	all, err := list(ctx, s.db.Read(), Filter{States: []State{Held}, WaitsFor: provider, Limit: 1 << 30})
	if err != nil {
		return err
	}
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
