package chat

import (
	"database/sql"
	"encoding/json"
	"errors"
	"fmt"
	"strings"
	"time"

	"home.arpa/lab/llm-runner/internal/db"
	"home.arpa/lab/llm-runner/internal/llm"
)

// How rows become what this package speaks of, and what people type becomes queries.

func found(r sql.Result, err error) error {
	if err != nil {
		return err
	}
	if n, err := r.RowsAffected(); err != nil || n == 0 {
		return errors.Join(err, ErrNotFound)
	}
	return nil
}

func scanChat(row *sql.Rows) (c Chat, err error) {
	var created, updated int64
	err = row.Scan(&c.ID, &c.Title, &c.Leaf, &c.Model, &c.Project, &c.Tools, &c.Memory, &created, &updated)
	c.Created, c.Updated = time.UnixMilli(created), time.UnixMilli(updated)
	return c, err
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

// tsQuery is ftsQuery for PostgreSQL (postgresql.org/docs/current/datatype-textsearch.html#DATATYPE-TSQUERY).
func tsQuery(text string) string {
	words := strings.Fields(text)
	for i, w := range words {
		words[i] = "'" + strings.NewReplacer(`\`, `\\`, `'`, `''`).Replace(w) + "'"
	}
	return strings.Join(words, " & ") + ":*"
}

func scanMessage(row *sql.Rows, more ...any) (m Message, chat int64, err error) {
	var created int64
	err = row.Scan(append([]any{&m.ID, &m.Parent, &m.Role, &m.Text, &created, &chat}, more...)...)
	m.Created = time.UnixMilli(created)
	return m, chat, err
}

// turnRow receives turnColumns; its fields are NULL for a message without a turn.
type turnRow struct {
	id, seq, started, first, ended, in, out, cached, thinking, cost, retry sql.NullInt64
	holds, resumes                                                         sql.NullInt64
	run                                                                    sql.NullInt64
	project, due, tools, private, memory                                   sql.NullBool
	state, asked, provider, model, rule, why, thoughts, citations, finish  sql.NullString
	err, remembered                                                        sql.NullString
}

func (r *turnRow) into() []any {
	return []any{&r.id, &r.state, &r.seq, &r.asked, &r.project, &r.provider, &r.model, &r.rule, &r.why, &r.started, &r.first, &r.ended,
		&r.in, &r.out, &r.cached, &r.thinking, &r.cost, &r.thoughts, &r.citations, &r.finish, &r.err, &r.retry,
		&r.due, &r.holds, &r.resumes, &r.tools, &r.run, &r.private, &r.memory, &r.remembered}
}

func (r *turnRow) turn(chat int64) *Turn {
	if !r.id.Valid {
		return nil
	}
	t := &Turn{ID: r.id.Int64, Chat: chat, State: State(r.state.String), Seq: r.seq.Int64, Asked: r.asked.String, Project: r.project.Bool,
		Route:   llm.Route{Provider: r.provider.String, Model: r.model.String, Rule: r.rule.String, Why: r.why.String},
		Started: time.UnixMilli(r.started.Int64), First: time.Duration(r.first.Int64) * time.Microsecond, Ended: db.Moment(r.ended),
		Usage: llm.Usage{Input: db.Count(r.in), Output: db.Count(r.out), CachedInput: db.Count(r.cached), Thinking: db.Count(r.thinking)},
		Cost:  db.Count(r.cost), Thinking: r.thoughts.String, Finish: llm.Finish(r.finish.String), Error: r.err.String, RetryAt: db.Moment(r.retry),
		Due: r.due.Bool, Private: r.private.Bool, Holds: int(r.holds.Int64), Resumes: int(r.resumes.Int64), Tools: r.tools.Bool, Memory: r.memory.Bool, Run: r.run.Int64}
	if t.Run == 0 {
		t.Run = t.ID
	}
	json.Unmarshal([]byte(r.citations.String), &t.Citations)   //nolint:errcheck // written by updateTurn; without them the answer still reads
	json.Unmarshal([]byte(r.remembered.String), &t.Remembered) //nolint:errcheck // the same
	return t
}

// withTurn scans messageColumns followed by turnColumns.
func withTurn(row *sql.Rows) (Message, error) {
	var r turnRow
	m, chat, err := scanMessage(row, r.into()...)
	m.Turn = r.turn(chat)
	return m, err
}

// scanTurn scans turnColumns followed by the turn's conversation.
func scanTurn(row *sql.Rows) (Turn, error) {
	var r turnRow
	var chat int64
	if err := row.Scan(append(r.into(), &chat)...); err != nil {
		return Turn{}, err
	}
	return *r.turn(chat), nil
}
