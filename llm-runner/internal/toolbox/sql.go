package toolbox

import (
	"context"
	"database/sql"
	"encoding/json"
	"errors"
	"fmt"
	"time"

	"home.arpa/lab/llm-runner/internal/db"
	"home.arpa/lab/llm-runner/internal/llm"
)

// transaction is a write under way.
type transaction = sql.Tx

// topic is what processes tell each other of decisions under.
const topic = "tool"

// scoped is a tool in a conversation; chat 0 is everywhere.
type scoped struct {
	tool string
	chat int64
}

// policies are the policies that somebody chose, everywhere and in a conversation.
func policies(ctx context.Context, q db.Querier, chat int64) (map[scoped]Policy, error) {
	return db.Map(ctx, q, "read policies of tools", func(row *sql.Rows) (s scoped, p Policy, err error) {
		err = row.Scan(&s.tool, &s.chat, &p)
		return s, p, err
	}, `SELECT tool, chat, policy FROM tool_policies WHERE chat IN (0, ?)`, chat)
}

func writePolicy(ctx context.Context, tx *transaction, tool string, chat int64, p Policy) error {
	_, err := tx.ExecContext(ctx, `DELETE FROM tool_policies WHERE tool = ? AND chat = ?`, tool, chat)
	if err == nil && p != "" {
		_, err = tx.ExecContext(ctx, `INSERT INTO tool_policies (tool, chat, policy, changed_at) VALUES (?,?,?,?)`, tool, chat, p, time.Now().UnixMilli())
	}
	if err != nil {
		return fmt.Errorf("write policy of %s: %w", tool, err)
	}
	return nil
}

// adopt marks the calls that a dead process left running, or waiting for a person with nobody but it to run them.
func adopt(ctx context.Context, d *db.DB, worker string) error {
	err := d.Tx(ctx, func(tx *transaction) error {
		now := time.Now().UnixMilli()
		if _, err := tx.ExecContext(ctx, `UPDATE tool_calls SET state = 'unverified', is_error = ?, result = ?, ended_at = ?
			WHERE state = 'running' AND effects AND worker = ?`, true, unverified, now, worker); err != nil {
			return err
		}
		if _, err := tx.ExecContext(ctx, `UPDATE tool_calls SET state = 'cut' WHERE state = 'running' AND worker = ?`, worker); err != nil {
			return err
		}
		// What is of no run was waited for by a caller of that process: nobody would run it.
		_, err := tx.ExecContext(ctx, `UPDATE tool_calls SET state = 'withdrawn', why = 'the program ended while it waited', ended_at = ?
			WHERE state = 'waiting' AND run = '' AND worker = ?`, now, worker)
		return err
	})
	if err != nil {
		return fmt.Errorf("recover calls of tools: %w", err)
	}
	return nil
}

func insertCall(ctx context.Context, tx *transaction, c Call, worker string) (id int64, err error) {
	err = tx.QueryRowContext(ctx, `INSERT INTO tool_calls (run, step, place, source, chat, tool, arguments, preview, seal, effects, policy, why,
		state, worker, result, links, is_error, asked_at, decided_at, ended_at) VALUES (?,?,?,?,?,?,?,?,?,?,?,?,?,?,?,'[]',?,?,?,?) RETURNING id`,
		c.Run, c.Step, c.Place, c.Source, c.Chat, c.Tool, string(c.Arguments), c.Preview, c.Seal, c.Effects, c.Policy, c.Why,
		c.State, worker, c.Result, c.IsError, c.Asked.UnixMilli(), db.Millis(c.Decided), db.Millis(c.Ended)).Scan(&id)
	if err != nil {
		return 0, fmt.Errorf("write call of %s: %w", c.Tool, err)
	}
	return id, nil
}

// claim has this process run a call, if it is still approved.
func claim(ctx context.Context, d *db.DB, tx *transaction, c Call) error {
	now, err := lockedCall(ctx, d, tx, c.ID)
	if err == nil && now.State != Approved {
		err = fmt.Errorf("run call %d: %w", c.ID, ErrDecided)
	}
	if err != nil {
		return err
	}
	return updateCall(ctx, tx, c, d.Worker())
}

func updateCall(ctx context.Context, tx *transaction, c Call, worker string) error {
	links, err := json.Marshal(c.Links)
	if err != nil || c.Links == nil {
		links = []byte("[]")
	}
	_, err = tx.ExecContext(ctx, `UPDATE tool_calls SET state=?, why=?, worker=?, result=?, links=?, is_error=?, asked_at=?, decided_at=?, started_at=?, ended_at=? WHERE id=?`,
		c.State, c.Why, worker, c.Result, string(links), c.IsError, c.Asked.UnixMilli(), db.Millis(c.Decided), db.Millis(c.Started), db.Millis(c.Ended), c.ID)
	if err != nil {
		return fmt.Errorf("write call %d: %w", c.ID, err)
	}
	return nil
}

func withdraw(ctx context.Context, tx *transaction, run string) error {
	if _, err := tx.ExecContext(ctx, `UPDATE tool_calls SET state = 'withdrawn', ended_at = ? WHERE run = ? AND state = 'waiting'`,
		time.Now().UnixMilli(), run); err != nil {
		return fmt.Errorf("withdraw calls of %s: %w", run, err)
	}
	return nil
}

func withdrawOne(ctx context.Context, tx *transaction, id int64) error {
	if _, err := tx.ExecContext(ctx, `UPDATE tool_calls SET state = 'withdrawn', ended_at = ? WHERE id = ? AND state = 'waiting'`,
		time.Now().UnixMilli(), id); err != nil {
		return fmt.Errorf("withdraw call %d: %w", id, err)
	}
	return nil
}

