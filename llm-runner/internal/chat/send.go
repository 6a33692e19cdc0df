package chat

import (
	"context"
	"errors"
	"strings"
	"time"
	"unicode/utf8"

	"home.arpa/lab/llm-runner/internal/db"
	"home.arpa/lab/llm-runner/internal/llm"
)

// Send asks a question and returns the turn that answers it, which goes on whatever becomes of ctx. chat 0 begins a
// conversation. parent is the answer that the question follows; 0 puts it at the conversation's beginning. Question and
// empty turn are on disk when Send returns, or in memory while the disk refuses them (see refuge).
func (s *Service) Send(ctx context.Context, chat, parent int64, text string, o Options) (Turn, error) {
	text = strings.TrimSpace(strings.ToValidUTF8(text, "\uFFFD"))
	if text == "" {
		return Turn{}, ErrEmpty
	}
	return s.ask(ctx, chat, func(tx *transaction, now time.Time) (Turn, error) {
		if o.Key != "" {
			if t, err := turnByKey(ctx, tx, o.Key); err == nil {
				return t, errSame
			} else if !errors.Is(err, ErrNotFound) {
				return Turn{}, err
			}
		}
		chat := chat // this may run twice: on disk, and then in memory
		if chat == 0 {
			var err error
			if chat, err = insertChat(ctx, tx, title(text), now); err != nil {
				return Turn{}, err
			}
		}
		if parent != 0 {
			before, err := s.answer(ctx, tx, parent)
			if err != nil {
				return Turn{}, err
			}
			if before.Chat != chat {
				return Turn{}, ErrNotFound
			}
		}
		question, err := insertMessage(ctx, tx, chat, parent, llm.User, text, o.Key, now)
		if err != nil {
			return Turn{}, err
		}
		return s.insert(ctx, tx, chat, question, o, now)
	})
}

// insert adds an empty answer to a question and shows it.
func (s *Service) insert(ctx context.Context, tx *transaction, chat, question int64, o Options, now time.Time) (Turn, error) {
	t, err := s.insertTurn(ctx, tx, Turn{Chat: chat, State: Waiting, Asked: o.Model, Project: o.Project, Tools: o.Tools, Memory: o.Memory, plan: o.Plan, Started: now}, question)
	if err != nil {
		return Turn{}, err
	}
	return t, touch(ctx, tx, t, now)
}

// Edit asks a changed question beside the one it changes: a branch.
func (s *Service) Edit(ctx context.Context, question int64, text string, o Options) (Turn, error) {
	m, chat, err := oneMessage(ctx, s.messageAt(question).Read(), question)
	if err != nil {
		return Turn{}, err
	}
	if m.Role != llm.User {
		return Turn{}, ErrNotFound
	}
	return s.Send(ctx, chat, m.Parent, text, o)
}

// Regenerate asks the question of an ended turn once more; the new answer stands beside the old one, which waits no longer.
func (s *Service) Regenerate(ctx context.Context, turn int64, o Options) (Turn, error) {
	t, err := s.askOf(ctx, turn, func(tx *transaction, t Turn, now time.Time) (Turn, error) {
		m, _, err := oneMessage(ctx, tx, turn)
		if err != nil {
			return Turn{}, err
		}
		if err := s.drop(ctx, tx, t); err != nil {
			return Turn{}, err
		}
		return s.insert(ctx, tx, t.Chat, m.Parent, o, now)
	})
	s.changed(turn)
	return t, err
}

// Again asks once more what a turn asked, in the same way: in its place where it has no text, beside it otherwise, so
// that nothing that came is lost.
func (s *Service) Again(ctx context.Context, turn int64) (Turn, error) {
	t, err := s.askOf(ctx, turn, func(tx *transaction, t Turn, now time.Time) (Turn, error) {
		t.Holds, t.Resumes = 0, 0
		t, err := s.askAgain(ctx, tx, t, now)
		if err != nil {
			return Turn{}, err
		}
		return t, touch(ctx, tx, t, now)
	})
	s.changed(turn)
	return t, err
}

// Stop ends a running turn and returns once what had come was on disk; one that is due to be asked again waits no longer. A
// turn that is over stays as it is.
func (s *Service) Stop(ctx context.Context, turn int64) error {
	if l := s.running(turn); l != nil {
		return l.end(ctx, errStop)
	}
	t, err := oneTurn(ctx, s.messageAt(turn).Read(), turn)
	if err != nil {
		return err
	}
	if t.Due {
		stopped, err := s.stopWaiting(ctx, t)
		if stopped || err != nil {
			return err
		}
		return s.Stop(ctx, turn) // it has gone on this moment
	}
	if t.State.Running() && s.db.Shared() {
		return s.stopElsewhere(ctx, turn)
	}
	return nil
}

