package alert

import (
	"context"
	"errors"
	"fmt"
	"maps"
	"slices"
	"strings"
	"sync"
	"time"
)

const (
	leaseFor   = 15 * time.Second // longer than a sink takes to answer
	goneWait   = 10 * time.Minute // until a sink that needs a person is tried again
	mostWait   = time.Minute      // until one that is away is
	tidyEvery  = time.Hour
	mostUntold = 10_000 // looked at together
)

// A teller is what is remembered of one sink between its rounds.
type teller struct {
	sink      Sink
	wake      chan struct{} // capacity 1: there may be something to tell
	company   time.Time     // since when something has been waiting to be told
	notBefore time.Time     // the next message
	failures  int           // in a row
	complained
}

// complained is the last error that was logged, so that the log has each once.
type complained struct{ of string }

// Run writes down and tells what is raised until ctx ends. What is under way then is finished.
func (s *Service) Run(ctx context.Context) error {
	var telling sync.WaitGroup
	working := context.WithoutCancel(ctx)
	for _, t := range s.tellers {
		telling.Go(func() { s.tell(ctx, t) })
	}
	var tidied time.Time
	var last complained
	tick := time.NewTicker(s.config.Look)
	defer tick.Stop()
	for {
		s.round(working, &tidied, &last)
		for _, t := range s.tellers {
			signal(t.wake)
		}
		select {
		case <-s.wake:
		case <-tick.C:
		case <-ctx.Done():
			telling.Wait()
			return s.write(working)
		}
	}
}

// round brings the database up to date, and what is remembered of it.
func (s *Service) round(ctx context.Context, tidied *time.Time, last *complained) {
	now := time.Now()
	err := s.write(ctx)
	if err == nil {
		s.sweep(ctx, now)
		if now.Sub(*tidied) > tidyEvery {
			*tidied = now
			err = forget(ctx, s.db, now.Add(-keep), now.Add(-3*keep))
		}
	}
	if err != nil {
		s.complain(last, "write alerts", err)
	}
	s.look(ctx)
}

// tell has one sink tell what is due, until ctx ends; a message under way is finished.
func (s *Service) tell(ctx context.Context, t *teller) {
	working := context.WithoutCancel(ctx)
	for {
		select {
		case <-t.wake:
		case <-ctx.Done():
			return
		}
		now := time.Now()
		if now.Before(t.notBefore) {
			continue
		}
		due := s.due(working, t.sink.Name(), now)
		switch {
		case len(due) == 0:
			t.company = time.Time{}
			continue
		case t.company.IsZero():
			t.company = now
			continue
		case now.Sub(t.company) < s.config.Gather-s.config.Look/2:
			continue
		}
		if mine, err := lease(working, s.db, t.sink.Name(), s.me, now, now.Add(leaseFor)); err == nil && !mine {
			continue // another process tells it
		}
		s.send(working, t, due)
	}
}

// send passes one message on.
func (s *Service) send(ctx context.Context, t *teller, due []Alert) {
	text, taken := compose(time.Now(), due, t.sink.Max(), t.sink.Name(), s.config.Runbooks)
	again, err := Pass(ctx, t.sink, known(taken), text)
	s.failed(t.sink.Name(), err)
	if err == nil {
		s.told(t.sink.Name(), taken)
		t.failures, t.notBefore, t.of = 0, time.Now().Add(s.config.Pause), ""
		signal(s.wake) // it is written down at once
		return
	}
	s.complain(&t.complained, "pass on alerts to "+t.sink.Name()+"; they are kept until it works", err)
	var gone interface{ Gone() bool }
	switch {
	case again > 0:
		t.notBefore = time.Now().Add(max(again, min(time.Second<<min(t.failures, 10), mostWait)))
		t.failures++
	case errors.As(err, &gone) && gone.Gone():
		t.notBefore = time.Now().Add(goneWait)
	default:
		s.log.Error("alert refused for good", "sink", t.sink.Name(), "text", text)
		s.told(t.sink.Name(), taken)
		t.notBefore = time.Now().Add(s.config.Pause)
		signal(s.wake)
	}
}

// known is by what a message about these alerts is known: what they are and when they were, not how it is put, which changes while it waits.
func known(taken []Alert) string {
	var b strings.Builder
	for _, a := range taken {
		fmt.Fprintf(&b, "%s\n%s\n%d %d %d\n", a.Key, a.Text, a.Began.UnixMilli(), a.Ended.UnixMilli(), a.Told)
	}
	return b.String()
}

func (s *Service) failed(sink string, err error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	f, before := s.faults[sink]
	if err == nil {
		delete(s.faults, sink)
		return
	}
	if f.Err = err; !before {
		f.Since = time.Now()
	}
	s.faults[sink] = f
}

// complain logs an error unless the last one was the same.
func (s *Service) complain(last *complained, what string, err error) {
	if last.of != err.Error() {
		last.of = err.Error()
		s.log.Error(what, "error", err)
	}
}

// write puts on disk what is in memory, in order, as far as the disk takes it.
func (s *Service) write(ctx context.Context) error {
	for {
		if more, err := s.writeNext(ctx); err != nil {
			return err
		} else if !more {
			return s.writeMarks(ctx)
		}
	}
}

func (s *Service) writeNext(ctx context.Context) (more bool, err error) {
	s.disk.Lock()
	defer s.disk.Unlock()
	a := s.next()
	if a == nil {
		return false, nil
	}
	known := a.copied(&s.mu) // what is told meanwhile becomes a mark
	err = s.db.Tx(ctx, func(tx *transaction) error {
		if known.endOnly {
			return end(ctx, tx, known.Key, known.Over, known.Ended)
		}
		if err := insert(ctx, tx, &known); err != nil {
			return err
		}
		return s.join(ctx, tx, &known)
	})
	s.written(a, known, err)
	return true, err
}

