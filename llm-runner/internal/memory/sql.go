package memory

import (
	"context"
	"database/sql"
	"encoding/json"
	"errors"
	"fmt"
	"slices"
	"strings"
	"time"

	"home.arpa/lab/llm-runner/internal/db"
)

// transaction is a write under way, which the exported methods own.
type transaction = sql.Tx

// filter is which facts are wanted; the zero value is all that are not being forgotten.
type filter struct {
	ids     []int64
	state   State
	norm    string
	message int64
	going   bool // those that are being forgotten, and no others
}

const factColumns = `f.id, f.text, f.norm, f.state, f.origin, f.confidence, f.private, f.superseded_by, f.rev, f.created_at, f.changed_at`

// facts returns facts with their sources, the newest first.
func (s *Service) facts(ctx context.Context, q db.Querier, w filter) ([]Fact, error) {
	where, args := []string{`f.state <> 'forgetting'`}, []any{}
	if w.going {
		where[0] = `f.state = 'forgetting'`
	}
	add := func(condition string, value ...any) { where, args = append(where, condition), append(args, value...) }
	if w.ids != nil {
		marks, ids := db.In(w.ids)
		add(`f.id IN (`+marks+`)`, ids...)
	}
	if w.state != "" {
		add(`f.state = ?`, string(w.state))
	}
	if w.norm != "" {
		add(`f.norm = ?`, w.norm)
	}
	if w.message != 0 {
		add(`f.id IN (SELECT fact FROM memory_sources WHERE message = ?)`, w.message)
	}
	condition := strings.Join(where, ` AND `)
	all, err := db.All(ctx, q, "read memory", func(r *sql.Rows) (f Fact, err error) {
		var by sql.NullInt64
		var created, changed int64
		err = r.Scan(&f.ID, &f.Text, &f.norm, &f.State, &f.Origin, &f.Confidence, &f.Private, &by, &f.rev, &created, &changed)
		f.SupersededBy, f.Created, f.Changed = by.Int64, time.UnixMilli(created).UTC(), time.UnixMilli(changed).UTC()
		f.Sources, f.Supersedes = []Source{}, []int64{}
		return f, err
	}, `SELECT `+factColumns+` FROM memory_facts f WHERE `+condition+` ORDER BY f.id DESC`, args...)
	if err != nil || len(all) == 0 {
		return all, err
	}
	at := make(map[int64]*Fact, len(all))
	for i := range all {
		at[all[i].ID] = &all[i]
	}
	type sourced struct {
		fact int64
		Source
	}
	sources, err := db.All(ctx, q, "read memory", func(r *sql.Rows) (x sourced, err error) {
		var said int64
		err = r.Scan(&x.fact, &x.Chat, &x.Message, &x.Quote, &x.Start, &x.Private, &said)
		x.Said = time.UnixMilli(said).UTC()
		return x, err
	}, `SELECT s.fact, s.chat, s.message, s.quote, s.start_byte, s.private, s.said_at FROM memory_sources s JOIN memory_facts f ON f.id = s.fact
		WHERE `+condition+` ORDER BY s.said_at, s.id`, args...)
	if err != nil {
		return nil, err
	}
	for _, x := range sources {
		at[x.fact].Sources = append(at[x.fact].Sources, x.Source)
	}
	err = db.Each(ctx, q, "read memory", func(r *sql.Rows) error {
		var old, by int64
		err := r.Scan(&old, &by)
		if f := at[by]; f != nil {
			f.Supersedes = append(f.Supersedes, old)
		}
		return err
	}, `SELECT id, superseded_by FROM memory_facts WHERE superseded_by IS NOT NULL AND state = 'superseded' ORDER BY id`)
	if err != nil {
		return nil, err
	}
	err = db.Each(ctx, q, "read memory", func(r *sql.Rows) error {
		var id, older, newer int64
		err := r.Scan(&id, &older, &newer)
		for _, fact := range []int64{older, newer} {
			if f := at[fact]; f != nil {
				f.Conflict = id
			}
		}
		return err
	}, `SELECT id, older, newer FROM memory_conflicts WHERE outcome = ''`)
	if err != nil {
		return nil, err
	}
	return all, nil
}

