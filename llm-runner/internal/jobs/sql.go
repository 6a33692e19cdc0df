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

// transaction is a write under way, which the exported methods own.
type transaction = sql.Tx

// A step is a finished step.
type step struct {
	N         int
	Output    string
	Citations []llm.Citation
	Private   bool // see llm.Event
	Finish    llm.Finish
	Route     llm.Route
	Usage     llm.Usage
	Cost      llm.Count
	Response  json.RawMessage // where the job is a Request
}

// insert writes a new job and the beginning of its timeline.
func insert(ctx context.Context, tx *transaction, j *Job, now time.Time) error {
	j.Created, j.ord = now, order(now, j.Priority)
	err := tx.QueryRowContext(ctx, `INSERT INTO jobs (sent_key, type, title, prompt, asked, requires, project, priority, ord, deadline_ms, max_attempts,
		notify, request, output, dropped, file, file_hash, tools, plan, trace, trace_from, bytes, steps, state, since, created_at) VALUES (?,?,?,?,?,?,?,?,?,?,?,?,?,?,?,?,?,?,?,?,?,?,?,'',?,?) RETURNING id`,
		db.OrNull(j.Key), j.Type, j.Title, j.Prompt, j.Asked, j.Requires, j.Project, j.Priority, j.ord, j.Deadline.Milliseconds(), j.MaxAttempts, j.Notify,
		string(j.Request), j.Output, j.Dropped, j.File, j.hash, strings.Join(j.Tools, " "), j.Plan, j.trace, j.traceFrom,
		j.size(), len(j.steps()), now.UnixMilli(), now.UnixMilli()).Scan(&j.ID)
	if err != nil {
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
	if from.Ended() != to.Ended() && (j.Dropped != "" || j.Output != "") {
		j.due = now.UnixMilli()
	}
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
	_, err := tx.ExecContext(ctx, `UPDATE jobs SET state=?, since=?, waited_ms=?, run=?, attempts=?, holds=?, reason=?, waits_for=?, waits_model=?, dimension=?, resume_at=?,
		started_at=?, ended_at=?, answer=?, citations=?, finish=?, provider=?, model=?, rule=?, why=?, input_tokens=?, output_tokens=?,
		cost_micro_usd=?, worker=?, vault_due=?, trace=?, trace_from=?, begun=? WHERE id=?`,
		j.State, j.Since.UnixMilli(), j.Waited.Milliseconds(), j.Run, j.Attempts, j.Holds, j.Reason, j.WaitsFor, j.WaitsModel, j.Dimension,
		db.Millis(j.ResumeAt),
		db.Millis(j.Started), db.Millis(j.Ended), j.Answer, quoted(j.Citations), j.Finish, j.Route.Provider, j.Route.Model, j.Route.Rule, j.Route.Why,
		j.Usage.Input.Ptr(), j.Usage.Output.Ptr(), j.Cost.Ptr(), j.worker, j.due, j.trace, j.traceFrom, j.begun, j.ID)
	if err != nil {
		return fmt.Errorf("write job %d: %w", j.ID, err)
	}
	return nil
}

// insertStep writes a finished step, where it is not written yet: a connection may break before we hear that it is.
func insertStep(ctx context.Context, tx *transaction, job int64, x step) error {
	_, err := tx.ExecContext(ctx, `INSERT INTO job_steps (job, step, output, citations, finish, provider, model, rule, why, input_tokens,
		output_tokens, cost_micro_usd, response, ended_at, private) VALUES (?,?,?,?,?,?,?,?,?,?,?,?,?,?,?) ON CONFLICT (job, step) DO NOTHING`, job, x.N, x.Output, quoted(x.Citations), x.Finish,
		x.Route.Provider, x.Route.Model, x.Route.Rule, x.Route.Why, x.Usage.Input.Ptr(), x.Usage.Output.Ptr(), x.Cost.Ptr(), string(x.Response), time.Now().UnixMilli(), x.Private)
	if err != nil {
		return fmt.Errorf("write step %d of job %d: %w", x.N, job, err)
	}
	return nil
}

// add makes the job's answer of its finished steps: the last one's words, the sums of all.
func (j *Job) add(ctx context.Context, q db.Querier) error {
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

func stepsOf(ctx context.Context, q db.Querier, job int64) ([]step, error) {
	return db.All(ctx, q, "read jobs", func(row *sql.Rows) (x step, err error) {
		var citations, response string
		var in, out, cost sql.NullInt64
		err = row.Scan(&x.N, &x.Output, &citations, &x.Finish, &x.Route.Provider, &x.Route.Model, &x.Route.Rule, &x.Route.Why, &in, &out, &cost, &response, &x.Private)
		x.Response = json.RawMessage(response)
		x.Usage, x.Cost = llm.Usage{Input: db.Count(in), Output: db.Count(out)}, db.Count(cost)
		json.Unmarshal([]byte(citations), &x.Citations) //nolint:errcheck // written by insertStep; without them the answer still reads
		return x, err
	}, `SELECT step, output, citations, finish, provider, model, rule, why, input_tokens, output_tokens, cost_micro_usd, response, private FROM job_steps
		WHERE job = ? ORDER BY step`, job)
}

// columns of a job; a list leaves the long ones out.
func columns(whole bool) string {
	long := "j.prompt, j.answer, j.citations, j.request"
	if !whole {
		long = "'', '', '[]', ''"
	}
	return `j.id, coalesce(j.sent_key, ''), j.type, j.title, j.asked, j.requires, j.project, j.priority, j.ord, j.deadline_ms, j.max_attempts, j.notify, j.state,
	j.since, j.waited_ms, j.run, j.attempts, j.holds, j.reason, j.waits_for, j.waits_model, j.dimension, j.resume_at, j.created_at, j.started_at, j.ended_at, j.finish,
	j.provider, j.model, j.rule, j.why, j.input_tokens, j.output_tokens, j.cost_micro_usd, j.worker,
	j.output, j.dropped, j.file, j.file_next, j.note, j.vault_due, j.tools, j.plan, j.trace, j.trace_from, j.begun, ` + long
}

func scan(row *sql.Rows) (j Job, err error) {
	var deadline, since, waited, created int64
	var resume, started, ended, in, out, cost sql.NullInt64
	var citations, request, tools string
	err = row.Scan(&j.ID, &j.Key, &j.Type, &j.Title, &j.Asked, &j.Requires, &j.Project, &j.Priority, &j.ord, &deadline, &j.MaxAttempts, &j.Notify, &j.State,
		&since, &waited, &j.Run, &j.Attempts, &j.Holds, &j.Reason, &j.WaitsFor, &j.WaitsModel, &j.Dimension, &resume, &created, &started, &ended, &j.Finish,
		&j.Route.Provider, &j.Route.Model, &j.Route.Rule, &j.Route.Why, &in, &out, &cost, &j.worker,
		&j.Output, &j.Dropped, &j.File, &j.next, &j.Note, &j.due, &tools, &j.Plan, &j.trace, &j.traceFrom, &j.begun, &j.Prompt, &j.Answer, &citations, &request)
	j.Request, j.Tools = json.RawMessage(request), strings.Fields(tools)
	j.Deadline, j.Waited = time.Duration(deadline)*time.Millisecond, time.Duration(waited)*time.Millisecond
	j.Since, j.Created = time.UnixMilli(since), time.UnixMilli(created)
	j.ResumeAt, j.Started, j.Ended = db.Moment(resume), db.Moment(started), db.Moment(ended)
	j.Usage, j.Cost = llm.Usage{Input: db.Count(in), Output: db.Count(out)}, db.Count(cost)
	json.Unmarshal([]byte(citations), &j.Citations) //nolint:errcheck // written by save; without them the answer still reads
	return j, err
}

func one(ctx context.Context, q db.Querier, id int64) (Job, error) {
	j, err := db.One(ctx, q, "", scan, `SELECT `+columns(true)+` FROM jobs j WHERE j.id = ?`, id)
	return j, known(err)
}

// locked is one, for a change: nobody else changes the job before the transaction ends.
func locked(ctx context.Context, d *db.DB, tx *transaction, id int64) (Job, error) {
	j, err := db.One(ctx, tx, "", scan, `SELECT `+columns(true)+` FROM jobs j WHERE j.id = ?`+d.Lock(), id)
	return j, known(err)
}

func byKey(ctx context.Context, q db.Querier, key string) (Job, error) {
	j, err := db.One(ctx, q, "", scan, `SELECT `+columns(true)+` FROM jobs j WHERE j.sent_key = ?`, key)
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

func list(ctx context.Context, q db.Querier, f Filter) ([]Job, error) {
	where, args, order := []string{"1 = 1"}, []any{}, "j.id DESC"
	if len(f.States) > 0 {
		waiting := true
		marks := make([]string, len(f.States))
		for i, x := range f.States {
			marks[i], args, waiting = "?", append(args, x), waiting && x.Waiting()
		}
		where = append(where, "j.state IN ("+strings.Join(marks, ",")+")")
		if waiting {
			order = "coalesce(j.resume_at, 0), j.ord, j.id"
		}
	}
	if f.WaitsFor != "" {
		where, args = append(where, "j.waits_for = ?"), append(args, f.WaitsFor)
	}
	if f.Delayed {
		where = append(where, "j.resume_at IS NOT NULL")
	}
	if f.worker != "" {
		where, args = append(where, "j.worker = ?"), append(args, f.worker)
	}
	if !f.Since.IsZero() {
		where, args, order = append(where, "j.since >= ?"), append(args, f.Since.UnixMilli()), "j.since DESC, j.id DESC"
	}
	if f.Limit == 0 {
		f.Limit = 100
	}
	return db.All(ctx, q, "read jobs", scan, `SELECT `+columns(false)+` FROM jobs j WHERE `+strings.Join(where, " AND ")+` ORDER BY `+order+` LIMIT ?`,
		append(args, f.Limit)...)
}

func counts(ctx context.Context, q db.Querier) (map[State]int, error) {
	return db.Map(ctx, q, "read jobs", func(row *sql.Rows) (state State, n int, err error) {
		err = row.Scan(&state, &n)
		return state, n, err
	}, `SELECT state, count(*) FROM jobs GROUP BY state`)
}

// depths is the jobs that have not ended, by state and by what held ones wait for.
func depths(ctx context.Context, q db.Querier) ([]Depth, error) {
	return db.All(ctx, q, "read jobs", func(row *sql.Rows) (d Depth, err error) {
		var oldest int64
		err = row.Scan(&d.State, &d.WaitsFor, &d.Jobs, &oldest)
		d.Oldest = time.UnixMilli(oldest)
		return d, err
	}, `SELECT j.state, CASE WHEN j.state = 'held' THEN j.waits_for ELSE '' END, count(*), min(j.since) FROM jobs j
		WHERE j.state IN ('queued', 'running', 'held') GROUP BY 1, 2`)
}

// inOrder is the jobs that are queued or running, first come first, and how many of their steps have no answer yet.
const inOrder = `SELECT j.id, j.state, j.since, j.type, j.asked, j.requires, j.project, j.bytes,
	j.steps - CASE WHEN j.type = 'chain' THEN (SELECT count(*) FROM job_steps s WHERE s.job = j.id) ELSE 0 END
	FROM jobs j WHERE j.state IN ('queued', 'running') ORDER BY j.ord, j.id`

func line(ctx context.Context, q db.Querier) ([]inLine, error) {
	return db.All(ctx, q, "read jobs", func(row *sql.Rows) (x inLine, err error) {
		var since int64
		err = row.Scan(&x.id, &x.state, &since, &x.request.kind, &x.request.asked, &x.request.requires, &x.request.project, &x.bytes, &x.steps)
		x.since, x.steps = time.UnixMilli(since), max(x.steps, 1)
		return x, err
	}, inOrder)
}

// alike is the jobs that are held for the same limit and ask for the same as j.
const (
	alike    = `FROM jobs j WHERE j.state = 'held' AND j.dimension <> '' ` + earlier
	earlier  = `AND j.waits_for = ? AND j.asked = ? AND j.requires = ? AND j.project = ? AND (j.ord, j.id) < (?, ?)`
	onItsWay = `FROM jobs j WHERE j.state = 'queued' AND j.dimension <> '' ` + earlier
)

// ahead is how many held jobs have their turn before j.
func ahead(ctx context.Context, q db.Querier, j *Job) (n int, err error) {
	err = q.QueryRowContext(ctx, `SELECT count(*) `+alike, j.WaitsFor, j.Asked, j.Requires, j.Project, j.ord, j.ID).Scan(&n)
	return n, err
}

// aheadFor is how many jobs are held for the same machine and come before j in line.
func aheadFor(ctx context.Context, q db.Querier, j *Job) (n int, err error) {
	err = q.QueryRowContext(ctx, `SELECT count(*) FROM jobs j WHERE j.state = 'held' AND j.dimension = '' AND j.waits_for = ? AND (j.ord, j.id) < (?, ?)`,
		j.WaitsFor, j.ord, j.ID).Scan(&n)
	return n, err
}

// limitsOf is the providers for whose limits jobs are held.
func limitsOf(ctx context.Context, q db.Querier) ([]string, error) {
	return db.All(ctx, q, "read jobs", func(row *sql.Rows) (p string, err error) { return p, row.Scan(&p) },
		`SELECT DISTINCT j.waits_for FROM jobs j WHERE j.state = 'held' AND j.dimension <> ''`)
}

// overdue is the jobs that waited longer than they may.
func overdue(ctx context.Context, q db.Querier, now time.Time) ([]int64, error) {
	return db.All(ctx, q, "read jobs", func(row *sql.Rows) (id int64, err error) { return id, row.Scan(&id) },
		`SELECT j.id FROM jobs j WHERE j.state IN ('queued', 'held') AND j.deadline_ms > 0 AND j.waited_ms + ? - j.since >= j.deadline_ms`, now.UnixMilli())
}

// moveTimes moves the times of the jobs that have not ended, and returns those that are held.
func moveTimes(ctx context.Context, tx *transaction, by time.Duration) ([]int64, error) {
	if _, err := tx.ExecContext(ctx, `UPDATE jobs SET since = since + ?, resume_at = resume_at + ? WHERE state IN ('queued', 'running', 'held')`,
		by.Milliseconds(), by.Milliseconds()); err != nil {
		return nil, fmt.Errorf("move the times of jobs: %w", err)
	}
	return db.All(ctx, tx, "read jobs", func(row *sql.Rows) (id int64, err error) { return id, row.Scan(&id) },
		`SELECT j.id FROM jobs j WHERE j.state = 'held' ORDER BY j.id`)
}

// forLimit is a job that is held for a limit.
type forLimit struct {
	id     int64
	holds  int
	model  string // whose limit it is
	size   int    // bytes it asks with
	resume time.Time
}

// limitLine is the first n jobs that are held for a limit of a provider, in the order of their line.
func limitLine(ctx context.Context, q db.Querier, provider string, n int) ([]forLimit, error) {
	return db.All(ctx, q, "read jobs", func(row *sql.Rows) (w forLimit, err error) {
		var at int64
		err = row.Scan(&w.id, &w.holds, &w.model, &w.size, &at)
		w.resume = time.UnixMilli(at)
		return w, err
	}, `SELECT j.id, j.holds, j.waits_model, j.bytes, coalesce(j.resume_at, 0)
		FROM jobs j WHERE j.state = 'held' AND j.dimension <> '' AND j.waits_for = ? ORDER BY j.ord, j.id LIMIT ?`, provider, n)
}

// comesFirst is a job that had its turn before j too often in vain, and has it now: it was let go, or began a moment ago and may
// not have asked yet; 0 where there is none.
func comesFirst(ctx context.Context, q db.Querier, j *Job, provider string) (id int64, err error) {
	err = q.QueryRowContext(ctx, `SELECT j.id `+onItsWay+` AND j.holds > ? ORDER BY j.ord, j.id LIMIT 1`,
		provider, j.Asked, j.Requires, j.Project, j.ord, j.ID, mostInVain).Scan(&id)
	if !errors.Is(err, sql.ErrNoRows) {
		return id, err
	}
	err = q.QueryRowContext(ctx, `SELECT j.id FROM jobs j WHERE j.state = 'running' AND j.since > ? AND j.holds > ? AND j.asked = ? AND j.requires = ?
		AND j.project = ? AND (j.ord, j.id) < (?, ?) LIMIT 1`, time.Now().Add(-spread).UnixMilli(), mostInVain, j.Asked, j.Requires, j.Project, j.ord, j.ID).Scan(&id)
	if errors.Is(err, sql.ErrNoRows) {
		return 0, nil
	}
	return id, err
}

// foremost is the held job that has its turn before j and all others, for a change; ErrNotFound where there is none. One that
// another process changes at this moment is not waited for: its turn has come already, and two could wait for each other.
func foremost(ctx context.Context, d *db.DB, tx *transaction, j *Job, provider string) (Job, error) {
	first, err := db.One(ctx, tx, "", scan, `SELECT `+columns(true)+` `+alike+` ORDER BY j.ord, j.id LIMIT 1`+d.LockFree(),
		provider, j.Asked, j.Requires, j.Project, j.ord, j.ID)
	return first, known(err)
}

func timeline(ctx context.Context, q db.Querier, id, after int64) ([]Event, error) {
	return db.All(ctx, q, "read jobs", func(row *sql.Rows) (e Event, err error) {
		var at int64
		err = row.Scan(&e.Seq, &at, &e.From, &e.To, &e.Note)
		e.At = time.UnixMilli(at)
		return e, err
	}, `SELECT seq, at, from_state, to_state, note FROM job_events WHERE job = ? AND seq > ? ORDER BY seq`, id, after)
}

func quoted(all []llm.Citation) string {
	b, err := json.Marshal(all)
	if err != nil || all == nil {
		return "[]"
	}
	return string(b)
}

// topic is what processes tell each other about jobs: "" that one changed, or "cancel KEY" to the one that runs it.
const (
	topic      = "job"
	cancelWord = "cancel "
)

func tell(ctx context.Context, d *db.DB, tx *transaction, text string) error {
	return d.Tell(ctx, tx, topic, text)
}

// dueJobs are the jobs of which the vault does not show yet what became of them, the longest due first.
func dueJobs(ctx context.Context, q db.Querier, most int) ([]int64, error) {
	return db.All(ctx, q, "read jobs", db.Column[int64],
		`SELECT id FROM jobs WHERE vault_due > 0 ORDER BY vault_due LIMIT ?`, most)
}

// hasFile says that a job's file lies, or is on its way, there.
func hasFile(ctx context.Context, q db.Querier, file string) (yes bool, err error) {
	if err = q.QueryRowContext(ctx, `SELECT EXISTS (SELECT 1 FROM jobs WHERE file = ? AND file <> '')
		OR EXISTS (SELECT 1 FROM jobs WHERE file_next = ? AND file_next <> '')`, file, file).Scan(&yes); err != nil {
		err = fmt.Errorf("read job of a file: %w", err)
	}
	return yes, err
}

// forget takes a file that somebody took out of the vault from the job that it came from, if nothing more happens to that job by itself.
func forget(ctx context.Context, tx *transaction, file string) error {
	if _, err := tx.ExecContext(ctx, `UPDATE jobs SET file = '' WHERE file = ? AND file <> '' AND file_next = '' AND vault_due = 0
		AND state IN (?, ?, ?)`, file, Done, Failed, Cancelled); err != nil {
		return fmt.Errorf("write job of a file: %w", err)
	}
	return nil
}

// sameDropped returns the job that a file of that name and content became; ErrNotFound where none did.
func sameDropped(ctx context.Context, q db.Querier, name, hash string) (id int64, err error) {
	err = q.QueryRowContext(ctx, `SELECT id FROM jobs WHERE dropped = ? AND dropped <> '' AND file_hash = ? ORDER BY id DESC LIMIT 1`, name, hash).Scan(&id)
	return id, known(err)
}

// place writes where a job's file lies and where it is moved to, and where its answer is.
func place(ctx context.Context, tx *transaction, j *Job) error {
	if _, err := tx.ExecContext(ctx, `UPDATE jobs SET file = ?, file_next = ?, note = ? WHERE id = ?`, j.File, j.next, j.Note, j.ID); err != nil {
		return fmt.Errorf("write files of job %d: %w", j.ID, err)
	}
	return nil
}

// over is a job that ended before a moment, and whose end the vault shows where it is to.
const over = `since < ? AND state IN ('done', 'failed', 'cancelled') AND vault_due = 0 AND file_next = ''`

// endedBefore are the jobs that ended longest ago.
func endedBefore(ctx context.Context, q db.Querier, before time.Time, most int) ([]int64, error) {
	return db.All(ctx, q, "read jobs", db.Column[int64],
		`SELECT id FROM jobs WHERE `+over+` ORDER BY since LIMIT ?`, before.UnixMilli(), most)
}

// remove deletes those of some jobs that are still over, with their steps and timelines, and returns how many.
func remove(ctx context.Context, tx *transaction, ids []int64, before time.Time) (n int, err error) {
	for _, id := range ids {
		r, err := tx.ExecContext(ctx, `DELETE FROM jobs WHERE id = ? AND `+over, id, before.UnixMilli())
		if err != nil {
			return n, fmt.Errorf("delete job %d: %w", id, err)
		}
		gone, err := r.RowsAffected()
		if err != nil {
			return n, fmt.Errorf("delete job %d: %w", id, err)
		}
		n += int(gone)
	}
	return n, nil
}

// settle writes that the vault shows what became of a job, unless it went another way since.
func settle(ctx context.Context, tx *transaction, j *Job) error {
	if _, err := tx.ExecContext(ctx, `UPDATE jobs SET vault_due = 0 WHERE id = ? AND vault_due = ?`, j.ID, j.due); err != nil {
		return fmt.Errorf("write files of job %d: %w", j.ID, err)
	}
	return nil
}
