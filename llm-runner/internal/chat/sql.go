package chat

import (
	"context"
	"database/sql"
	"encoding/json"
	"errors"
	"fmt"
	"strings"
	"time"

	"home.arpa/lab/llm-runner/internal/db"
	"home.arpa/lab/llm-runner/internal/llm"
)

// querier is a transaction or the read pool.
type querier interface {
	QueryContext(ctx context.Context, query string, args ...any) (*sql.Rows, error)
	QueryRowContext(ctx context.Context, query string, args ...any) *sql.Row
}

// transaction is a write under way, which the exported methods own.
type transaction = sql.Tx

// gap is added to the log's last number when a dead process's turn is folded: beyond anything a reader can have seen of
// events that had not reached the disk.
const gap = 1 << 20

// recoverTurns marks the turns that a dead process left running and folds what came of them.
func recoverTurns(ctx context.Context, d *db.DB) error {
	err := d.Tx(ctx, func(tx *transaction) error {
		for _, q := range []string{
			`UPDATE messages SET text = coalesce((SELECT group_concat(p.text, '' ORDER BY p.seq) FROM turn_pieces p
				WHERE p.turn = messages.id), '') WHERE id IN (SELECT id FROM turns WHERE state IN ('waiting', 'streaming'))`,
			`UPDATE turns SET state = 'interrupted', error = 'the program ended while this answer was arriving',
				ended_at = coalesce(ended_at, started_at),
				thinking = coalesce((SELECT group_concat(p.thinking, '' ORDER BY p.seq) FROM turn_pieces p WHERE p.turn = turns.id), ''),
				seq = max(seq, coalesce((SELECT max(p.seq) FROM turn_pieces p WHERE p.turn = turns.id), 0)) + ` + fmt.Sprint(gap) + `
				WHERE state IN ('waiting', 'streaming')`,
			`DELETE FROM turn_pieces`,
		} {
			if _, err := tx.ExecContext(ctx, q); err != nil {
				return err
			}
		}
		return nil
	})
	if err != nil {
		return fmt.Errorf("recover conversations: %w", err)
	}
	return nil
}

func insertChat(ctx context.Context, tx *transaction, title string, now time.Time) (int64, error) {
	r, err := tx.ExecContext(ctx, `INSERT INTO chats (title, created_at, updated_at) VALUES (?,?,?)`, title, now.UnixMilli(), now.UnixMilli())
	return inserted(r, err, "conversation")
}

func insertMessage(ctx context.Context, tx *transaction, chat, parent int64, role llm.Role, text, key string, now time.Time) (int64, error) {
	r, err := tx.ExecContext(ctx, `INSERT INTO messages (chat, parent, role, text, sent_key, created_at)
		SELECT id, ?, ?, ?, ?, ? FROM chats WHERE id = ?`, db.OrNull(parent), role, text, db.OrNull(key), now.UnixMilli(), chat)
	if err == nil {
		if n, _ := r.RowsAffected(); n == 0 {
			return 0, ErrNotFound
		}
	}
	return inserted(r, err, "message")
}

func inserted(r sql.Result, err error, what string) (int64, error) {
	if err != nil {
		return 0, fmt.Errorf("write %s: %w", what, err)
	}
	return r.LastInsertId()
}

// insertTurn adds an empty answer to a question and shows it.
func insertTurn(ctx context.Context, tx *transaction, chat, question int64, o Options, now time.Time) (Turn, error) {
	id, err := insertMessage(ctx, tx, chat, question, llm.Assistant, "", "", now)
	if err != nil {
		return Turn{}, err
	}
	if _, err := tx.ExecContext(ctx, `INSERT INTO turns (id, state, asked, project, started_at) VALUES (?,?,?,?,?)`,
		id, Waiting, o.Model, o.Project, now.UnixMilli()); err != nil {
		return Turn{}, fmt.Errorf("write turn: %w", err)
	}
	return Turn{ID: id, Chat: chat, State: Waiting, Asked: o.Model, Project: o.Project, Started: now}, touch(ctx, tx, chat, id, o, now)
}

// touch shows a leaf and remembers what was asked for.
func touch(ctx context.Context, tx *transaction, chat, leaf int64, o Options, now time.Time) error {
	_, err := tx.ExecContext(ctx, `UPDATE chats SET leaf=?, model=?, project=?, updated_at=? WHERE id=?`,
		leaf, o.Model, o.Project, now.UnixMilli(), chat)
	if err != nil {
		return fmt.Errorf("write conversation: %w", err)
	}
	return nil
}

