package chat

import (
	"context"
	"fmt"
	"iter"
	"time"

	"home.arpa/lab/llm-runner/internal/llm"
)

// An Event is one entry of a turn's log.
type Event struct {
	Seq      int64
	Whole    bool   // what a reader has of the answer no longer counts: Text begins it anew
	Text     string // more of the answer
	Thinking string // more of the reasoning
	Turn     *Turn  // the turn's facts, where they changed; not to be modified

	news bool
}

// stillHere is how often a reader of a silent turn is told that the line is open.
const stillHere = 15 * time.Second

// Events yields what stands in a turn's log after a place, then follows the turn until it ends: the last event has a
// Turn that is no longer running. Each batch is everything that came since the one before, however long the reader took
// over that: readers are woken, not fed, and nothing is dropped. A place that the log does not know (0, or one in a log
// that has been folded since) means that the first event is Whole. An empty batch every 15 seconds says that the turn is
// still silent. When ctx ends its cause is yielded.
func (s *Service) Events(ctx context.Context, turn, after int64) iter.Seq2[[]Event, error] {
	return func(yield func([]Event, error) bool) {
		l := s.running(turn)
		if l == nil {
			events, err := s.folded(ctx, turn, after)
			yield(events, err)
			return
		}
		quiet := time.NewTimer(stillHere)
		defer quiet.Stop()
		for {
			batch, changed := l.since(after)
			if changed != nil {
				select {
				case <-changed:
					continue
				case <-quiet.C:
				case <-ctx.Done():
					yield(nil, context.Cause(ctx))
					return
				}
			}
			if !yield(batch, nil) {
				return
			}
			quiet.Reset(stillHere)
			if n := len(batch); n > 0 {
				after = batch[n-1].Seq
				if t := batch[n-1].Turn; t != nil && !t.State.Running() {
					return
				}
			}
			if ctx.Err() != nil {
				yield(nil, context.Cause(ctx))
				return
			}
		}
	}
}

// folded is the log of a turn that is not under way: one event with all of it.
func (s *Service) folded(ctx context.Context, turn, after int64) ([]Event, error) {
	t, err := oneTurn(ctx, s.db.Read(), turn)
	if err != nil {
		return nil, err
	}
	if t.Seq == after {
		return []Event{{Seq: t.Seq, Turn: &t}}, nil
	}
	m, _, err := oneMessage(ctx, s.db.Read(), turn)
	if err != nil {
		return nil, err
	}
	return []Event{{Seq: t.Seq, Whole: true, Text: m.Text, Thinking: t.Thinking, Turn: &t}}, nil
}

// Chat returns one conversation.
func (s *Service) Chat(ctx context.Context, id int64) (Chat, error) {
	return oneChat(ctx, s.db.Read(), id)
}

// Chats returns the newest conversations, at most limit; with a query those whose title or messages contain its words,
// best first, each with a Snippet.
func (s *Service) Chats(ctx context.Context, query string, limit int) ([]Chat, error) {
	if match := ftsQuery(query); match != "" {
		return search(ctx, s.db.Read(), query, match, limit)
	}
	return listChats(ctx, s.db.Read(), limit)
}

// Turn returns a turn as it stands.
func (s *Service) Turn(ctx context.Context, id int64) (Turn, error) {
	if l := s.running(id); l != nil {
		_, t := l.message()
		return *t, nil
	}
	return oneTurn(ctx, s.db.Read(), id)
}

// Branch returns the messages of the branch that is shown, first one first. Answers under way have what came so far.
func (s *Service) Branch(ctx context.Context, chat int64) ([]Message, error) {
	c, err := s.Chat(ctx, chat)
	if err != nil {
		return nil, err
	}
	all, err := path(ctx, s.db.Read(), c.Leaf)
	if err != nil {
		return nil, err
	}
	s.overlay(all)
	return all, siblings(ctx, s.db.Read(), chat, all)
}

// Message returns one message with its alternatives.
func (s *Service) Message(ctx context.Context, id int64) (Message, error) {
	m, chat, err := oneMessage(ctx, s.db.Read(), id)
	if err != nil {
		return Message{}, err
	}
	if m.Role == llm.Assistant {
		t, err := oneTurn(ctx, s.db.Read(), id)
		if err != nil {
			return Message{}, err
		}
		m.Turn = &t
	}
	all := []Message{m}
	s.overlay(all)
	return all[0], siblings(ctx, s.db.Read(), chat, all)
}

// Tree returns all messages of a conversation, every branch, oldest first.
func (s *Service) Tree(ctx context.Context, chat int64) ([]Message, error) {
	all, err := tree(ctx, s.db.Read(), chat)
	if err != nil {
		return nil, fmt.Errorf("read conversation %d: %w", chat, err)
	}
	s.overlay(all)
	return all, nil
}

// overlay puts what has come of running turns over what the disk has of them.
func (s *Service) overlay(all []Message) {
	for i := range all {
		if l := s.running(all[i].ID); l != nil {
			all[i].Text, all[i].Turn = l.message()
		}
	}
}
