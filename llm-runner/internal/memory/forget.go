package memory

import (
	"context"
	"fmt"
	"slices"
	"time"
)

// Forget removes a fact for good: the fact, its quotes and its history, from the tables, the index of words, the vectors, what models have
// answered, the log of tools, and the databases' files. The messages that it came from stay,
// for they are the person's, and are not read again. A process that dies in
// between leaves a fact that nobody sees any more, and the next one finishes.
func (s *Service) Forget(ctx context.Context, id int64) error {
	s.changing.Lock()
	defer s.changing.Unlock()
	if _, err := s.One(ctx, id); err != nil {
		return err
	}
	err := s.DB.Tx(ctx, func(tx *transaction) error {
		all, err := twins(ctx, tx, id)
		if err != nil {
			return err
		}
		for _, one := range all {
			if err := settleMessages(ctx, tx, one, time.Now()); err != nil {
				return err
			}
		}
		return markForgetting(ctx, tx, all)
	})
	if err != nil {
		return err
	}
	s.passed("marked")
	return s.settle(ctx)
}

// Conversation forgets what rests on messages that are gone, after a conversation was deleted.
func (s *Service) Conversation(ctx context.Context) (forgotten int, err error) {
	s.changing.Lock()
	defer s.changing.Unlock()
	if err := s.settle(ctx); err != nil {
		return 0, err
	}
	return s.sweep(ctx)
}

// sweep forgets facts of which no message is there any more. The caller holds changing.
func (s *Service) sweep(ctx context.Context) (int, error) {
	if s.There == nil {
		return 0, nil
	}
	all, err := s.messages(ctx)
	if err != nil || len(all) == 0 {
		return 0, err
	}
	there, err := s.There(ctx, all)
	if err != nil {
		return 0, err
	}
	gone := slices.DeleteFunc(all, func(id int64) bool { return there[id] })
	if len(gone) == 0 {
		return 0, nil
	}
	bare, err := s.lose(ctx, gone)
	if err != nil {
		return 0, err
	}
	return len(bare), s.settle(ctx)
}

// settle finishes what was begun: facts that are being forgotten go, and the files are rid of them. What fails is left for Run. The caller
// holds changing.
func (s *Service) settle(ctx context.Context) error {
	err := s.settled(ctx)
	if err != nil {
		select {
		case s.unsettled <- struct{}{}:
		default:
		}
	}
	return err
}

func (s *Service) settled(ctx context.Context) error {
	going, err := s.facts(ctx, s.DB.Read(), filter{going: true})
	if err != nil {
		return err
	}
	if len(going) > 0 {
		if err := s.erase(ctx, going); err != nil {
			return err
		}
	}
	at, err := s.scrubWanted(ctx)
	if err != nil || at == 0 {
		return err
	}
	if s.Scrub != nil {
		if err := s.Scrub(ctx); err != nil {
			return fmt.Errorf("the facts are forgotten, but bytes of them may be left in the database's files until this succeeds: %w", err)
		}
		s.passed("scrubbed")
	}
	return s.scrubbed(ctx, at)
}

func (s *Service) erase(ctx context.Context, going []Fact) error {
	var ids []int64
	var entries, words []string
	for _, f := range going {
		ids = append(ids, f.ID)
		entries = append(entries, f.both()...)
		former, err := s.formerly(ctx, f.ID)
		if err != nil {
			return err
		}
		words = append(append(words, f.Text), former...)
		for _, x := range f.Sources {
			words = append(words, x.Quote)
		}
	}
	if s.Erase != nil {
		if err := s.Erase(ctx, entries...); err != nil {
			return fmt.Errorf("take facts out of the index: %w", err)
		}
	}
	s.passed("erased")
	if s.Blank != nil {
		slices.SortFunc(words, func(a, b string) int { return len(b) - len(a) }) // the longest first: one may be a part of another
		if err := s.Blank(ctx, slices.Compact(words)...); err != nil {
			return err
		}
	}
	s.passed("blanked")
	if err := s.remove(ctx, ids); err != nil {
		return err
	}
	s.passed("removed")
	return nil
}

// index has the index say what the tables say: current facts are in it, others are not.
func (s *Service) index(ctx context.Context) error {
	stale, err := s.unindexed(ctx)
	if err != nil || len(stale) == 0 {
		return err
	}
	var put []Entry
	var out []string
	for _, f := range stale {
		for _, name := range f.both() {
			if f.State != Current || name != f.Name() {
				out = append(out, name)
			}
		}
		if f.State == Current {
			put = append(put, Entry{Name: f.Name(), Text: f.Text, Said: f.said()})
		}
	}
	if s.Erase != nil && len(out) > 0 {
		if err := s.Erase(ctx, out...); err != nil {
			return fmt.Errorf("take facts out of the index: %w", err)
		}
	}
	if s.Put != nil && len(put) > 0 {
		if err := s.Put(ctx, put...); err != nil {
			return fmt.Errorf("put facts into the index: %w", err)
		}
	}
	s.passed("indexed")
	return s.markIndexed(ctx, stale)
}

// finish has the index and the files follow the tables.
func (s *Service) finish(ctx context.Context) error {
	s.changing.Lock()
	defer s.changing.Unlock()
	if err := s.settle(ctx); err != nil {
		return err
	}
	return s.index(ctx)
}

// again is how often Run tries to finish what it could not.
const again = time.Minute

// Run finishes what an earlier process left, and what could not be finished at once, until ctx ends.
func (s *Service) Run(ctx context.Context) error {
	for {
		err := s.finish(ctx)
		pause := s.unsettled
		var wait *time.Timer
		var retry <-chan time.Time
		if err != nil && ctx.Err() == nil {
			s.log.Warn("finish forgetting", "error", err)
			wait = time.NewTimer(again)
			pause, retry = nil, wait.C
		}
		select {
		case <-pause:
		case <-retry:
		case <-ctx.Done():
			if wait != nil {
				wait.Stop()
			}
			return ctx.Err()
		}
	}
}
