package memory

import (
	"context"
	"database/sql"
	"encoding/json"
	"errors"
	"fmt"
	"strconv"
	"time"

	"home.arpa/lab/llm-runner/internal/db"
)

// What was read: messages, what models answered about them, and how far conversations were read.

// markRead notes down that a message was read; false where it was before.
func (s *Service) markRead(ctx context.Context, tx *transaction, m Message, run string, found int, dropped map[string]int, now time.Time) (first bool, err error) {
	why, err := json.Marshal(dropped)
	if err != nil {
		return false, err
	}
	r, err := tx.ExecContext(ctx, `INSERT INTO memory_read (message, chat, run, found, dropped, read_at) VALUES (?,?,?,?,?,?) ON CONFLICT (message) DO NOTHING`,
		m.ID, m.Chat, run, found, string(why), now.UnixMilli())
	if err != nil {
		return false, fmt.Errorf("write what was read: %w", err)
	}
	n, err := r.RowsAffected()
	if err != nil {
		return false, err
	}
	return n > 0, change(ctx, tx, `DELETE FROM memory_answers WHERE message = ?`, m.ID)
}

// settleMessages has the messages that a fact rests on count as read: whoever takes a fact back does not want it learned from them again.
func settleMessages(ctx context.Context, tx *transaction, fact int64, now time.Time) error {
	if err := change(ctx, tx, `INSERT INTO memory_read (message, chat, run, found, dropped, read_at) SELECT message, chat, '', 0, '{}', ? FROM memory_sources WHERE fact = ?
		ON CONFLICT (message) DO NOTHING`, now.UnixMilli(), fact); err != nil {
		return err
	}
	return change(ctx, tx, `DELETE FROM memory_answers WHERE message = ? OR message IN (SELECT message FROM memory_sources WHERE fact = ?)`, -fact, fact)
}

func (s *Service) answered(ctx context.Context, message int64, key string) (answer string, ok bool, err error) {
	err = s.DB.Read().QueryRowContext(ctx, `SELECT answer FROM memory_answers WHERE message = ? AND key = ?`, message, key).Scan(&answer)
	if errors.Is(err, sql.ErrNoRows) {
		return "", false, nil
	}
	if err != nil {
		return "", false, fmt.Errorf("read kept answer: %w", err)
	}
	return answer, true, nil
}

func (s *Service) keepAnswer(ctx context.Context, message int64, key, answer string) error {
	return s.DB.Tx(ctx, func(tx *transaction) error {
		return change(ctx, tx, `INSERT INTO memory_answers (message, key, answer, at) VALUES (?,?,?,?) ON CONFLICT (message, key) DO UPDATE SET answer = excluded.answer`,
			message, key, answer, time.Now().UnixMilli())
	})
}

// account fills in what the tables tell of a run. Of facts that were told or added they do not tell which run compared them.
func (s *Service) account(ctx context.Context, run string, r *Report) error {
	type row struct {
		found   int
		dropped string
	}
	read, err := db.All(ctx, s.DB.Read(), "read memory", func(r *sql.Rows) (x row, err error) { return x, r.Scan(&x.found, &x.dropped) }, `SELECT found, dropped FROM memory_read WHERE run = ?`, run)
	if err != nil {
		return err
	}
	made, err := db.All(ctx, s.DB.Read(), "read memory", db.Column[int64], `SELECT fact FROM memory_changes WHERE run = ? AND kind = 'made' ORDER BY id`, run)
	if err != nil {
		return err
	}
	last := *r
	r.Messages, r.Learned, r.Repeated, r.Dropped = len(read), append([]int64{}, made...), -len(made), map[string]int{}
	for _, x := range read {
		r.Repeated += x.found
		var why map[string]int
		if err := json.Unmarshal([]byte(x.dropped), &why); err != nil {
			return fmt.Errorf("read what was dropped: %w", err)
		}
		for reason, n := range why {
			r.Dropped[reason] += n
		}
	}
	r.Repeated, r.Conflicts = max(r.Repeated, last.Repeated), last.Conflicts
	var conflicts int
	err = s.DB.Read().QueryRowContext(ctx, `SELECT (SELECT count(*) FROM memory_facts f JOIN memory_changes c ON c.fact = f.superseded_by AND c.kind = 'made' WHERE c.run = ?),
		(SELECT count(*) FROM memory_conflicts x JOIN memory_changes c ON c.fact = x.newer AND c.kind = 'made' WHERE c.run = ?)`, run, run).Scan(&r.Superseded, &conflicts)
	if err != nil {
		return fmt.Errorf("read memory: %w", err)
	}
	r.Conflicts = max(conflicts, r.Conflicts)
	return nil
}

// failedAgain counts how often a message could not be read. The count stands among its answers, and goes with them.
func (s *Service) failedAgain(ctx context.Context, message int64) (times int, err error) {
	const key = "failed"
	before, _, err := s.answered(ctx, message, key)
	if err != nil {
		return 0, err
	}
	if before != "" {
		if times, err = strconv.Atoi(before); err != nil {
			return 0, fmt.Errorf("read failures of message %d: %w", message, err)
		}
	}
	times++
	return times, s.keepAnswer(ctx, message, key, strconv.Itoa(times))
}

// chatsSeen is when each conversation had changed last when it was read to its end.
func (s *Service) chatsSeen(ctx context.Context) (map[int64]time.Time, error) {
	return db.Map(ctx, s.DB.Read(), "read memory", func(r *sql.Rows) (chat int64, at time.Time, err error) {
		var ms int64
		err = r.Scan(&chat, &ms)
		return chat, time.UnixMilli(ms), err
	}, `SELECT chat, seen FROM memory_chats`)
}

func (s *Service) seen(ctx context.Context, all map[int64]time.Time) error {
	if len(all) == 0 {
		return nil
	}
	return s.DB.Tx(ctx, func(tx *transaction) error {
		for chat, at := range all {
			if err := change(ctx, tx, `INSERT INTO memory_chats (chat, seen) VALUES (?,?) ON CONFLICT (chat) DO UPDATE SET seen = excluded.seen`, chat, at.UnixMilli()); err != nil {
				return err
			}
		}
		return nil
	})
}

// readBefore are the messages of a conversation that were read.
func (s *Service) readBefore(ctx context.Context, chat int64) (map[int64]bool, error) {
	return db.Map(ctx, s.DB.Read(), "read memory", func(r *sql.Rows) (id int64, read bool, err error) {
		err = r.Scan(&id)
		return id, true, err
	}, `SELECT message FROM memory_read WHERE chat = ?`, chat)
}

// messages are all that facts rest on, and all that were read.
func (s *Service) messages(ctx context.Context) ([]int64, error) {
	return db.All(ctx, s.DB.Read(), "read memory", db.Column[int64], `SELECT message FROM memory_sources UNION SELECT message FROM memory_read UNION SELECT message FROM memory_answers WHERE message > 0`)
}
