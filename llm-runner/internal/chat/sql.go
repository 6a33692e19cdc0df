package chat

import (
	"context"
	"database/sql"
	"encoding/json"
	"errors"
	"fmt"
	"strconv"
	"strings"
	"time"

	"home.arpa/lab/llm-runner/internal/db"
	"home.arpa/lab/llm-runner/internal/llm"
)

// transaction is a write under way, which the exported methods own.
type transaction = sql.Tx

// gap is added to the log's last number when a dead process's turn is folded: beyond anything a reader can have seen of
// events that had not reached the disk.
const gap = 1 << 20

// Which of the turns that adopt marks are asked again by themselves.
var (
	dueNone  = `false`
	dueAll   = fmt.Sprintf(`resumes < %d`, mostResumes)
	dueAsked = dueAll + ` AND holds + resumes > 0` // nobody has been told anything of them
)

// dueOf is which turns adopt makes due: none, where there is no engine.
func (s *Service) dueOf(which string) string {
	if s.config.Engine == nil {
		return dueNone
	}
	return which
}

// adopt marks the turns that a dead process left running and folds what came of them.
func adopt(ctx context.Context, d *db.DB, worker, due string) error {
	const running = `state IN ('waiting', 'streaming') AND worker = ?`
	err := d.Tx(ctx, func(tx *transaction) error {
		for _, q := range []string{
			`UPDATE messages SET text = coalesce((SELECT string_agg(p.text, '' ORDER BY p.seq) FROM turn_pieces p
				WHERE p.turn = messages.id), '') WHERE id IN (SELECT id FROM turns WHERE ` + running + `)`,
			`UPDATE turns SET state = 'interrupted', error = 'the program ended while this answer was arriving', due = (` + due + `),
				ended_at = coalesce(ended_at, started_at),
				thinking = coalesce((SELECT string_agg(p.thinking, '' ORDER BY p.seq) FROM turn_pieces p WHERE p.turn = turns.id), ''),
				seq = coalesce((SELECT max(p.seq) FROM turn_pieces p WHERE p.turn = turns.id AND p.seq > turns.seq), seq) + ` + fmt.Sprint(gap) + `
				WHERE ` + running,
			`DELETE FROM turn_pieces WHERE turn IN (SELECT id FROM turns WHERE state NOT IN ('waiting', 'streaming') AND worker = ?)`,
		} {
			if _, err := tx.ExecContext(ctx, q, worker); err != nil {
				return err
			}
		}
		return tell(ctx, d, tx, 0)
	})
	if err != nil {
		return fmt.Errorf("recover conversations: %w", err)
	}
	return nil
}

func insertChat(ctx context.Context, tx *transaction, title string, now time.Time) (id int64, err error) {
	err = tx.QueryRowContext(ctx, `INSERT INTO chats (title, created_at, updated_at) VALUES (?,?,?) RETURNING id`,
		title, now.UnixMilli(), now.UnixMilli()).Scan(&id)
	if err != nil {
		return 0, fmt.Errorf("write conversation: %w", err)
	}
	return id, nil
}

func insertMessage(ctx context.Context, tx *transaction, chat, parent int64, role llm.Role, text, key string, now time.Time) (id int64, err error) {
	err = tx.QueryRowContext(ctx, `INSERT INTO messages (chat, parent, role, text, sent_key, created_at)
		SELECT id, ?, ?, ?, ?, ? FROM chats WHERE id = ? RETURNING id`, db.OrNull(parent), role, text, db.OrNull(key), now.UnixMilli(), chat).Scan(&id)
	return id, known(err, "write message")
}

// insertTurn adds an empty answer to a question.
func (s *Service) insertTurn(ctx context.Context, tx *transaction, t Turn, question int64) (_ Turn, err error) {
	t.Seq = 0
	if t.ID, err = insertMessage(ctx, tx, t.Chat, question, llm.Assistant, "", "", t.Started); err != nil {
		return Turn{}, err
	}
	if _, err := tx.ExecContext(ctx, `INSERT INTO turns (id, state, asked, project, started_at, worker, holds, resumes, tools, memory, run) VALUES (?,?,?,?,?,?,?,?,?,?,?)`,
		t.ID, t.State, t.Asked, t.Project, t.Started.UnixMilli(), s.db.Worker(), t.Holds, t.Resumes, t.Tools, t.Memory, t.Run); err != nil {
		return Turn{}, fmt.Errorf("write turn: %w", err)
	}
	if t.Run == 0 {
		t.Run = t.ID
	}
	return t, nil
}