func updateTurn(ctx context.Context, tx *transaction, t Turn) error {
	citations, err := json.Marshal(t.Citations)
	if err != nil || t.Citations == nil {
		citations = []byte("[]")
	}
	_, err = tx.ExecContext(ctx, `UPDATE turns SET state=?, seq=?, asked=?, project=?, provider=?, model=?, rule=?, why=?, started_at=?,
		first_us=?, ended_at=?, input_tokens=?, output_tokens=?, cached_tokens=?, thinking_tokens=?, cost_micro_usd=?, thinking=?,
		citations=?, finish=?, error=?, retry_at=? WHERE id=?`,
		t.State, t.Seq, t.Asked, t.Project, t.Route.Provider, t.Route.Model, t.Route.Rule, t.Route.Why, t.Started.UnixMilli(),
		db.OrNull(t.First.Microseconds()), db.Millis(t.Ended), t.Usage.Input.Ptr(), t.Usage.Output.Ptr(), t.Usage.CachedInput.Ptr(),
		t.Usage.Thinking.Ptr(), t.Cost.Ptr(), t.Thinking, string(citations), t.Finish, t.Error, db.Millis(t.RetryAt), t.ID)
	if err != nil {
		return fmt.Errorf("write turn: %w", err)
	}
	return nil
}

// writePiece writes what came of a running turn since the last piece, and its facts where they changed.
func (s *Service) writePiece(t Turn, facts bool, text, thinking string) error {
	ctx := context.Background() // a batch is written also while the turn is being stopped
	return s.db.Tx(ctx, func(tx *transaction) error {
		if facts {
			if err := updateTurn(ctx, tx, t); err != nil {
				return err
			}
		}
		if text == "" && thinking == "" {
			return nil
		}
		_, err := tx.ExecContext(ctx, `INSERT INTO turn_pieces (turn, seq, text, thinking) VALUES (?,?,?,?)`, t.ID, t.Seq, text, thinking)
		return err
	})
}

// writeEnd folds a turn that ended.
func (s *Service) writeEnd(t Turn, text string) error {
	ctx := context.Background() // the end is written whatever ended the turn
	return s.db.Tx(ctx, func(tx *transaction) error {
		if err := updateTurn(ctx, tx, t); err != nil {
			return err
		}
		if _, err := tx.ExecContext(ctx, `UPDATE messages SET text=? WHERE id=?`, text, t.ID); err != nil {
			return err
		}
		if _, err := tx.ExecContext(ctx, `UPDATE chats SET updated_at=? WHERE id=?`, t.Ended.UnixMilli(), t.Chat); err != nil {
			return err
		}
		_, err := tx.ExecContext(ctx, `DELETE FROM turn_pieces WHERE turn=?`, t.ID)
		return err
	})
}

// selectLeaf shows the youngest leaf at or below a message.
func selectLeaf(ctx context.Context, tx *transaction, chat, message int64) error {
	_, err := tx.ExecContext(ctx, `WITH RECURSIVE below(id) AS (
			SELECT ? UNION ALL
			SELECT (SELECT max(m.id) FROM messages m WHERE m.parent = below.id) FROM below WHERE below.id IS NOT NULL)
		UPDATE chats SET leaf = (SELECT max(id) FROM below) WHERE id = ?`, message, chat)
	if err != nil {
		return fmt.Errorf("choose branch: %w", err)
	}
	return nil
}

func rename(ctx context.Context, tx *transaction, chat int64, title string) error {
	return found(tx.ExecContext(ctx, `UPDATE chats SET title=? WHERE id=?`, title, chat))
}

func deleteChat(ctx context.Context, tx *transaction, chat int64) error {
	return found(tx.ExecContext(ctx, `DELETE FROM chats WHERE id=?`, chat))
}

func found(r sql.Result, err error) error {
	if err != nil {
		return err
	}
	if n, err := r.RowsAffected(); err != nil || n == 0 {
		return errors.Join(err, ErrNotFound)
	}
	return nil
}

const chatColumns = `id, title, leaf, model, project, created_at, updated_at`

func scanChat(row interface{ Scan(...any) error }) (c Chat, err error) {
	var created, updated int64
	err = row.Scan(&c.ID, &c.Title, &c.Leaf, &c.Model, &c.Project, &created, &updated)
	c.Created, c.Updated = time.UnixMilli(created), time.UnixMilli(updated)
	return c, err
}

func oneChat(ctx context.Context, q querier, id int64) (Chat, error) {
	c, err := scanChat(q.QueryRowContext(ctx, `SELECT `+chatColumns+` FROM chats WHERE id=?`, id))
	return c, known(err, "read conversation")
}

// known turns "no rows" into ErrNotFound.
func known(err error, what string) error {
	switch {
	case err == nil:
		return nil
	case errors.Is(err, sql.ErrNoRows):
		return ErrNotFound
	}
	return fmt.Errorf("%s: %w", what, err)
}