// copied is the alert as it is at this moment.
func (a *Alert) copied(mu *sync.Mutex) Alert {
	mu.Lock()
	defer mu.Unlock()
	c := *a
	c.tellings = maps.Clone(a.tellings)
	return c
}

// written takes an alert that is on disk out of memory, or puts back what the disk refused.
func (s *Service) written(a *Alert, known Alert, err error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if err != nil {
		s.fresh = fold(append([]*Alert{a}, s.fresh...))
		return
	}
	a.ID = known.ID
	if known.Key != "" && known.ID != 0 && known.Ended.IsZero() && !slices.ContainsFunc(s.open, func(x Alert) bool { return x.Key == known.Key }) {
		s.open = append(slices.Clip(s.open), known) // until it is read again
	}
	for sink, t := range a.tellings {
		if t > known.tellings[sink] && a.ID != 0 {
			s.marks[sink][a.ID] = t
		}
	}
}

// join counts the jobs that were held for a provider before anybody knew why.
func (s *Service) join(ctx context.Context, tx *transaction, a *Alert) error {
	if s.config.Held == nil || a.Provider == "" || !a.Ended.IsZero() {
		return nil
	}
	held, err := s.config.Held(ctx, a.Provider, 1<<30)
	for job, since := range held {
		err = errors.Join(err, hold(ctx, tx, a.Provider, job, since))
	}
	return err
}

// next takes the oldest alert that is not on disk; nil where there is none.
func (s *Service) next() *Alert {
	s.mu.Lock()
	defer s.mu.Unlock()
	if len(s.fresh) == 0 {
		return nil
	}
	a := s.fresh[0]
	s.fresh = s.fresh[1:]
	return a
}

// writeMarks puts on disk what was told.
func (s *Service) writeMarks(ctx context.Context) error {
	s.disk.Lock()
	defer s.disk.Unlock()
	s.mu.Lock()
	all := map[string]map[int64]Telling{}
	n := 0
	for sink, marks := range s.marks {
		all[sink] = maps.Clone(marks)
		n += len(marks)
	}
	s.mu.Unlock()
	if n == 0 {
		return nil
	}
	err := s.db.Tx(ctx, func(tx *transaction) error {
		for sink, marks := range all {
			for id, t := range marks {
				if err := mark(ctx, tx, sink, id, t); err != nil {
					return err
				}
			}
		}
		return nil
	})
	if err != nil {
		return err
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	for sink, marks := range all {
		for id, t := range marks {
			if s.marks[sink][id] == t { // else more was told meanwhile
				delete(s.marks[sink], id)
			}
		}
	}
	return nil
}

// sweep ends the incidents for which no job is held any more.
func (s *Service) sweep(ctx context.Context, now time.Time) {
	if s.config.Held == nil {
		return
	}
	s.mu.Lock()
	open := s.open
	s.mu.Unlock()
	for _, a := range open {
		if !a.whileHeld || now.Sub(a.seen) < s.config.Linger {
			continue
		}
		if held, err := s.config.Held(ctx, a.Provider, 1); err != nil || len(held) > 0 {
			continue
		}
		over := a.Over
		if err := s.db.Tx(ctx, func(tx *transaction) error { return end(ctx, tx, a.Key, over, now) }); err != nil {
			return // the next round tries again
		}
	}
}

// look remembers what is open, for pages that must not wait for the disk.
func (s *Service) look(ctx context.Context) {
	open, err := list(ctx, s.db.Read(), "", openOnly, 1000)
	if err != nil {
		return
	}
	untold, err := counts(ctx, s.db.Read())
	if err != nil {
		return
	}
	s.mu.Lock()
	s.open, s.untold = open, untold
	s.mu.Unlock()
}

// due returns what a sink is to tell now: from the disk, and what the disk does not take.
func (s *Service) due(ctx context.Context, sink string, now time.Time) []Alert {
	s.disk.RLock()
	defer s.disk.RUnlock()
	all, err := list(ctx, s.db.Read(), sink, untold, mostUntold, sink)
	if err != nil {
		all = nil // it cannot be read; what is in memory is told all the same
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	var due []Alert
	for _, a := range all {
		if a.due.After(now) || s.marks[sink][a.ID] == All {
			continue
		}
		if s.marks[sink][a.ID] == Beginning {
			if a.Told = Beginning; a.Ended.IsZero() {
				continue
			}
		}
		due = append(due, a)
	}
	for _, a := range s.fresh {
		told := a.tellings[sink]
		if a.endOnly || a.passed() || a.due.After(now) || slices.ContainsFunc(s.open, func(x Alert) bool { return x.Key == a.Key }) || told == All || told == Beginning && a.Ended.IsZero() {
			continue
		}
		x := *a
		x.Told, x.origin = told, a
		due = append(due, x)
	}
	return due
}

// told remembers what a sink has passed on; write puts it on disk.
func (s *Service) told(sink string, taken []Alert) {
	s.mu.Lock()
	defer s.mu.Unlock()
	for _, a := range taken {
		t := Beginning
		if !a.Ended.IsZero() {
			t = All
		}
		switch {
		case a.origin == nil:
			s.marks[sink][a.ID] = max(s.marks[sink][a.ID], t)
		case a.origin.ID != 0: // it has come to the disk meanwhile
			s.marks[sink][a.origin.ID] = max(s.marks[sink][a.origin.ID], t)
		default:
			if a.origin.tellings == nil {
				a.origin.tellings = map[string]Telling{}
			}
			a.origin.tellings[sink] = max(a.origin.tellings[sink], t)
		}
	}
}
