package chat

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"sync"
	"time"

	"home.arpa/lab/llm-runner/internal/db"
)

// A refuge keeps conversations in memory while the disk refuses to (full, read-only, locked): a database like the other,
// with the conversations that were written to meanwhile, whole. When the disk takes writes again they move back, all at
// once, and nothing of it can be seen but the numbers of new ones, which are higher. What is there when the process dies is
// lost.
type refuge struct {
	mu       sync.RWMutex // held by writers while they write, and alone while conversations move
	db       *db.DB       // nil: nothing is in memory
	floor    int64        // numbers from here on were given in memory
	chats    map[int64]bool
	messages map[int64]bool
	taken    int // questions
}

// mostTaken bounds how many questions are taken in memory.
const mostTaken = 10_000

// ErrUnsaved says that a conversation cannot be deleted while it is in memory.
var ErrUnsaved = errors.New("the conversation is kept in memory until the disk takes it: delete it then")

// chatAt is the database that has a conversation, and turnAt the one that has a message.
func (s *Service) chatAt(id int64) *db.DB {
	return s.at(func(r *refuge) bool { return r.chats[id] || id >= r.floor })
}

func (s *Service) messageAt(id int64) *db.DB {
	return s.at(func(r *refuge) bool { return r.messages[id] || id >= r.floor })
}

func (s *Service) at(inMemory func(*refuge) bool) *db.DB {
	s.refuge.mu.RLock()
	defer s.refuge.mu.RUnlock()
	if s.refuge.db != nil && inMemory(&s.refuge) {
		return s.refuge.db
	}
	return s.db
}

// write runs f in one transaction of the database that has a conversation; 0 is a new one. A conversation that the disk
// does not take moves into memory.
func (s *Service) write(ctx context.Context, chat int64, f func(tx *transaction) error) error {
	if s.db.Shared() { // other processes would not see it
		return s.db.Tx(ctx, f)
	}
	r := &s.refuge
	r.mu.RLock()
	d := s.db
	if r.db != nil && (r.chats[chat] || chat >= r.floor) {
		d = r.db
	}
	var err error
	if t := s.db.Trouble(); d == s.db && t != nil {
		err = fmt.Errorf("write conversation: %w", t.Err) // it would be refused once more, or nobody knows when
	} else if err = d.Tx(ctx, f); err == nil || d != s.db || db.FaultOf(err) == "" {
		r.mu.RUnlock()
		return err
	}
	r.mu.RUnlock()
	if inner := s.shelter(ctx, chat); inner != nil {
		return errors.Join(err, inner)
	}
	r.mu.RLock()
	defer r.mu.RUnlock()
	if r.db == nil {
		return s.db.Tx(ctx, f) // it has moved back already
	}
	return r.db.Tx(ctx, f)
}

// shelter moves a conversation into memory; 0 makes room for a new one.
func (s *Service) shelter(ctx context.Context, chat int64) (err error) {
	r := &s.refuge
	r.mu.Lock()
	defer r.mu.Unlock()
	if r.taken++; r.taken > mostTaken {
		return errors.New("no more conversations are kept in memory")
	}
	if r.db == nil {
		d, err := db.OpenMemory(ctx)
		if err != nil {
			return err
		}
		if r.floor, err = seed(ctx, s.db, d); err != nil {
			return errors.Join(err, d.Close())
		}
		r.db, r.chats, r.messages = d, map[int64]bool{}, map[int64]bool{}
		s.log.Warn("the disk refuses conversations: they are kept in memory")
	}
	if chat == 0 || chat >= r.floor || r.chats[chat] {
		return nil
	}
	ids, err := copyChat(ctx, s.db.Read(), r.db, chat)
	if err != nil {
		return err
	}
	r.chats[chat] = true
	for _, id := range ids {
		r.messages[id] = true
	}
	return nil
}

// settle moves what is in memory back to the disk, if it takes it.
func (s *Service) settle(ctx context.Context) error {
	r := &s.refuge
	r.mu.Lock()
	defer r.mu.Unlock()
	if r.db == nil {
		return nil
	}
	n, err := moveBack(ctx, r.db, s.db)
	if err != nil {
		return err
	}
	s.missed.Store(true) // some of them may be due
	s.log.Info("conversations that were kept in memory are on disk", "conversations", n)
	left := r.db
	time.AfterFunc(time.Minute, func() { left.Close() }) // for those who still read it
	r.db, r.chats, r.messages, r.taken = nil, nil, nil, 0
	return nil
}

// sheltered says whether a conversation is in memory.
func (s *Service) sheltered(chat int64) bool { return s.chatAt(chat) != s.db }

// both lists conversations of both databases, newest first.
func (s *Service) both(ctx context.Context, limit int) ([]Chat, error) {
	all, err := listChats(ctx, s.db.Read(), limit)
	s.refuge.mu.RLock()
	memory := s.refuge.db
	s.refuge.mu.RUnlock()
	if err != nil || memory == nil {
		return all, err
	}
	inMemory, err := listChats(ctx, memory.Read(), limit)
	if err != nil {
		return nil, err
	}
	for _, c := range all {
		if !slices.ContainsFunc(inMemory, func(m Chat) bool { return m.ID == c.ID }) {
			inMemory = append(inMemory, c)
		}
	}
	slices.SortStableFunc(inMemory, func(a, b Chat) int { return b.Updated.Compare(a.Updated) })
	return inMemory[:min(limit, len(inMemory))], nil
}