func (s *Service) conflicts(ctx context.Context) ([]Conflict, error) {
	type row struct{ id, older, newer, opened int64 }
	rows, err := db.All(ctx, s.DB.Read(), "read memory", func(r *sql.Rows) (x row, err error) {
		err = r.Scan(&x.id, &x.older, &x.newer, &x.opened)
		return x, err
	}, `SELECT id, older, newer, opened_at FROM memory_conflicts WHERE outcome = '' ORDER BY id`)
	if err != nil {
		return nil, err
	}
	out := []Conflict{}
	for _, x := range rows {
		two, err := s.Some(ctx, []int64{x.older, x.newer})
		if err != nil {
			return nil, err
		}
		if len(two) == 2 {
			out = append(out, Conflict{x.id, two[x.older], two[x.newer], time.UnixMilli(x.opened).UTC()})
		}
	}
	return out, nil
}

// write writes a fact where it was placed, and returns its number, or that of the one that says the same; made says that it is a new one.
func (s *Service) write(ctx context.Context, tx *transaction, p placed, run string, now time.Time) (id int64, made bool, err error) {
	at := now.UnixMilli()
	// What was compared before may have been changed or forgotten since.
	err = tx.QueryRowContext(ctx, `SELECT id FROM memory_facts WHERE (id = ? OR norm = ?) AND state = 'current' ORDER BY id LIMIT 1`+s.DB.Lock(), p.repeats, p.fact.norm).Scan(&id)
	if err != nil && !errors.Is(err, sql.ErrNoRows) {
		return 0, false, fmt.Errorf("write fact: %w", err)
	}
	if id != 0 {
		if err := s.source(ctx, tx, id, p.fact.Sources); err != nil {
			return 0, false, err
		}
		return id, false, change(ctx, tx, `UPDATE memory_facts SET private = private AND ?, rev = rev + 1 WHERE id = ? AND origin <> 'added'`, p.fact.Private, id)
	}
	err = tx.QueryRowContext(ctx, `INSERT INTO memory_facts (text, norm, state, origin, confidence, private, created_at, changed_at) VALUES (?,?,'current',?,?,?,?,?) RETURNING id`,
		p.fact.Text, p.fact.norm, string(p.fact.Origin), p.fact.Confidence, p.fact.Private, at, at).Scan(&id)
	if err != nil {
		return 0, false, fmt.Errorf("write fact: %w", err)
	}
	if err := s.source(ctx, tx, id, p.fact.Sources); err != nil {
		return 0, false, err
	}
	if err := change(ctx, tx, `INSERT INTO memory_changes (fact, kind, run, at) VALUES (?, 'made', ?, ?)`, id, run, at); err != nil {
		return 0, false, err
	}
	for _, old := range p.supersedes {
		if err := s.supersede(ctx, tx, old, id, now); err != nil {
			return 0, false, err
		}
	}
	for _, old := range p.conflicts {
		err := change(ctx, tx, `INSERT INTO memory_conflicts (older, newer, opened_at) SELECT id, ?, ? FROM memory_facts WHERE id = ? AND state = 'current'`, id, at, old)
		if err != nil {
			return 0, false, err
		}
	}
	return id, true, nil
}

func (s *Service) source(ctx context.Context, tx *transaction, fact int64, all []Source) error {
	for _, x := range all {
		if err := change(ctx, tx, `INSERT INTO memory_sources (fact, chat, message, quote, start_byte, private, said_at) VALUES (?,?,?,?,?,?,?) ON CONFLICT (fact, message) DO NOTHING`,
			fact, x.Chat, x.Message, x.Quote, x.Start, x.Private, x.Said.UnixMilli()); err != nil {
			return err
		}
	}
	return nil
}