// forget deletes what is older than a time, and has calls wait no longer that have waited since another one.
func forget(ctx context.Context, tx *transaction, old, unheard time.Time) error {
	for _, q := range []struct {
		text string
		at   time.Time
	}{
		{`DELETE FROM tool_calls WHERE asked_at < ? AND state NOT IN ('waiting', 'running')`, old},
		{`DELETE FROM tool_steps WHERE made_at < ?`, old},
		{`UPDATE tool_calls SET state = 'withdrawn', ended_at = asked_at, why = '` + impatient + `' WHERE state = 'waiting' AND asked_at < ?`, unheard},
	} {
		if _, err := tx.ExecContext(ctx, q.text, q.at.UnixMilli()); err != nil {
			return fmt.Errorf("forget old calls: %w", err)
		}
	}
	return nil
}

const callColumns = `id, run, step, place, source, chat, tool, arguments, preview, seal, effects, policy, why, state, result, links, is_error,
	asked_at, decided_at, started_at, ended_at`

func scanCall(row *sql.Rows) (c Call, err error) {
	var asked, decided, started, ended sql.NullInt64
	var arguments, links string
	err = row.Scan(&c.ID, &c.Run, &c.Step, &c.Place, &c.Source, &c.Chat, &c.Tool, &arguments, &c.Preview, &c.Seal, &c.Effects, &c.Policy, &c.Why,
		&c.State, &c.Result, &links, &c.IsError, &asked, &decided, &started, &ended)
	if err != nil {
		return c, err
	}
	c.Arguments = json.RawMessage(arguments)
	c.Asked, c.Decided, c.Started, c.Ended = db.Moment(asked), db.Moment(decided), db.Moment(started), db.Moment(ended)
	return c, json.Unmarshal([]byte(links), &c.Links)
}

func oneCall(ctx context.Context, q db.Querier, id int64) (Call, error) {
	return first(ctx, q, `id = ?`, id)
}

// lockedCall is oneCall for a change.
func lockedCall(ctx context.Context, d *db.DB, tx *transaction, id int64) (Call, error) {
	return first(ctx, tx, `id = ?`+d.Lock(), id)
}

func callAt(ctx context.Context, q db.Querier, run string, step, place int) (Call, error) {
	return first(ctx, q, `run = ? AND step = ? AND place = ?`, run, step, place)
}

func first(ctx context.Context, q db.Querier, where string, args ...any) (Call, error) {
	c, err := db.One(ctx, q, "read call of a tool", scanCall, `SELECT `+callColumns+` FROM tool_calls WHERE `+where, args...)
	if errors.Is(err, sql.ErrNoRows) {
		return c, ErrNotFound
	}
	return c, err
}

func calls(ctx context.Context, q db.Querier, query string, args ...any) ([]Call, error) {
	return db.All(ctx, q, "read calls of tools", scanCall, `SELECT `+callColumns+` FROM tool_calls `+query, args...)
}

func waiting(ctx context.Context, q db.Querier) ([]Call, error) {
	return calls(ctx, q, `WHERE state = 'waiting' ORDER BY id`)
}

func ofRun(ctx context.Context, q db.Querier, run string) ([]Call, error) {
	return calls(ctx, q, `WHERE run = ? ORDER BY step, place`, run)
}

func listCalls(ctx context.Context, q db.Querier, tool string, before int64, limit int) ([]Call, error) {
	return calls(ctx, q, `WHERE (? = '' OR tool = ?) AND (? = 0 OR id < ?) ORDER BY id DESC LIMIT ?`, tool, tool, before, before, limit)
}

// A Step is one answer of the model within a run.
type Step struct {
	Message   llm.Message
	Citations []llm.Citation
	Private   bool // it rests on notes which no cloud provider may see
	Usage     llm.Usage
	Route     llm.Route
	Finish    llm.Finish
}

// stored is what of a step stands in the column message.
type stored struct {
	llm.Message
	Citations []llm.Citation `json:"citations,omitempty"`
	Private   bool           `json:"private,omitempty"`
}

// Steps returns the steps of a run, in order.
func (b *Box) Steps(ctx context.Context, run string) ([]Step, error) {
	return db.All(ctx, b.db.Read(), "read steps of "+run, func(row *sql.Rows) (s Step, err error) {
		var kept stored
		var message, usage, route []byte
		err = row.Scan(&message, &usage, &route, &s.Finish)
		if err == nil {
			err = errors.Join(json.Unmarshal(message, &kept), json.Unmarshal(usage, &s.Usage), json.Unmarshal(route, &s.Route))
		}
		s.Message, s.Citations, s.Private = kept.Message, kept.Citations, kept.Private
		return s, err
	}, `SELECT message, usage, route, finish FROM tool_steps WHERE run = ? ORDER BY n`, run)
}

// Keep writes step number n of a run.
func (b *Box) Keep(ctx context.Context, run string, n int, s Step) error {
	message, err1 := json.Marshal(stored{s.Message, s.Citations, s.Private})
	usage, err2 := json.Marshal(s.Usage)
	route, err3 := json.Marshal(s.Route)
	if err := errors.Join(err1, err2, err3); err != nil {
		return fmt.Errorf("write step of %s: %w", run, err)
	}
	return b.db.Tx(ctx, func(tx *transaction) error {
		_, err := tx.ExecContext(ctx, `INSERT INTO tool_steps (run, n, message, usage, route, finish, made_at) VALUES (?,?,?,?,?,?,?)`,
			run, n, string(message), string(usage), string(route), s.Finish, time.Now().UnixMilli())
		if err != nil {
			return fmt.Errorf("write step of %s: %w", run, err)
		}
		return nil
	})
}