func listChats(ctx context.Context, q querier, limit int) ([]Chat, error) {
	return collect(q, scanChat, ctx, `SELECT `+chatColumns+` FROM chats ORDER BY updated_at DESC, id DESC LIMIT ?`, limit)
}

// search finds conversations by title first, then by their messages, best first.
func search(ctx context.Context, q querier, query, match string, limit int) ([]Chat, error) {
	like := "%" + strings.NewReplacer(`\`, `\\`, `%`, `\%`, `_`, `\_`).Replace(strings.TrimSpace(query)) + "%"
	all, err := collect(q, scanChat, ctx, `SELECT `+chatColumns+` FROM chats WHERE title LIKE ? ESCAPE '\' ORDER BY updated_at DESC LIMIT ?`, like, limit)
	if err != nil {
		return nil, err
	}
	at := map[int64]int{}
	for i, c := range all {
		at[c.ID] = i
	}
	type hit struct {
		Chat
		snippet string
	}
	hits, err := collect(q, func(row interface{ Scan(...any) error }) (h hit, err error) {
		var created, updated int64
		err = row.Scan(&h.ID, &h.Title, &h.Leaf, &h.Model, &h.Project, &created, &updated, &h.snippet)
		h.Created, h.Updated = time.UnixMilli(created), time.UnixMilli(updated)
		return h, err
	}, ctx, `SELECT c.id, c.title, c.leaf, c.model, c.project, c.created_at, c.updated_at,
			snippet(messages_fts, 0, char(2), char(3), '…', 14)
		FROM messages_fts JOIN messages m ON m.id = messages_fts.rowid JOIN chats c ON c.id = m.chat
		WHERE messages_fts MATCH ? ORDER BY rank LIMIT 500`, match)
	if err != nil {
		return nil, err
	}
	for _, h := range hits {
		i, seen := at[h.ID]
		if !seen {
			if len(all) == limit {
				continue
			}
			i = len(all)
			at[h.ID], all = i, append(all, h.Chat)
		}
		if all[i].Snippet == "" {
			all[i].Snippet = h.snippet
		}
	}
	return all, nil
}

// ftsQuery turns what a person types into an FTS5 query: all words, the last one as a beginning.
func ftsQuery(text string) string {
	words := strings.Fields(strings.ReplaceAll(text, `"`, " "))
	for i, w := range words {
		words[i] = `"` + w + `"`
	}
	if len(words) == 0 {
		return ""
	}
	return strings.Join(words, " ") + "*"
}

const messageColumns = `m.id, coalesce(m.parent, 0), m.role, m.text, m.created_at, m.chat`

func scanMessage(row interface{ Scan(...any) error }, more ...any) (m Message, chat int64, err error) {
	var created int64
	err = row.Scan(append([]any{&m.ID, &m.Parent, &m.Role, &m.Text, &created, &chat}, more...)...)
	m.Created = time.UnixMilli(created)
	return m, chat, err
}

func oneMessage(ctx context.Context, q querier, id int64) (Message, int64, error) {
	m, chat, err := scanMessage(q.QueryRowContext(ctx, `SELECT `+messageColumns+` FROM messages m WHERE m.id=?`, id))
	return m, chat, known(err, "read message")
}

const turnColumns = `t.id, t.state, t.seq, t.asked, t.project, t.provider, t.model, t.rule, t.why, t.started_at, t.first_us, t.ended_at,
	t.input_tokens, t.output_tokens, t.cached_tokens, t.thinking_tokens, t.cost_micro_usd, t.thinking, t.citations, t.finish, t.error, t.retry_at`

// turnRow receives turnColumns; its fields are NULL for a message without a turn.
type turnRow struct {
	id, seq, started, first, ended, in, out, cached, thinking, cost, retry sql.NullInt64
	project                                                                sql.NullBool
	state, asked, provider, model, rule, why, thoughts, citations, finish  sql.NullString
	err                                                                    sql.NullString
}

func (r *turnRow) into() []any {
	return []any{&r.id, &r.state, &r.seq, &r.asked, &r.project, &r.provider, &r.model, &r.rule, &r.why, &r.started, &r.first, &r.ended,
		&r.in, &r.out, &r.cached, &r.thinking, &r.cost, &r.thoughts, &r.citations, &r.finish, &r.err, &r.retry}
}

func (r *turnRow) turn(chat int64) *Turn {
	if !r.id.Valid {
		return nil
	}
	t := &Turn{ID: r.id.Int64, Chat: chat, State: State(r.state.String), Seq: r.seq.Int64, Asked: r.asked.String, Project: r.project.Bool,
		Route:   llm.Route{Provider: r.provider.String, Model: r.model.String, Rule: r.rule.String, Why: r.why.String},
		Started: time.UnixMilli(r.started.Int64), First: time.Duration(r.first.Int64) * time.Microsecond, Ended: db.Moment(r.ended),
		Usage: llm.Usage{Input: db.Count(r.in), Output: db.Count(r.out), CachedInput: db.Count(r.cached), Thinking: db.Count(r.thinking)},
		Cost:  db.Count(r.cost), Thinking: r.thoughts.String, Finish: llm.Finish(r.finish.String), Error: r.err.String, RetryAt: db.Moment(r.retry)}
	json.Unmarshal([]byte(r.citations.String), &t.Citations) //nolint:errcheck // written by updateTurn; without them the answer still reads
	return t
}

func oneTurn(ctx context.Context, q querier, id int64) (Turn, error) {
	var r turnRow
	var chat int64
	err := q.QueryRowContext(ctx, `SELECT `+turnColumns+`, m.chat FROM turns t JOIN messages m ON m.id = t.id WHERE t.id=?`, id).
		Scan(append(r.into(), &chat)...)
	if err != nil {
		return Turn{}, known(err, "read turn")
	}
	return *r.turn(chat), nil
}

// turnByKey returns the first answer to the question that was sent with a key.
func turnByKey(ctx context.Context, q querier, key string) (Turn, error) {
	var id int64
	err := q.QueryRowContext(ctx, `SELECT min(a.id) FROM messages q JOIN messages a ON a.parent = q.id WHERE q.sent_key = ?
		GROUP BY q.id`, key).Scan(&id)
	if err != nil {
		return Turn{}, known(err, "read message")
	}
	return oneTurn(ctx, q, id)
}

// withTurn scans messageColumns followed by turnColumns.
func withTurn(row interface{ Scan(...any) error }) (Message, error) {
	var r turnRow
	m, chat, err := scanMessage(row, r.into()...)
	m.Turn = r.turn(chat)
	return m, err
}

// path returns the messages from a conversation's beginning to a leaf.
func path(ctx context.Context, q querier, leaf int64) ([]Message, error) {
	return collect(q, withTurn, ctx, `WITH RECURSIVE up(id) AS (
			SELECT ? UNION ALL SELECT m.parent FROM messages m JOIN up ON m.id = up.id WHERE m.parent IS NOT NULL)
		SELECT `+messageColumns+`, `+turnColumns+` FROM up JOIN messages m ON m.id = up.id LEFT JOIN turns t ON t.id = m.id
		ORDER BY m.id`, leaf)
}

func tree(ctx context.Context, q querier, chat int64) ([]Message, error) {
	return collect(q, withTurn, ctx, `SELECT `+messageColumns+`, `+turnColumns+` FROM messages m LEFT JOIN turns t ON t.id = m.id
		WHERE m.chat = ? ORDER BY m.id`, chat)
}

// upstream is what is sent for a turn: the branch that leads to it, without answers that have no text.
func upstream(ctx context.Context, q querier, turn int64) ([]llm.Message, error) {
	all, err := path(ctx, q, turn)
	if err != nil {
		return nil, err
	}
	var sent []llm.Message
	for _, m := range all {
		if m.Text != "" {
			sent = append(sent, llm.Says(m.Role, m.Text))
		}
	}
	return sent, nil
}

// siblings fills in the alternatives of messages of one conversation.
func siblings(ctx context.Context, q querier, chat int64, all []Message) error {
	type edge struct{ id, parent int64 }
	edges, err := collect(q, func(row interface{ Scan(...any) error }) (e edge, err error) {
		return e, row.Scan(&e.id, &e.parent)
	}, ctx, `SELECT id, coalesce(parent, 0) FROM messages WHERE chat = ? ORDER BY id`, chat)
	if err != nil {
		return err
	}
	children := map[int64][]int64{}
	for _, e := range edges {
		children[e.parent] = append(children[e.parent], e.id)
	}
	for i := range all {
		all[i].Siblings = children[all[i].Parent]
	}
	return nil
}

// collect reads all rows of a query.
func collect[T any](q querier, scan func(interface{ Scan(...any) error }) (T, error), ctx context.Context, query string, args ...any) ([]T, error) {
	rows, err := q.QueryContext(ctx, query, args...)
	if err != nil {
		return nil, fmt.Errorf("read conversations: %w", err)
	}
	defer rows.Close()
	var all []T
	for rows.Next() {
		x, err := scan(rows)
		if err != nil {
			return nil, fmt.Errorf("read conversations: %w", err)
		}
		all = append(all, x)
	}
	return all, rows.Err()
}