// supersede makes a fact history; what it contradicted is decided with that.
func (s *Service) supersede(ctx context.Context, tx *transaction, old, by int64, now time.Time) error {
	at := now.UnixMilli()
	if err := change(ctx, tx, `UPDATE memory_facts SET state = 'superseded', superseded_by = ?, rev = rev + 1, changed_at = ? WHERE id = ? AND state = 'current'`, by, at, old); err != nil {
		return err
	}
	return change(ctx, tx, `UPDATE memory_conflicts SET outcome = CASE WHEN older = ? THEN 'newer' ELSE 'older' END, resolved_at = ?
		WHERE outcome = '' AND (older = ? OR newer = ?)`, old, at, old, old)
}

func (s *Service) rewrite(ctx context.Context, tx *transaction, f Fact, text string, now time.Time) error {
	if err := change(ctx, tx, `INSERT INTO memory_changes (fact, kind, before, run, at) VALUES (?, 'edited', ?, '', ?)`, f.ID, f.Text, now.UnixMilli()); err != nil {
		return err
	}
	return change(ctx, tx, `UPDATE memory_facts SET text = ?, norm = ?, rev = rev + 1, changed_at = ? WHERE id = ?`, text, normal(text), now.UnixMilli(), f.ID)
}

func (s *Service) resolve(ctx context.Context, tx *transaction, conflict int64, holds string, now time.Time) error {
	var older, newer int64
	var outcome string
	err := tx.QueryRowContext(ctx, `SELECT older, newer, outcome FROM memory_conflicts WHERE id = ?`+s.DB.Lock(), conflict).Scan(&older, &newer, &outcome)
	switch {
	case errors.Is(err, sql.ErrNoRows):
		return ErrNotFound
	case err != nil:
		return fmt.Errorf("read contradiction: %w", err)
	case outcome != "":
		return refused("contradiction %d was decided before: %s", conflict, outcome)
	}
	if err := change(ctx, tx, `UPDATE memory_conflicts SET outcome = ?, resolved_at = ? WHERE id = ?`, holds, now.UnixMilli(), conflict); err != nil {
		return err
	}
	loser := newer
	switch holds {
	case HoldsOlder:
		err = s.supersede(ctx, tx, newer, older, now)
	case HoldsNewer:
		loser = older
		err = s.supersede(ctx, tx, older, newer, now)
	}
	if err != nil {
		return err
	}
	return change(ctx, tx, `INSERT INTO memory_changes (fact, kind, conflict, run, at) VALUES (?, 'resolved', ?, '', ?)`, loser, conflict, now.UnixMilli())
}

// undo takes back the last change that was not.
func (s *Service) undo(ctx context.Context, tx *transaction, fact int64, now time.Time) (kind string, of int64, err error) {
	var id, conflict int64
	var before string
	err = tx.QueryRowContext(ctx, `SELECT c.id, c.fact, c.kind, c.conflict, c.before FROM memory_changes c JOIN memory_facts f ON f.id = c.fact
		WHERE NOT c.undone AND f.state <> 'forgetting' AND (? = 0 OR c.fact = ?) ORDER BY c.id DESC LIMIT 1`, fact, fact).Scan(&id, &of, &kind, &conflict, &before)
	if errors.Is(err, sql.ErrNoRows) {
		return "", 0, ErrNothing
	}
	if err != nil {
		return "", 0, fmt.Errorf("read history of facts: %w", err)
	}
	if err := s.vacant(ctx, tx, of, kind, before); err != nil {
		return "", 0, err
	}
	at := now.UnixMilli()
	do := func(query string, args ...any) {
		if err == nil {
			err = change(ctx, tx, query, args...)
		}
	}
	do(`UPDATE memory_changes SET undone = ? WHERE id = ?`, true, id)
	switch kind {
	case "made":
		do(`UPDATE memory_facts SET state = 'undone', superseded_by = NULL, rev = rev + 1, changed_at = ? WHERE id = ?`, at, of)
		do(`UPDATE memory_conflicts SET outcome = 'undone', resolved_at = ? WHERE outcome = '' AND (older = ? OR newer = ?)`, at, of, of)
		do(`UPDATE memory_facts SET state = 'current', superseded_by = NULL, rev = rev + 1, changed_at = ? WHERE superseded_by = ? AND state = 'superseded'
			AND norm NOT IN (SELECT norm FROM memory_facts WHERE state = 'current')`, at, of)
	case "edited":
		do(`UPDATE memory_facts SET text = ?, norm = ?, rev = rev + 1, changed_at = ? WHERE id = ?`, before, normal(before), at, of)
	case "resolved":
		do(`UPDATE memory_conflicts SET outcome = '', resolved_at = NULL WHERE id = ?`, conflict)
		do(`UPDATE memory_facts SET state = 'current', superseded_by = NULL, rev = rev + 1, changed_at = ? WHERE id = ? AND state = 'superseded'`, at, of)
	}
	return kind, of, err
}

