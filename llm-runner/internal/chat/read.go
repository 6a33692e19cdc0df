package chat

import (
	"context"
	"iter"
	"strings"
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

// Events yields what stands in a turn's log after a place, then follows the turn until it is over: the last event has a
// Turn that is. Where one that was held or interrupted is asked again, it begins with an event that is Whole. Each batch is everything that came since the one before, however long the reader took
// over that: readers are woken, not fed, and nothing is dropped. A place that the log does not know (0, or one in a log
// that has been folded since) means that the first event is Whole. An empty batch every 15 seconds says that the turn is
// still silent. When ctx ends its cause is yielded.
func (s *Service) Events(ctx context.Context, turn, after int64) iter.Seq2[[]Event, error] {
	return func(yield func([]Event, error) bool) {
		var rested int64 // the place at which the reader was told that the turn waits to go on
		for {
			l, changed := s.running(turn), (<-chan struct{})(nil)
			if l == nil {
				changed = s.watch(turn)
				l = s.running(turn) // it may have begun before
			}
			if l != nil {
				last := s.along(ctx, l, &after, yield)
				if last == nil || last.Over() {
					return
				}
				rested = after
				continue
			}
			if s.db.Shared() {
				s.elsewhere(ctx, turn, after, yield)
				return
			}
			events, err := s.folded(ctx, turn, after)
			if err != nil {
				yield(nil, err)
				return
			}
			end := events[len(events)-1]
			if end.Seq != rested && !yield(events, nil) || end.Turn.Over() {
				return
			}
			after, rested = end.Seq, end.Seq
			if !s.rest(ctx, changed, yield) {
				return
			}
		}
	}
}

// rest waits until a turn that does not run here has changed; false where the reader has left.
func (s *Service) rest(ctx context.Context, changed <-chan struct{}, yield func([]Event, error) bool) bool {
	quiet := time.NewTicker(stillHere)
	defer quiet.Stop()
	for {
		select {
		case <-changed:
			return true
		case <-quiet.C:
			if !yield(nil, nil) {
				return false
			}
		case <-ctx.Done():
			yield(nil, context.Cause(ctx))
			return false
		}
	}
}

// along is Events of a turn under way here, to its end; nil where the reader left before.
func (s *Service) along(ctx context.Context, l *live, after *int64, yield func([]Event, error) bool) *Turn {
	quiet := time.NewTimer(stillHere)
	defer quiet.Stop()
	for {
		batch, changed := l.since(*after)
		if changed != nil {
			select {
			case <-changed:
				continue
			case <-quiet.C:
			case <-ctx.Done():
				yield(nil, context.Cause(ctx))
				return nil
			}
		}
		if !yield(batch, nil) {
			return nil
		}
		quiet.Reset(stillHere)
		if n := len(batch); n > 0 {
			*after = batch[n-1].Seq
			if t := batch[n-1].Turn; t != nil && !t.State.Running() {
				return t
			}
		}
		if ctx.Err() != nil {
			yield(nil, context.Cause(ctx))
			return nil
		}
	}
}

// folded is the log of a turn that is not under way: one event with all of it.
func (s *Service) folded(ctx context.Context, turn, after int64) ([]Event, error) {
	t, err := oneTurn(ctx, s.messageAt(turn).Read(), turn)
	if err != nil {
		return nil, err
	}
	if t.Seq == after {
		return []Event{{Seq: t.Seq, Turn: &t}}, nil
	}
	m, _, err := oneMessage(ctx, s.messageAt(turn).Read(), turn)
	if err != nil {
		return nil, err
	}
	return []Event{{Seq: t.Seq, Whole: true, Text: m.Text, Thinking: t.Thinking, Turn: &t}}, nil
}

// Chat returns one conversation.
func (s *Service) Chat(ctx context.Context, id int64) (Chat, error) {
	return oneChat(ctx, s.chatAt(id).Read(), id)
}

// Chats returns the newest conversations, at most limit; with a query those whose title or messages contain its words,
// best first, each with a Snippet.
func (s *Service) Chats(ctx context.Context, query string, limit int) ([]Chat, error) {
	if strings.Trim(query, " \t\r\n\"") != "" {
		return search(ctx, s.db, query, limit)
	}
	return s.both(ctx, limit)
}

// Turn returns a turn as it stands.
func (s *Service) Turn(ctx context.Context, id int64) (Turn, error) {
	if l := s.running(id); l != nil {
		_, t := l.message()
		return *t, nil
	}
	return oneTurn(ctx, s.messageAt(id).Read(), id)
}

// Branch returns the messages of the branch that is shown, first one first. Answers under way have what came so far.
func (s *Service) Branch(ctx context.Context, chat int64) ([]Message, error) {
	c, err := s.Chat(ctx, chat)
	if err != nil {
		return nil, err
	}
	all, err := path(ctx, s.chatAt(chat).Read(), c.Leaf)
	if err != nil {
		return nil, err
	}
	if err := s.overlay(ctx, all); err != nil {
		return nil, err
	}
	return all, siblings(ctx, s.chatAt(chat).Read(), chat, all)
}

// Message returns one message with its alternatives.
func (s *Service) Message(ctx context.Context, id int64) (Message, error) {
	m, chat, err := oneMessage(ctx, s.messageAt(id).Read(), id)
	if err != nil {
		return Message{}, err
	}
	if m.Role == llm.Assistant {
		t, err := oneTurn(ctx, s.messageAt(id).Read(), id)
		if err != nil {
			return Message{}, err
		}
		m.Turn = &t
	}
	all := []Message{m}
	if err := s.overlay(ctx, all); err != nil {
		return Message{}, err
	}
	return all[0], siblings(ctx, s.chatAt(chat).Read(), chat, all)
}

// Tree returns all messages of a conversation, every branch, oldest first.
func (s *Service) Tree(ctx context.Context, chat int64) ([]Message, error) {
	all, err := tree(ctx, s.chatAt(chat).Read(), chat)
	if err != nil {
		return nil, err
	}
	return all, s.overlay(ctx, all)
}

// overlay puts what has come of running turns over what the disk has of them.
func (s *Service) overlay(ctx context.Context, all []Message) error {
	for i := range all {
		m := &all[i]
		if l := s.running(m.ID); l != nil {
			m.Text, m.Turn = l.message()
		} else if m.Turn != nil && m.Turn.State.Running() && s.db.Shared() {
			came, err := pieces(ctx, s.db.Read(), m.ID, 0)
			if err != nil {
				return err
			}
			for _, p := range came {
				m.Text, m.Turn.Thinking = m.Text+p.text, m.Turn.Thinking+p.thinking
			}
		}
	}
	return nil
}