// touch shows a turn and remembers what was asked for.
func touch(ctx context.Context, tx *transaction, t Turn, now time.Time) error {
	_, err := tx.ExecContext(ctx, `UPDATE chats SET leaf=?, model=?, project=?, tools=?, memory=?, updated_at=? WHERE id=?`,
		t.ID, t.Asked, t.Project, t.Tools, t.Memory, now.UnixMilli(), t.Chat)
	if err != nil {
		return fmt.Errorf("write conversation: %w", err)
	}
	return nil
}

// moveLeaf shows a leaf where another one was shown.
func moveLeaf(ctx context.Context, tx *transaction, chat, from, to int64) error {
	if _, err := tx.ExecContext(ctx, `UPDATE chats SET leaf=? WHERE id=? AND leaf=?`, to, chat, from); err != nil {
		return fmt.Errorf("write conversation: %w", err)
	}
	return nil
}

// forgetText has a turn that is asked again begin with nothing.
func forgetText(ctx context.Context, tx *transaction, turn int64) error {
	if _, err := tx.ExecContext(ctx, `UPDATE messages SET text = '' WHERE id = ? AND text <> ''`, turn); err != nil {
		return fmt.Errorf("write message: %w", err)
	}
	return nil
}

// undue has a turn wait no longer; its readers are told.
func undue(ctx context.Context, tx *transaction, turn int64) error {
	if _, err := tx.ExecContext(ctx, `UPDATE turns SET due = false, seq = seq + 1 WHERE id=?`, turn); err != nil {
		return fmt.Errorf("write turn: %w", err)
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
		citations=?, finish=?, error=?, retry_at=?, due=?, holds=?, resumes=?, tools=?, run=?, private=?, memory=?, remembered=? WHERE id=?`,
		t.State, t.Seq, t.Asked, t.Project, t.Route.Provider, t.Route.Model, t.Route.Rule, t.Route.Why, t.Started.UnixMilli(),
		db.OrNull(t.First.Microseconds()), db.Millis(t.Ended), t.Usage.Input.Ptr(), t.Usage.Output.Ptr(), t.Usage.CachedInput.Ptr(),
		t.Usage.Thinking.Ptr(), t.Cost.Ptr(), t.Thinking, string(citations), t.Finish, t.Error, db.Millis(t.RetryAt), t.Due, t.Holds, t.Resumes, t.Tools, t.Run, t.Private, t.Memory, remembered(t), t.ID)
	if err != nil {
		return fmt.Errorf("write turn: %w", err)
	}
	return nil
}

// take makes a turn that is asked again this process's own.
func take(ctx context.Context, tx *transaction, turn int64, worker string) error {
	if _, err := tx.ExecContext(ctx, `UPDATE turns SET worker=? WHERE id=?`, worker, turn); err != nil {
		return fmt.Errorf("write turn: %w", err)
	}
	return nil
}

// runningIn lists the turns under way of a conversation, by whichever process.
func runningIn(ctx context.Context, q db.Querier, chat int64) ([]int64, error) {
	return db.All(ctx, q, "read conversations", db.Column[int64],
		`SELECT t.id FROM turns t JOIN messages m ON m.id = t.id WHERE m.chat = ? AND t.state IN ('waiting', 'streaming')`, chat)
}

// runningBy lists the turns under way of one process that began before a time.
func runningBy(ctx context.Context, q db.Querier, worker string, before time.Time) ([]int64, error) {
	return db.All(ctx, q, "read conversations", db.Column[int64],
		`SELECT id FROM turns WHERE state IN ('waiting', 'streaming') AND worker = ? AND started_at < ?`, worker, before.UnixMilli())
}

// adoptOne is adopt for one turn of a process that lives.
func adoptOne(ctx context.Context, d *db.DB, turn int64, worker, due string) error {
	nobody := fmt.Sprintf("%s, but for turn %d", worker, turn)
	err := d.Tx(ctx, func(tx *transaction) error { return take(ctx, tx, turn, nobody) })
	return errors.Join(err, adopt(ctx, d, nobody, due))
}

// A piece is what came of a running turn at once.
type piece struct {
	seq            int64
	text, thinking string
}

// pieces are what has come of a running turn after a place in its log.
func pieces(ctx context.Context, q db.Querier, turn, after int64) ([]piece, error) {
	return db.All(ctx, q, "read conversations", func(row *sql.Rows) (p piece, err error) {
		err = row.Scan(&p.seq, &p.text, &p.thinking)
		return p, err
	}, `SELECT seq, text, thinking FROM turn_pieces WHERE turn = ? AND seq > ? ORDER BY seq`, turn, after)
}

// topic is what processes tell each other about turns: "ID" of one that changed, 0 for any; "stop ID" to the one that runs it.
const topic = "turn"

func tell(ctx context.Context, d *db.DB, tx *transaction, turn int64) error {
	return d.Tell(ctx, tx, topic, strconv.FormatInt(turn, 10))
}

// writeStop asks the process that runs a turn to stop it.
func (s *Service) writeStop(ctx context.Context, turn int64) error {
	return s.db.Tx(ctx, func(tx *transaction) error { return s.db.Tell(ctx, tx, topic, stopWord+strconv.FormatInt(turn, 10)) })
}

// lasting is the context of a write that is made whatever ends the turn. A database server that does not answer counts as one
// that refuses.
func (s *Service) lasting() (context.Context, context.CancelFunc) {
	if s.db.Shared() {
		return context.WithTimeout(context.Background(), 5*time.Second)
	}
	return context.Background(), func() {}
}

// mine says, with errLost, that a turn under way is another process's by now, or was taken for ended.
func (s *Service) mine(ctx context.Context, tx *transaction, turn int64) error {
	if !s.db.Shared() {
		return nil
	}
	var worker string
	var state State
	err := tx.QueryRowContext(ctx, `SELECT worker, state FROM turns WHERE id=?`+s.db.Lock(), turn).Scan(&worker, &state)
	if err == nil && (worker != s.db.Worker() || !state.Running()) {
		return errLost
	}
	if errors.Is(err, sql.ErrNoRows) { // it was deleted
		return nil
	}
	return err
}

// writePiece writes what came of a running turn since the last piece, and its facts where they changed.
func (s *Service) writePiece(t Turn, facts bool, text, thinking string) error {
	ctx, cancel := s.lasting() // a batch is written also while the turn is being stopped
	defer cancel()
	return s.write(ctx, t.Chat, func(tx *transaction) error {
		if err := s.mine(ctx, tx, t.ID); err != nil {
			return err
		}
		if facts {
			if err := updateTurn(ctx, tx, t); err != nil {
				return err
			}
		}
		if text != "" || thinking != "" { // of a turn that is still there
			if _, err := tx.ExecContext(ctx, `INSERT INTO turn_pieces (turn, seq, text, thinking) SELECT id, ?, ?, ? FROM turns WHERE id = ?`,
				t.Seq, text, thinking, t.ID); err != nil {
				return err
			}
		}
		return tell(ctx, s.db, tx, t.ID)
	})
}

// writeEnd folds a turn that ended.
func (s *Service) writeEnd(t Turn, text string) error {
	ctx, cancel := s.lasting() // the end is written whatever ended the turn
	defer cancel()
	return s.write(ctx, t.Chat, func(tx *transaction) error {
		if err := s.mine(ctx, tx, t.ID); err != nil {
			return err
		}
		if err := updateTurn(ctx, tx, t); err != nil {
			return err
		}
		if _, err := tx.ExecContext(ctx, `UPDATE messages SET text=? WHERE id=?`, text, t.ID); err != nil {
			return err
		}
		if _, err := tx.ExecContext(ctx, `UPDATE chats SET updated_at=? WHERE id=?`, t.Ended.UnixMilli(), t.Chat); err != nil {
			return err
		}
		if _, err := tx.ExecContext(ctx, `DELETE FROM turn_pieces WHERE turn=?`, t.ID); err != nil {
			return err
		}
		return tell(ctx, s.db, tx, t.ID)
	})
}

// selectLeaf shows the youngest leaf at or below a message.
func selectLeaf(ctx context.Context, tx *transaction, chat, message int64) error {
	_, err := tx.ExecContext(ctx, `WITH RECURSIVE below(id) AS (
			SELECT CAST(? AS BIGINT) UNION ALL
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

const chatColumns = `id, title, leaf, model, project, tools, memory, created_at, updated_at`

func oneChat(ctx context.Context, q db.Querier, id int64) (Chat, error) {
	c, err := db.One(ctx, q, "", scanChat, `SELECT `+chatColumns+` FROM chats WHERE id=?`, id)
	return c, known(err, "read conversation")
}

func listChats(ctx context.Context, q db.Querier, limit int) ([]Chat, error) {
	return db.All(ctx, q, "read conversations", scanChat, `SELECT `+chatColumns+` FROM chats ORDER BY updated_at DESC, id DESC LIMIT ?`, limit)
}

// find is the search for messages of SQLite and of PostgreSQL: conversations with the text around the hits, best first.
const (
	find = `SELECT c.id, c.title, c.leaf, c.model, c.project, c.tools, c.memory, c.created_at, c.updated_at,
			snippet(messages_fts, 0, char(2), char(3), '…', 14)
		FROM messages_fts JOIN messages m ON m.id = messages_fts.rowid JOIN chats c ON c.id = m.chat
		WHERE messages_fts MATCH ? ORDER BY rank LIMIT 500`
	findShared = `SELECT c.id, c.title, c.leaf, c.model, c.project, c.tools, c.memory, c.created_at, c.updated_at,
			ts_headline('simple', m.text, q, 'MaxWords=14, MinWords=7, StartSel="' || chr(2) || '", StopSel="' || chr(3) || '"')
		FROM messages m JOIN chats c ON c.id = m.chat, messages_query(?) q
		WHERE messages_words(m.text) @@ q ORDER BY ts_rank(messages_words(m.text), q) DESC, m.id LIMIT 500`
)

// search finds conversations by title first, then by their messages, best first.
func search(ctx context.Context, d *db.DB, query string, limit int) ([]Chat, error) {
	q, statement, match := d.Read(), find, ftsQuery(query)
	if d.Shared() {
		statement, match = findShared, tsQuery(query)
	}
	like := "%" + strings.NewReplacer(`\`, `\\`, `%`, `\%`, `_`, `\_`).Replace(strings.TrimSpace(query)) + "%"
	all, err := db.All(ctx, q, "read conversations", scanChat, `SELECT `+chatColumns+` FROM chats WHERE lower(title) LIKE lower(?) ESCAPE '\' ORDER BY updated_at DESC LIMIT ?`, like, limit)
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
	hits, err := db.All(ctx, q, "read conversations", func(row *sql.Rows) (h hit, err error) {
		var created, updated int64
		err = row.Scan(&h.ID, &h.Title, &h.Leaf, &h.Model, &h.Project, &h.Tools, &h.Memory, &created, &updated, &h.snippet)
		h.Created, h.Updated = time.UnixMilli(created), time.UnixMilli(updated)
		return h, err
	}, statement, match)
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

const messageColumns = `m.id, coalesce(m.parent, 0), m.role, m.text, m.created_at, m.chat`

func oneMessage(ctx context.Context, q db.Querier, id int64) (m Message, chat int64, err error) {
	m, err = db.One(ctx, q, "", func(row *sql.Rows) (m Message, err error) {
		m, chat, err = scanMessage(row)
		return m, err
	}, `SELECT `+messageColumns+` FROM messages m WHERE m.id=?`, id)
	return m, chat, known(err, "read message")
}

const turnColumns = `t.id, t.state, t.seq, t.asked, t.project, t.provider, t.model, t.rule, t.why, t.started_at, t.first_us, t.ended_at,
	t.input_tokens, t.output_tokens, t.cached_tokens, t.thinking_tokens, t.cost_micro_usd, t.thinking, t.citations, t.finish, t.error, t.retry_at,
	t.due, t.holds, t.resumes, t.tools, t.run, t.private, t.memory, t.remembered`

// selectTurns begins a query for scanTurn.
const selectTurns = `SELECT ` + turnColumns + `, m.chat FROM turns t JOIN messages m ON m.id = t.id `

func oneTurn(ctx context.Context, q db.Querier, id int64) (Turn, error) {
	t, err := db.One(ctx, q, "", scanTurn, selectTurns+`WHERE t.id=?`, id)
	return t, known(err, "read turn")
}

// lockedTurn is oneTurn for a change.
func lockedTurn(ctx context.Context, d *db.DB, tx *transaction, id int64) (Turn, error) {
	var found int64
	if err := tx.QueryRowContext(ctx, `SELECT id FROM turns WHERE id=?`+d.Lock(), id).Scan(&found); err != nil {
		return Turn{}, known(err, "read turn")
	}
	return oneTurn(ctx, tx, id)
}

// dueTurns lists the turns that are due, oldest first.
func dueTurns(ctx context.Context, q db.Querier) ([]Turn, error) {
	return db.All(ctx, q, "read conversations", scanTurn, selectTurns+`WHERE t.due ORDER BY t.id`)
}

// turnsOfRun lists the turns of a run; where, "" or a condition that ends in AND, says which.
func turnsOfRun(ctx context.Context, q db.Querier, run int64, where string) ([]Turn, error) {
	return db.All(ctx, q, "read conversations", scanTurn, selectTurns+`WHERE `+where+` (t.run = ? OR t.run = 0 AND t.id = ?) ORDER BY t.id`, run, run)
}

// turnByKey returns the first answer to the question that was sent with a key.
func turnByKey(ctx context.Context, q db.Querier, key string) (Turn, error) {
	var id int64
	err := q.QueryRowContext(ctx, `SELECT min(a.id) FROM messages q JOIN messages a ON a.parent = q.id WHERE q.sent_key = ?
		GROUP BY q.id`, key).Scan(&id)
	if err != nil {
		return Turn{}, known(err, "read message")
	}
	return oneTurn(ctx, q, id)
}

// path returns the messages from a conversation's beginning to a leaf.
func path(ctx context.Context, q db.Querier, leaf int64) ([]Message, error) {
	return db.All(ctx, q, "read conversations", withTurn, `WITH RECURSIVE up(id) AS (
			SELECT CAST(? AS BIGINT) UNION ALL SELECT m.parent FROM messages m JOIN up ON m.id = up.id WHERE m.parent IS NOT NULL)
		SELECT `+messageColumns+`, `+turnColumns+` FROM up JOIN messages m ON m.id = up.id LEFT JOIN turns t ON t.id = m.id
		ORDER BY m.id`, leaf)
}

func tree(ctx context.Context, q db.Querier, chat int64) ([]Message, error) {
	return db.All(ctx, q, fmt.Sprintf("read conversation %d", chat), withTurn, `SELECT `+messageColumns+`, `+turnColumns+` FROM messages m LEFT JOIN turns t ON t.id = m.id
		WHERE m.chat = ? ORDER BY m.id`, chat)
}

// upstream is what is sent for a turn: the branch that leads to it, without answers that have no text.
func upstream(ctx context.Context, q db.Querier, turn int64) ([]llm.Message, error) {
	all, err := path(ctx, q, turn)
	if err != nil {
		return nil, err
	}
	var sent []llm.Message
	for _, m := range all {
		if m.Text != "" {
			says := llm.Says(m.Role, m.Text)
			says.Parts[0].Private = m.Turn != nil && m.Turn.Private
			sent = append(sent, says)
		}
	}
	return sent, nil
}

// siblings fills in the alternatives of messages of one conversation.
func siblings(ctx context.Context, q db.Querier, chat int64, all []Message) error {
	children := map[int64][]int64{}
	err := db.Each(ctx, q, "read conversations", func(row *sql.Rows) error {
		var id, parent int64
		err := row.Scan(&id, &parent)
		children[parent] = append(children[parent], id)
		return err
	}, `SELECT id, coalesce(parent, 0) FROM messages WHERE chat = ? ORDER BY id`, chat)
	if err != nil {
		return err
	}
	for i := range all {
		all[i].Siblings = children[all[i].Parent]
	}
	return nil
}

// kept are the tables of a conversation, the ones that others refer to first, and how its rows are found.
var kept = []struct{ table, key, where, order string }{
	{"chats", "id", "id = ?", "id"},
	{"messages", "id", "chat = ?", "id"},
	{"turns", "id", "id IN (SELECT id FROM messages WHERE chat = ?)", "id"},
	{"turn_pieces", "turn, seq", "turn IN (SELECT id FROM messages WHERE chat = ?)", "turn, seq"},
}

// seed has a database in memory give numbers that the disk has not given, nor will give meanwhile.
func seed(ctx context.Context, disk, memory *db.DB) (floor int64, err error) {
	if err := disk.Read().QueryRowContext(ctx, `SELECT coalesce(max(id), 0) FROM (SELECT id FROM chats UNION ALL SELECT id FROM messages) AS given`).Scan(&floor); err != nil {
		return 0, fmt.Errorf("read conversations: %w", err)
	}
	floor += gap
	return floor, memory.Tx(ctx, func(tx *transaction) error {
		_, err := tx.ExecContext(ctx, `INSERT INTO sqlite_sequence (name, seq) VALUES ('chats', ?), ('messages', ?)`, floor, floor)
		return err
	})
}

// copyChat copies a conversation and returns the numbers of its messages.
func copyChat(ctx context.Context, from db.Querier, to *db.DB, chat int64) ([]int64, error) {
	err := to.Tx(ctx, func(tx *transaction) error {
		for _, k := range kept {
			if err := copyRows(ctx, from, tx, k.table, k.key, k.where, k.order, chat); err != nil {
				return err
			}
		}
		return nil
	})
	if err != nil {
		return nil, err
	}
	return db.All(ctx, from, "read conversations", db.Column[int64],
		`SELECT id FROM messages WHERE chat = ?`, chat)
}

// moveBack writes all conversations of a database in memory to the disk, in one transaction, and says how many.
func moveBack(ctx context.Context, memory, disk *db.DB) (int, error) {
	all, err := db.All(ctx, memory.Read(), "read conversations", db.Column[int64],
		`SELECT id FROM chats ORDER BY id`)
	if err != nil {
		return 0, err
	}
	return len(all), disk.Tx(ctx, func(tx *transaction) error {
		for _, chat := range all {
			// The disk may have a running turn's pieces, of which the turn's end in memory knows nothing.
			if _, err := tx.ExecContext(ctx, `DELETE FROM turn_pieces WHERE turn IN (SELECT id FROM messages WHERE chat = ?)`, chat); err != nil {
				return fmt.Errorf("write conversation: %w", err)
			}
			for _, k := range kept {
				if err := copyRows(ctx, memory.Read(), tx, k.table, k.key, k.where, k.order, chat); err != nil {
					return err
				}
			}
		}
		return nil
	})
}

// copyRows writes the rows of a table that where finds over those that are there.
func copyRows(ctx context.Context, from db.Querier, tx *transaction, table, key, where, order string, chat int64) error {
	rows, err := from.QueryContext(ctx, `SELECT * FROM `+table+` WHERE `+where+` ORDER BY `+order, chat)
	if err != nil {
		return fmt.Errorf("read conversation %d: %w", chat, err)
	}
	defer rows.Close()
	names, err := rows.Columns()
	if err != nil {
		return fmt.Errorf("read conversation %d: %w", chat, err)
	}
	marks, news := make([]string, len(names)), make([]string, len(names))
	for i, name := range names {
		marks[i], news[i] = "?", name+" = excluded."+name
		if name == "sent_key" { // a form that was sent to the disk and to memory has been asked twice; one has the key
			marks[i] = "(SELECT x.k FROM (SELECT ? AS k) x WHERE NOT EXISTS (SELECT 1 FROM messages WHERE sent_key = x.k))"
			news[i] = "sent_key = coalesce(messages.sent_key, excluded.sent_key)"
		}
	}
	insert := `INSERT INTO ` + table + ` (` + strings.Join(names, ", ") + `) VALUES (` + strings.Join(marks, ", ") + `) ON CONFLICT (` + key +
		`) DO UPDATE SET ` + strings.Join(news, ", ")
	values, into := make([]any, len(names)), make([]any, len(names))
	for i := range values {
		into[i] = &values[i]
	}
	for rows.Next() {
		if err := rows.Scan(into...); err != nil {
			return fmt.Errorf("read conversation %d: %w", chat, err)
		}
		if _, err := tx.ExecContext(ctx, insert, values...); err != nil {
			return fmt.Errorf("write conversation %d: %w", chat, err)
		}
	}
	return rows.Err()
}
