package jobs

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

// A step is a finished step.
type step struct {
	N         int
	Output    string
	Citations []llm.Citation
	Finish    llm.Finish
	Route     llm.Route
	Usage     llm.Usage
	Cost      llm.Count
}

// insert writes a new job and the beginning of its timeline.
func insert(ctx context.Context, tx *transaction, j *Job, now time.Time) error {
	j.Created = now
	r, err := tx.ExecContext(ctx, `INSERT INTO jobs (sent_key, type, title, prompt, asked, requires, project, priority, deadline_ms, max_attempts,
		state, since, created_at) VALUES (?,?,?,?,?,?,?,?,?,?,'',?,?)`, db.OrNull(j.Key), j.Type, j.Title, j.Prompt, j.Asked, j.Requires, j.Project,
		j.Priority, j.Deadline.Milliseconds(), j.MaxAttempts, now.UnixMilli(), now.UnixMilli())
	if err != nil {
		return fmt.Errorf("write job: %w", err)
	}
	if j.ID, err = r.LastInsertId(); err != nil {
		return fmt.Errorf("write job: %w", err)
	}
	return move(ctx, tx, j, Queued, "submitted")
}

// move brings a job into another state, if that may happen, and writes its timeline. The caller saves j.
func move(ctx context.Context, tx *transaction, j *Job, to State, text string) error {
	if _, ok := transitions[edge{j.State, to}]; !ok {
		return fmt.Errorf("job %d cannot go from %q to %q", j.ID, j.State, to)
	}
	now := time.Now()
	j.Waited = j.waited(now)
	from := j.State
	j.State, j.Since = to, now
	return event(ctx, tx, j.ID, from, to, text, now)
}

// note writes into a job's timeline that something happened within its state.
func note(ctx context.Context, tx *transaction, j *Job, text string) error {
	return event(ctx, tx, j.ID, j.State, j.State, text, time.Now())
}

func event(ctx context.Context, tx *transaction, id int64, from, to State, text string, now time.Time) error {
	_, err := tx.ExecContext(ctx, `INSERT INTO job_events (job, seq, at, from_state, to_state, note)
		SELECT ?, coalesce(max(seq), 0) + 1, ?, ?, ?, ? FROM job_events WHERE job = ?`, id, now.UnixMilli(), from, to, text, id)
	if err != nil {
		return fmt.Errorf("write timeline of job %d: %w", id, err)
	}
	return nil
}

// save writes what changes in the life of a job.
func save(ctx context.Context, tx *transaction, j *Job) error {
	_, err := tx.ExecContext(ctx, `UPDATE jobs SET state=?, since=?, waited_ms=?, run=?, attempts=?, holds=?, reason=?, waits_for=?, resume_at=?,
		started_at=?, ended_at=?, answer=?, citations=?, finish=?, provider=?, model=?, rule=?, why=?, input_tokens=?, output_tokens=?,
		cost_micro_usd=? WHERE id=?`,
		j.State, j.Since.UnixMilli(), j.Waited.Milliseconds(), j.Run, j.Attempts, j.Holds, j.Reason, j.WaitsFor, db.Millis(j.ResumeAt),
		db.Millis(j.Started), db.Millis(j.Ended), j.Answer, quoted(j.Citations), j.Finish, j.Route.Provider, j.Route.Model, j.Route.Rule, j.Route.Why,
		j.Usage.Input.Ptr(), j.Usage.Output.Ptr(), j.Cost.Ptr(), j.ID)
	if err != nil {
		return fmt.Errorf("write job %d: %w", j.ID, err)
	}
	return nil
}

func insertStep(ctx context.Context, tx *transaction, job int64, x step) error {
	_, err := tx.ExecContext(ctx, `INSERT INTO job_steps (job, step, output, citations, finish, provider, model, rule, why, input_tokens,
		output_tokens, cost_micro_usd, ended_at) VALUES (?,?,?,?,?,?,?,?,?,?,?,?,?)`, job, x.N, x.Output, quoted(x.Citations), x.Finish,
		x.Route.Provider, x.Route.Model, x.Route.Rule, x.Route.Why, x.Usage.Input.Ptr(), x.Usage.Output.Ptr(), x.Cost.Ptr(), time.Now().UnixMilli())
	if err != nil {
		return fmt.Errorf("write step %d of job %d: %w", x.N, job, err)
	}
	return nil
}