// vacant says that a fact can be as it was: no other current one says the same.
func (s *Service) vacant(ctx context.Context, tx *transaction, of int64, kind, before string) error {
	var norm string
	if err := tx.QueryRowContext(ctx, `SELECT norm FROM memory_facts WHERE id = ?`, of).Scan(&norm); err != nil {
		return fmt.Errorf("read fact: %w", err)
	}
	if kind == "edited" {
		norm = normal(before)
	}
	var other int64
	err := tx.QueryRowContext(ctx, `SELECT id FROM memory_facts WHERE norm = ? AND state = 'current' AND id <> ?`, norm, of).Scan(&other)
	switch {
	case kind == "made" || errors.Is(err, sql.ErrNoRows):
		return nil
	case err != nil:
		return fmt.Errorf("read facts: %w", err)
	}
	return refused("fact %d cannot be put back as it was: fact %d says the same", of, other)
}

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

// conceal makes the facts private that rest on a message, unless others say the same.
func (s *Service) conceal(ctx context.Context, message int64) error {
	return s.DB.Tx(ctx, func(tx *transaction) error {
		if err := change(ctx, tx, `UPDATE memory_sources SET private = ? WHERE message = ? AND NOT private`, true, message); err != nil {
			return err
		}
		return change(ctx, tx, `UPDATE memory_facts SET private = ?, rev = rev + 1 WHERE NOT private AND state <> 'forgetting' AND id IN (SELECT fact FROM memory_sources WHERE message = ?)
			AND NOT EXISTS (SELECT 1 FROM memory_sources o WHERE o.fact = memory_facts.id AND NOT o.private)`, true, message)
	})
}

// unindexed are the facts of which the index does not have the last word.
func (s *Service) unindexed(ctx context.Context) ([]Fact, error) {
	ids, err := db.All(ctx, s.DB.Read(), "read memory", db.Column[int64], `SELECT id FROM memory_facts WHERE indexed <> rev AND state <> 'forgetting' ORDER BY id`)
	if err != nil || len(ids) == 0 {
		return nil, err
	}
	var all []Fact
	for batch := range slices.Chunk(ids, 500) {
		some, err := s.facts(ctx, s.DB.Read(), filter{ids: batch})
		if err != nil {
			return nil, err
		}
		all = append(all, some...)
	}
	return all, nil
}

func (s *Service) markIndexed(ctx context.Context, all []Fact) error {
	return s.DB.Tx(ctx, func(tx *transaction) error {
		for _, f := range all {
			if err := change(ctx, tx, `UPDATE memory_facts SET indexed = ? WHERE id = ?`, f.rev, f.ID); err != nil {
				return err
			}
		}
		return nil
	})
}

// messages are all that facts rest on, and all that were read.
func (s *Service) messages(ctx context.Context) ([]int64, error) {
	return db.All(ctx, s.DB.Read(), "read memory", db.Column[int64], `SELECT message FROM memory_sources UNION SELECT message FROM memory_read UNION SELECT message FROM memory_answers`)
}

