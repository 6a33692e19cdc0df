package chat

import (
	"context"
	"strconv"
	"strings"
	"time"
)

// Several processes may share the conversations: a turn is run by the one that took the question, and the others read in the
// database what has come of it.

const (
	stopWord = "stop "
	// lookEvery is how often a reader looks by itself at a turn of another process, should it not be told.
	lookEvery = time.Second
	// orphanAge is how long a turn of ours may be in the database before it is in memory.
	orphanAge = 10 * time.Second
)

// Adopt marks the turns Interrupted that another process left running; it is dead.
func (s *Service) Adopt(ctx context.Context, worker string) error {
	err := adopt(ctx, s.db, worker, s.dueOf(dueAll))
	s.missed.Store(true)
	return err
}

// hear takes what other processes tell about turns.
func (s *Service) hear(text string) {
	number, stop := strings.CutPrefix(text, stopWord)
	turn, _ := strconv.ParseInt(number, 10, 64) // "": anything may have changed
	if stop {
		if l := s.running(turn); l != nil {
			l.cancel(errStop)
		}
		return
	}
	if text == "" {
		time.AfterFunc(orphanAge, func() { s.disown(context.Background()) })
	}
	s.changed(turn)
}

// changed wakes the readers of a turn that did not run here until now; 0 those of all.
func (s *Service) changed(turn int64) {
	s.mu.Lock()
	defer s.mu.Unlock()
	for id, changed := range s.watchers {
		if turn == 0 || id == turn {
			close(changed)
			delete(s.watchers, id)
		}
	}
}

// disown marks the turns Interrupted that count as this process's and that it does not run: the connection broke before it
// heard that they were written, and whoever asked was told that they were not. Those that were asked by themselves go on.
func (s *Service) disown(ctx context.Context) {
	ctx, cancel := context.WithTimeout(ctx, orphanAge)
	defer cancel()
	all, err := runningBy(ctx, s.db.Read(), s.db.Worker(), time.Now().Add(-orphanAge))
	if err != nil {
		return // the next time that the connection comes back
	}
	for _, turn := range all {
		if s.running(turn) == nil {
			if err := adoptOne(ctx, s.db, turn, s.db.Worker(), s.dueOf(dueAsked)); err != nil {
				s.log.Warn("recover answer", "turn", turn, "error", err)
			}
			s.missed.Store(true)
		}
	}
}

// watch returns a channel that is closed at the next change of a turn that does not run here.
func (s *Service) watch(turn int64) <-chan struct{} {
	s.mu.Lock()
	defer s.mu.Unlock()
	changed := s.watchers[turn]
	if changed == nil {
		changed = make(chan struct{})
		s.watchers[turn] = changed
	}
	return changed
}

// elsewhere is Events of a turn that this process does not run.
func (s *Service) elsewhere(ctx context.Context, turn, after int64, yield func([]Event, error) bool) {
	f := follower{after: after}
	said := time.Now()
	look := time.NewTicker(lookEvery)
	defer look.Stop()
	for {
		changed := s.watch(turn)
		batch, ended, err := s.next(ctx, turn, &f)
		if err != nil {
			yield(nil, err)
			return
		}
		if len(batch) > 0 || time.Since(said) >= stillHere {
			if !yield(batch, nil) {
				return
			}
			said = time.Now()
		}
		if ended {
			return
		}
		select {
		case <-changed:
		case <-look.C:
		case <-ctx.Done():
			yield(nil, context.Cause(ctx))
			return
		}
	}
}

// A follower is how far a reader has followed a turn of another process.
type follower struct {
	after          int64
	begun          bool
	text, thinking string // what it was told
	last           *Turn  // as it was told
	rested         int64  // the place at which it was told that the turn waits to go on; 0 it was not
}

// next returns what came of a turn since the last time.
func (s *Service) next(ctx context.Context, turn int64, f *follower) (batch []Event, ended bool, err error) {
	// The pieces first: if the turn still runs after they were read, none of them was missing.
	from := f.after
	if !f.begun {
		from = 0
	}
	came, err := pieces(ctx, s.db.Read(), turn, from)
	if err != nil {
		return nil, false, err
	}
	t, err := oneTurn(ctx, s.db.Read(), turn)
	if err != nil {
		return nil, false, err
	}
	if !t.State.Running() {
		if t.Seq == f.rested {
			return nil, t.Over(), nil
		}
		batch, err = s.folded(ctx, turn, f.after)
		batch = f.rest(batch)
		*f = follower{rested: t.Seq} // should it go on, it begins anew
		return batch, t.Over(), err
	}
	for _, p := range came {
		f.text, f.thinking = f.text+p.text, f.thinking+p.thinking
		batch = append(batch, Event{Seq: p.seq, Text: p.text, Thinking: p.thinking})
	}
	t.Thinking = f.thinking
	if !f.begun {
		f.begun = true
		if len(batch) == 0 {
			batch = []Event{{Seq: t.Seq}}
		}
		batch = f.resume(batch)
	}
	if news := f.last == nil || f.last.State != t.State || f.last.Route != t.Route; news {
		f.last = &t
		if len(batch) == 0 {
			batch = []Event{{Seq: t.Seq}}
		}
		batch[len(batch)-1].Turn = &t
	}
	if n := len(batch); n > 0 {
		f.after = batch[n-1].Seq
	}
	return batch, false, nil
}

// resume leaves out what the reader has already; where its place is not one of this log, it begins anew.
func (f *follower) resume(batch []Event) []Event {
	for i, ev := range batch {
		if ev.Seq == f.after && f.after != 0 {
			return batch[i+1:]
		}
	}
	batch[0].Whole = true
	return batch
}

// rest leaves out of a turn that ended what the reader was told while it ran.
func (f *follower) rest(batch []Event) []Event {
	if len(batch) == 0 || !f.begun || !batch[0].Whole {
		return batch
	}
	text, known := strings.CutPrefix(batch[0].Text, f.text)
	thinking, too := strings.CutPrefix(batch[0].Thinking, f.thinking)
	if known && too {
		batch[0].Whole, batch[0].Text, batch[0].Thinking = false, text, thinking
	}
	return batch
}

// stopElsewhere has the process that runs a turn stop it, and waits until it has.
func (s *Service) stopElsewhere(ctx context.Context, turn int64) error {
	if err := s.writeStop(ctx, turn); err != nil {
		return err
	}
	for batch, err := range s.Events(ctx, turn, 0) {
		if err != nil {
			return err
		}
		if n := len(batch); n > 0 && batch[n-1].Turn != nil && !batch[n-1].Turn.State.Running() {
			break
		}
	}
	return nil
}

// stopAllElsewhere stops the turns of a conversation that other processes run.
func (s *Service) stopAllElsewhere(ctx context.Context, chat int64) error {
	if !s.db.Shared() {
		return nil
	}
	all, err := runningIn(ctx, s.db.Read(), chat)
	if err != nil {
		return err
	}
	for _, turn := range all {
		if err := s.stopElsewhere(ctx, turn); err != nil {
			return err
		}
	}
	return nil
}