// Select shows the branch through a message: from it on, the youngest replies.
func (s *Service) Select(ctx context.Context, message int64) (chat int64, err error) {
	if _, chat, err = oneMessage(ctx, s.messageAt(message).Read(), message); err != nil {
		return 0, err
	}
	err = s.write(ctx, chat, func(tx *transaction) error {
		return selectLeaf(ctx, tx, chat, message)
	})
	return chat, err
}

// Rename gives a conversation another title.
func (s *Service) Rename(ctx context.Context, chat int64, name string) error {
	if name = title(name); name == "" {
		return ErrEmpty
	}
	return s.write(ctx, chat, func(tx *transaction) error { return rename(ctx, tx, chat, name) })
}

// Delete removes a conversation and all its messages for good. Its running turns are stopped first.
func (s *Service) Delete(ctx context.Context, chat int64) error {
	if s.sheltered(chat) {
		return ErrUnsaved
	}
	s.mu.Lock()
	var running []*live
	for _, l := range s.live {
		if l.chat == chat {
			running = append(running, l)
		}
	}
	s.mu.Unlock()
	for _, l := range running {
		if err := l.end(ctx, errDelete); err != nil {
			return err
		}
	}
	if err := s.stopAllElsewhere(ctx, chat); err != nil {
		return err
	}
	err := s.db.Tx(ctx, func(tx *transaction) error { return deleteChat(ctx, tx, chat) })
	s.changed(0)
	if err == nil && s.config.Deleted != nil {
		s.config.Deleted(chat)
	}
	return err
}

// errSame says that the question has been asked already.
var errSame = errors.New("asked already")

// askOf is ask for a turn that has ended, of which write makes the next one.
func (s *Service) askOf(ctx context.Context, turn int64, write func(tx *transaction, t Turn, now time.Time) (Turn, error)) (Turn, error) {
	before, err := oneTurn(ctx, s.messageAt(turn).Read(), turn)
	if err != nil {
		return Turn{}, err
	}
	return s.ask(ctx, before.Chat, func(tx *transaction, now time.Time) (Turn, error) {
		t, err := s.answer(ctx, tx, turn)
		if err != nil {
			return Turn{}, err
		}
		return write(tx, t, now)
	})
}

// ask records a turn of a conversation (0: a new one) by write, in one transaction, and starts it. With errSame from write it returns the turn as it is.
func (s *Service) ask(ctx context.Context, chat int64, write func(*transaction, time.Time) (Turn, error)) (Turn, error) {
	leave := s.enter()
	if leave == nil {
		return Turn{}, ErrClosed
	}
	var t Turn
	var history []llm.Message
	record := func(tx *transaction) (err error) {
		if t, err = write(tx, time.Now()); err != nil {
			return err
		}
		history, err = upstream(ctx, tx, t.ID)
		return err
	}
	err := s.write(ctx, chat, record)
	if db.Taken(err) { // the same question came to another process at the same moment: now it is there
		err = s.write(ctx, chat, record)
	}
	if err != nil {
		leave()
		if errors.Is(err, errSame) {
			err = nil
		}
		return t, err
	}
	req := llm.Request{Model: t.Asked, Project: t.Project, Purpose: "chat", Run: t.RunName(), Plan: t.plan, Chat: t.Chat, Messages: history}
	if t.Tools {
		req.Use = []string{"*"}
	}
	s.start(t, req, leave)
	return t, nil
}

// answer returns a turn that has ended, for a change.
func (s *Service) answer(ctx context.Context, tx *transaction, id int64) (Turn, error) {
	t, err := lockedTurn(ctx, s.db, tx, id)
	if err == nil && t.State.Running() {
		err = ErrRunning
	}
	return t, err
}

// title is the first words of a question, at most about 60 characters.
func title(text string) string {
	text = strings.Join(strings.Fields(strings.ToValidUTF8(text, "")), " ")
	const most = 60
	if utf8.RuneCountInString(text) <= most {
		return text
	}
	cut := string([]rune(text)[:most])
	if i := strings.LastIndexByte(cut, ' '); i > most/2 {
		cut = cut[:i]
	}
	return strings.TrimRight(cut, " ,.;:-") + "\u2026"
}