// lose removes what rests on messages that are gone, and returns the facts that then rest on nothing.
func (s *Service) lose(ctx context.Context, gone []int64) (bare []int64, err error) {
	err = s.DB.Tx(ctx, func(tx *transaction) error {
		bare = nil
		for batch := range slices.Chunk(gone, 500) {
			marks, args := db.In(batch)
			in := `(` + marks + `)`
			var words int // of facts, that are in the files
			if err := tx.QueryRowContext(ctx, `SELECT (SELECT count(*) FROM memory_sources WHERE message IN `+in+`) + (SELECT count(*) FROM memory_answers WHERE message IN `+in+`)`,
				append(args, args...)...).Scan(&words); err != nil {
				return fmt.Errorf("read memory: %w", err)
			}
			for _, q := range []string{`DELETE FROM memory_answers WHERE message IN `, `DELETE FROM memory_read WHERE message IN `} {
				if err := change(ctx, tx, q+in, args...); err != nil {
					return err
				}
			}
			some, err := db.All(ctx, tx, "read memory", db.Column[int64], `SELECT DISTINCT s.fact FROM memory_sources s JOIN memory_facts f ON f.id = s.fact WHERE f.origin <> 'added' AND f.state <> 'forgetting'
				AND s.message IN `+in+` AND NOT EXISTS (SELECT 1 FROM memory_sources o WHERE o.fact = s.fact AND o.message NOT IN `+in+`)`, append(args, args...)...)
			if err != nil {
				return err
			}
			bare = append(bare, some...)
			if err := markForgetting(ctx, tx, some); err != nil { // they keep their sources until they are gone, so that all of them can be erased
				return err
			}
			if err := change(ctx, tx, `DELETE FROM memory_sources WHERE message IN `+in+` AND fact NOT IN (SELECT id FROM memory_facts WHERE state = 'forgetting')`, args...); err != nil {
				return err
			}
			if words == 0 {
				continue
			}
			if err := wantScrub(ctx, tx); err != nil {
				return err
			}
		}
		return nil
	})
	return bare, err
}

func markForgetting(ctx context.Context, tx *transaction, ids []int64) error {
	for _, id := range ids {
		if err := change(ctx, tx, `UPDATE memory_facts SET state = 'forgetting' WHERE id = ?`, id); err != nil {
			return err
		}
	}
	return nil
}

// said before are the texts that a fact had.
func (s *Service) formerly(ctx context.Context, fact int64) ([]string, error) {
	return db.All(ctx, s.DB.Read(), "read memory", db.Column[string], `SELECT before FROM memory_changes WHERE fact = ? AND before <> ''`, fact)
}

// remove deletes facts with all that belongs to them.
func (s *Service) remove(ctx context.Context, ids []int64) error {
	return s.DB.Tx(ctx, func(tx *transaction) error {
		for _, id := range ids {
			if err := change(ctx, tx, `DELETE FROM memory_answers WHERE message IN (SELECT message FROM memory_sources WHERE fact = ?)`, id); err != nil {
				return err
			}
			if err := change(ctx, tx, `DELETE FROM memory_facts WHERE id = ?`, id); err != nil { // sources, contradictions and history go with it
				return err
			}
			if err := change(ctx, tx, `UPDATE memory_facts SET superseded_by = NULL WHERE superseded_by = ?`, id); err != nil {
				return err
			}
		}
		return wantScrub(ctx, tx)
	})
}

// wantScrub notes down that the files must be rid of what was deleted.
func wantScrub(ctx context.Context, tx *transaction) error {
	return change(ctx, tx, `INSERT INTO memory_scrub (id, at) VALUES (1, ?) ON CONFLICT (id) DO UPDATE SET at = excluded.at`, time.Now().UnixMilli())
}

func (s *Service) scrubWanted(ctx context.Context) (at int64, err error) {
	err = s.DB.Read().QueryRowContext(ctx, `SELECT at FROM memory_scrub`).Scan(&at)
	if errors.Is(err, sql.ErrNoRows) {
		return 0, nil
	}
	return at, err
}

func (s *Service) scrubbed(ctx context.Context, at int64) error {
	return s.DB.Tx(ctx, func(tx *transaction) error { return change(ctx, tx, `DELETE FROM memory_scrub WHERE at = ?`, at) })
}

func change(ctx context.Context, tx *transaction, query string, args ...any) error {
	if _, err := tx.ExecContext(ctx, query, args...); err != nil {
		return fmt.Errorf("write memory: %w", err)
	}
	return nil
}