// add makes the job's answer of its finished steps: the last one's words, the sums of all.
func (j *Job) add(ctx context.Context, q querier) error {
	all, err := stepsOf(ctx, q, j.ID)
	if err != nil {
		return err
	}
	j.Citations = nil
	for i, x := range all {
		j.Answer, j.Finish, j.Route = x.Output, x.Finish, x.Route
		j.Citations = append(j.Citations, x.Citations...)
		if i == 0 {
			j.Usage, j.Cost = x.Usage, x.Cost
			continue
		}
		j.Usage.Input, j.Usage.Output, j.Cost = sum(j.Usage.Input, x.Usage.Input), sum(j.Usage.Output, x.Usage.Output), sum(j.Cost, x.Cost)
	}
	return nil
}

// sum is unknown where one of the two is.
func sum(a, b llm.Count) llm.Count {
	n, ok := a.Get()
	m, also := b.Get()
	if !ok || !also {
		return llm.Count{}
	}
	return llm.Known(n + m)
}

func stepsOf(ctx context.Context, q querier, job int64) ([]step, error) {
	return collect(q, func(row scanner) (x step, err error) {
		var citations string
		var in, out, cost sql.NullInt64
		err = row.Scan(&x.N, &x.Output, &citations, &x.Finish, &x.Route.Provider, &x.Route.Model, &x.Route.Rule, &x.Route.Why, &in, &out, &cost)
		x.Usage, x.Cost = llm.Usage{Input: db.Count(in), Output: db.Count(out)}, db.Count(cost)
		json.Unmarshal([]byte(citations), &x.Citations) //nolint:errcheck // written by insertStep; without them the answer still reads
		return x, err
	}, ctx, `SELECT step, output, citations, finish, provider, model, rule, why, input_tokens, output_tokens, cost_micro_usd FROM job_steps
		WHERE job = ? ORDER BY step`, job)
}

type scanner interface{ Scan(...any) error }

// columns of a job; a list leaves the long ones out.
func columns(whole bool) string {
	long := "j.prompt, j.answer, j.citations"
	if !whole {
		long = "'', '', '[]'"
	}
	return `j.id, coalesce(j.sent_key, ''), j.type, j.title, j.asked, j.requires, j.project, j.priority, j.deadline_ms, j.max_attempts, j.state,
	j.since, j.waited_ms, j.run, j.attempts, j.holds, j.reason, j.waits_for, j.resume_at, j.created_at, j.started_at, j.ended_at, j.finish,
	j.provider, j.model, j.rule, j.why, j.input_tokens, j.output_tokens, j.cost_micro_usd, ` + long
}

func scan(row scanner) (j Job, err error) {
	var deadline, since, waited, created int64
	var resume, started, ended, in, out, cost sql.NullInt64
	var citations string
	err = row.Scan(&j.ID, &j.Key, &j.Type, &j.Title, &j.Asked, &j.Requires, &j.Project, &j.Priority, &deadline, &j.MaxAttempts, &j.State,
		&since, &waited, &j.Run, &j.Attempts, &j.Holds, &j.Reason, &j.WaitsFor, &resume, &created, &started, &ended, &j.Finish,
		&j.Route.Provider, &j.Route.Model, &j.Route.Rule, &j.Route.Why, &in, &out, &cost, &j.Prompt, &j.Answer, &citations)
	j.Deadline, j.Waited = time.Duration(deadline)*time.Millisecond, time.Duration(waited)*time.Millisecond
	j.Since, j.Created = time.UnixMilli(since), time.UnixMilli(created)
	j.ResumeAt, j.Started, j.Ended = db.Moment(resume), db.Moment(started), db.Moment(ended)
	j.Usage, j.Cost = llm.Usage{Input: db.Count(in), Output: db.Count(out)}, db.Count(cost)
	json.Unmarshal([]byte(citations), &j.Citations) //nolint:errcheck // written by save; without them the answer still reads
	return j, err
}

func one(ctx context.Context, q querier, id int64) (Job, error) {
	j, err := scan(q.QueryRowContext(ctx, `SELECT `+columns(true)+` FROM jobs j WHERE j.id = ?`, id))
	return j, known(err)
}

func byKey(ctx context.Context, q querier, key string) (Job, error) {
	j, err := scan(q.QueryRowContext(ctx, `SELECT `+columns(true)+` FROM jobs j WHERE j.sent_key = ?`, key))
	return j, known(err)
}

func known(err error) error {
	if errors.Is(err, sql.ErrNoRows) {
		return ErrNotFound
	}
	if err != nil {
		return fmt.Errorf("read job: %w", err)
	}
	return nil
}

func list(ctx context.Context, q querier, f Filter) ([]Job, error) {
	where, args, order := []string{"1"}, []any{}, "j.id DESC"
	if len(f.States) > 0 {
		waiting := true
		marks := make([]string, len(f.States))
		for i, x := range f.States {
			marks[i], args, waiting = "?", append(args, x), waiting && x.Waiting()
		}
		where = append(where, "j.state IN ("+strings.Join(marks, ",")+")")
		if waiting {
			order = "coalesce(j.resume_at, 0), j.priority, j.id"
		}
	}
	if f.WaitsFor != "" {
		where, args = append(where, "j.waits_for = ?"), append(args, f.WaitsFor)
	}
	if f.Delayed {
		where = append(where, "j.resume_at IS NOT NULL")
	}
	if f.Limit == 0 {
		f.Limit = 100
	}
	return collect(q, scan, ctx, `SELECT `+columns(false)+` FROM jobs j WHERE `+strings.Join(where, " AND ")+` ORDER BY `+order+` LIMIT ?`,
		append(args, f.Limit)...)
}

func counts(ctx context.Context, q querier) (map[State]int, error) {
	type row struct {
		state State
		n     int
	}
	rows, err := collect(q, func(x scanner) (r row, err error) { return r, x.Scan(&r.state, &r.n) }, ctx,
		`SELECT state, count(*) FROM jobs GROUP BY state`)
	all := map[State]int{}
	for _, r := range rows {
		all[r.state] = r.n
	}
	return all, err
}

// position is a queued job's place in the line, from 1.
func position(ctx context.Context, q querier, j Job) (n int, err error) {
	err = q.QueryRowContext(ctx, `SELECT count(*) FROM jobs WHERE state = 'queued' AND (priority, id) <= (?, ?)`, j.Priority, j.ID).Scan(&n)
	return n, err
}

func timeline(ctx context.Context, q querier, id, after int64) ([]Event, error) {
	return collect(q, func(row scanner) (e Event, err error) {
		var at int64
		err = row.Scan(&e.Seq, &at, &e.From, &e.To, &e.Note)
		e.At = time.UnixMilli(at)
		return e, err
	}, ctx, `SELECT seq, at, from_state, to_state, note FROM job_events WHERE job = ? AND seq > ? ORDER BY seq`, id, after)
}

// collect reads all rows of a query.
func collect[T any](q querier, scan func(scanner) (T, error), ctx context.Context, query string, args ...any) ([]T, error) {
	rows, err := q.QueryContext(ctx, query, args...)
	if err != nil {
		return nil, fmt.Errorf("read jobs: %w", err)
	}
	defer rows.Close()
	var all []T
	for rows.Next() {
		x, err := scan(rows)
		if err != nil {
			return nil, fmt.Errorf("read jobs: %w", err)
		}
		all = append(all, x)
	}
	return all, rows.Err()
}

func quoted(all []llm.Citation) string {
	b, err := json.Marshal(all)
	if err != nil || all == nil {
		return "[]"
	}
	return string(b)
}
