package graph

import (
	"cmp"
	"context"
	"database/sql"
	"encoding/json"
	"errors"
	"fmt"
	"slices"
	"sync"
	"time"

	"home.arpa/lab/llm-runner/internal/db"
	"home.arpa/lab/llm-runner/internal/llm"
	"home.arpa/lab/llm-runner/internal/trace"
)

// A RunRow is one run of a graph.
type RunRow struct {
	ID         int64           `json:"id"`
	Graph      string          `json:"graph"`
	Key        string          `json:"key"`
	Title      string          `json:"title"`
	Status     Status          `json:"status"`
	Chat       int64           `json:"chat,omitempty"` // the conversation that it belongs to, and is deleted with; 0 none
	Input      json.RawMessage `json:"input"`
	Question   string          `json:"question"` // that a paused run asks
	Decision   string          `json:"-"`        // the answer, until its node has ended
	Error      string          `json:"error"`
	Over       string          `json:"over"` // the bound of the budget that was reached; "" none
	ForkedFrom int64           `json:"forked_from,omitempty"`
	ForkedStep int             `json:"forked_step,omitempty"`
	Spent      Spent           `json:"spent"`
	Began      time.Time       `json:"began"`
	Ended      time.Time       `json:"ended,omitzero"`
	Way        string          `json:"way,omitempty"` // Straight or Thorough; "" it is not decided

	fleeting bool // it goes on where it cannot be kept
	lost     bool // and is not any more
}

// A StepRow is one run of a node.
type StepRow struct {
	Run   int64           `json:"run"`
	N     int             `json:"n"` // 0-based
	Node  string          `json:"node"`
	Says  string          `json:"-"`
	State json.RawMessage `json:"state,omitempty"` // after it
	Next  string          `json:"next"`            // "" is the end
	Note  string          `json:"note"`            // what it found, in a few words
	Began time.Time       `json:"began"`
	Ended time.Time       `json:"ended,omitzero"` // zero: it runs, or the process died in it
}

// A CallRow is a question that a step asked a model, and the answer.
type CallRow struct {
	Step     int           `json:"step"`
	Name     string        `json:"name"`
	Asked    string        `json:"asked"`
	Answered string        `json:"answered"`
	Provider string        `json:"provider"`
	Model    string        `json:"model"`
	Input    int64         `json:"input_tokens"`
	Output   int64         `json:"output_tokens"`
	MicroUSD int64         `json:"micro_usd"`
	Took     time.Duration `json:"took_ns"`
	Withheld int           `json:"withheld"` // private parts that the model was not shown

	finish llm.Finish
}

// ErrNotFound says that there is no such run.
var ErrNotFound = errors.New("there is no such run")

// A Store keeps runs. Make one with NewStore.
type Store struct {
	// Cost is what an answer costs; nil: nobody knows.
	Cost func(provider, model string, u llm.Usage) llm.Count
	// Traces tells of each run and its nodes; nil: nobody is told.
	Traces *trace.Tracer
	// Asked is told, in the transaction that writes it down, of a run that waits for a person; nil: nobody is.
	Asked func(ctx context.Context, tx *sql.Tx, r RunRow) error

	db *db.DB
	locks

	mu      sync.Mutex
	changed chan struct{}
	active  map[int64]context.CancelCauseFunc
}

// NewStore returns the store of a database.
func NewStore(d *db.DB) *Store {
	return &Store{db: d, changed: make(chan struct{}), active: map[int64]context.CancelCauseFunc{}}
}

// Changed returns a channel that is closed at the next change of any run in this process.
func (st *Store) Changed() <-chan struct{} {
	st.mu.Lock()
	defer st.mu.Unlock()
	return st.changed
}

func (st *Store) announce() {
	st.mu.Lock()
	close(st.changed)
	st.changed = make(chan struct{})
	st.mu.Unlock()
}

// running has a run be cancelled by cancel until the returned function is called.
func (st *Store) running(id int64, cancel context.CancelCauseFunc) (done func()) {
	st.mu.Lock()
	st.active[id] = cancel
	st.mu.Unlock()
	return func() {
		st.mu.Lock()
		delete(st.active, id)
		st.mu.Unlock()
	}
}

const runColumns = `id, graph, key, chat, title, status, input, question, decision, error, over, forked_from, forked_step, steps, calls, tokens, micro_usd, work_ms, began_at, ended_at, way`

func scanRun(row *sql.Rows) (r RunRow, err error) {
	var input string
	var work, began int64
	var ended sql.NullInt64
	err = row.Scan(&r.ID, &r.Graph, &r.Key, &r.Chat, &r.Title, &r.Status, &input, &r.Question, &r.Decision, &r.Error, &r.Over, &r.ForkedFrom, &r.ForkedStep,
		&r.Spent.Steps, &r.Spent.Calls, &r.Spent.Tokens, &r.Spent.MicroUSD, &work, &began, &ended, &r.Way)
	r.Input, r.Spent.Time, r.Began = json.RawMessage(input), time.Duration(work)*time.Millisecond, time.UnixMilli(began)
	r.Ended = db.Moment(ended)
	return r, err
}

// begin writes a run down, or returns the one that has its key already.
func (st *Store) begin(ctx context.Context, r RunRow) (RunRow, error) {
	err := st.db.Tx(ctx, func(tx *sql.Tx) error {
		if r.Key != "" {
			had, err := db.One(ctx, tx, "", scanRun, `SELECT `+runColumns+` FROM graph_runs WHERE key = ?`, r.Key)
			if err == nil {
				r = had
			}
			if !errors.Is(err, sql.ErrNoRows) {
				return err
			}
		}
		return st.insert(ctx, tx, &r)
	})
	if err != nil {
		return r, fmt.Errorf("begin run of %s: %w", r.Graph, err)
	}
	st.announce()
	return r, nil
}

func (st *Store) insert(ctx context.Context, tx *sql.Tx, r *RunRow) error {
	worker := ""
	if r.Key == "" && r.ForkedFrom == 0 {
		worker = st.db.Worker()
	}
	return tx.QueryRowContext(ctx, `INSERT INTO graph_runs (graph, key, chat, worker, title, status, input, forked_from, forked_step, steps, calls, tokens, micro_usd, work_ms, began_at, way)
		VALUES (?,?,?,?,?,?,?,?,?,?,?,?,?,?,?,?) RETURNING id`, r.Graph, r.Key, r.Chat, worker, r.Title, r.Status, string(r.Input), r.ForkedFrom, r.ForkedStep,
		r.Spent.Steps, r.Spent.Calls, r.Spent.Tokens, r.Spent.MicroUSD, r.Spent.Time.Milliseconds(), r.Began.UnixMilli(), r.Way).Scan(&r.ID)
}

// save writes a run over what was kept of it; errCancelled where another process cancelled it meanwhile.
func save(ctx context.Context, tx *sql.Tx, r *RunRow) error {
	res, err := tx.ExecContext(ctx, `UPDATE graph_runs SET status=?, question=?, decision=?, error=?, over=?, steps=?, calls=?, tokens=?, micro_usd=?, work_ms=?, ended_at=?, way=?
		WHERE id=? AND (status <> 'cancelled' OR ? = 'cancelled')`,
		r.Status, r.Question, r.Decision, r.Error, r.Over, r.Spent.Steps, r.Spent.Calls, r.Spent.Tokens, r.Spent.MicroUSD, r.Spent.Time.Milliseconds(), db.Millis(r.Ended), r.Way, r.ID, r.Status)
	if err != nil {
		return err
	}
	if n, err := res.RowsAffected(); err == nil && n == 0 {
		return errCancelled
	}
	return nil
}

// end writes what became of a run.
func (st *Store) end(ctx context.Context, r *RunRow) error {
	if err := st.db.Tx(ctx, func(tx *sql.Tx) error { return save(ctx, tx, r) }); err != nil {
		return fmt.Errorf("write run %d: %w", r.ID, err)
	}
	st.announce()
	return nil
}

// pause writes down that a run waits for a person, and has that told.
func (st *Store) pause(ctx context.Context, r *RunRow) error {
	err := st.db.Tx(ctx, func(tx *sql.Tx) error {
		if err := save(ctx, tx, r); err != nil || st.Asked == nil {
			return err
		}
		return st.Asked(ctx, tx, *r)
	})
	if err != nil {
		return fmt.Errorf("pause run %d: %w", r.ID, err)
	}
	st.announce()
	return nil
}

// Waits returns the runs that wait for a person, the oldest first, without their input.
func (st *Store) Waits(ctx context.Context) ([]RunRow, error) {
	return st.list(ctx, `SELECT `+runColumns+` FROM graph_runs WHERE status = 'paused' ORDER BY id LIMIT 100`)
}

// Open returns the runs that have not ended and that nobody works on in this process, the oldest first, without their input. Those of their own
// that another process works on are not among them, nor those that began a moment ago and are not forks: who began them is about to go on.
func (st *Store) Open(ctx context.Context) ([]RunRow, error) {
	all, err := st.list(ctx, `SELECT `+runColumns+` FROM graph_runs WHERE status IN ('paused', 'running') AND worker = '' AND (status = 'paused' OR key <> '' OR forked_from > 0 OR began_at < ?)
		ORDER BY id`, time.Now().Add(-time.Minute).UnixMilli())
	st.mu.Lock()
	defer st.mu.Unlock()
	return slices.DeleteFunc(all, func(r RunRow) bool { return st.active[r.ID] != nil }), err
}

// Withdraw ends the run of a key that waits, or that nobody works on, since its work is not wanted any more. Who asks for it again has it go on.
func (st *Store) Withdraw(ctx context.Context, key string) error {
	r, err := st.Keyed(ctx, key)
	if errors.Is(err, ErrNotFound) {
		return nil
	}
	if err != nil {
		return err
	}
	return st.Leave(ctx, r, "nobody wants it any more: what it is part of has ended")
}

// Leave ends a run for a reason that waits, or that nobody works on in this process.
func (st *Store) Leave(ctx context.Context, r RunRow, why string) error {
	st.mu.Lock()
	works := st.active[r.ID] != nil
	st.mu.Unlock()
	if r.Status != Paused && (r.Status != Running || works) {
		return nil
	}
	r.Status, r.Error, r.Ended = Failed, why, time.Now()
	return st.end(ctx, &r)
}

// errElsewhere says that another process works on a run.
var errElsewhere = errors.New("another process works on this run")

// claim has this process alone work on a run of its own, of the processes that share the database, until the returned function is called.
func (st *Store) claim(ctx context.Context, id int64) (done func(), err error) {
	if !st.db.Shared() {
		return func() {}, nil
	}
	n := int64(0)
	if err = st.db.Tx(ctx, func(tx *sql.Tx) error {
		res, err := tx.ExecContext(ctx, `UPDATE graph_runs SET worker = ? WHERE id = ? AND worker IN ('', ?)`, st.db.Worker(), id, st.db.Worker())
		if err == nil {
			n, err = res.RowsAffected()
		}
		return err
	}); err != nil {
		return nil, fmt.Errorf("take run %d: %w", id, err)
	}
	if n == 0 {
		return nil, errElsewhere
	}
	return func() {
		ctx, cancel := context.WithTimeout(context.WithoutCancel(ctx), 10*time.Second)
		defer cancel()
		_ = st.release(ctx, `id = ? AND worker = ?`, id, st.db.Worker()) // the next process takes over what this one leaves
	}, nil
}

// Adopt has others go on with the runs that a dead process worked on.
func (st *Store) Adopt(ctx context.Context, worker string) error {
	if worker == "" {
		return nil
	}
	return st.release(ctx, `worker = ?`, worker)
}

func (st *Store) release(ctx context.Context, where string, args ...any) error {
	err := st.db.Tx(ctx, func(tx *sql.Tx) error {
		_, err := tx.ExecContext(ctx, `UPDATE graph_runs SET worker = '' WHERE `+where, args...)
		return err
	})
	if err != nil {
		return fmt.Errorf("leave runs to others: %w", err)
	}
	return nil
}

// PlanFirst says whether the plan of research is shown first in a conversation; known is false where that was never said.
func (st *Store) PlanFirst(ctx context.Context, chat int64) (first, known bool, err error) {
	err = st.db.Read().QueryRowContext(ctx, `SELECT first FROM graph_plans WHERE chat = ?`, chat).Scan(&first)
	if errors.Is(err, sql.ErrNoRows) {
		return false, false, nil
	}
	if err != nil {
		return false, false, fmt.Errorf("read how conversation %d wants plans: %w", chat, err)
	}
	return first, true, nil
}

// SetPlanFirst has the plan of research shown first in a conversation, or not.
func (st *Store) SetPlanFirst(ctx context.Context, chat int64, first bool) error {
	n := 0
	if first {
		n = 1
	}
	err := st.db.Tx(ctx, func(tx *sql.Tx) error {
		_, err := tx.ExecContext(ctx, `INSERT INTO graph_plans (chat, first) VALUES (?,?) ON CONFLICT (chat) DO UPDATE SET first = excluded.first`, chat, n)
		return err
	})
	if err != nil {
		return fmt.Errorf("write how conversation %d wants plans: %w", chat, err)
	}
	return nil
}

// beginStep writes a step down before it does anything; one that the process died in begins anew.
func (st *Store) beginStep(ctx context.Context, s *StepRow) error {
	err := st.db.Tx(ctx, func(tx *sql.Tx) error {
		_, err := tx.ExecContext(ctx, `INSERT INTO graph_steps (run, n, node, state, next, note, began_at) VALUES (?,?,?,'','','',?)
			ON CONFLICT (run, n) DO UPDATE SET node = excluded.node, began_at = excluded.began_at`, s.Run, s.N, s.Node, s.Began.UnixMilli())
		return err
	})
	if err != nil {
		return fmt.Errorf("begin step %d of run %d: %w", s.N, s.Run, err)
	}
	st.announce()
	return nil
}

// endStep writes in one transaction what a step did and what the run has spent.
func (st *Store) endStep(ctx context.Context, r *RunRow, s *StepRow) error {
	err := st.db.Tx(ctx, func(tx *sql.Tx) error {
		if _, err := tx.ExecContext(ctx, `UPDATE graph_steps SET state=?, next=?, note=?, ended_at=? WHERE run=? AND n=?`,
			string(s.State), s.Next, s.Note, s.Ended.UnixMilli(), s.Run, s.N); err != nil {
			return err
		}
		return save(ctx, tx, r)
	})
	if err != nil {
		return fmt.Errorf("end step %d of run %d: %w", s.N, s.Run, err)
	}
	st.announce()
	return nil
}

// call returns the answer that a step got under a name, if it has one.
func (st *Store) call(ctx context.Context, run int64, step int, name string) (a llm.Answer, ok bool, err error) {
	var text, provider, model, finish string
	var in, out int64
	var withheld int
	err = st.db.Read().QueryRowContext(ctx, `SELECT answered, provider, model, input_tokens, output_tokens, withheld, finish FROM graph_calls WHERE run = ? AND step = ? AND name = ?`,
		run, step, name).Scan(&text, &provider, &model, &in, &out, &withheld, &finish)
	if errors.Is(err, sql.ErrNoRows) {
		return a, false, nil
	}
	if err != nil {
		return a, false, fmt.Errorf("read answer %s of run %d: %w", name, run, err)
	}
	a.Message, a.Finish = llm.Says(llm.Assistant, text), cmp.Or(llm.Finish(finish), llm.FinishStop)
	if provider != "" || withheld > 0 {
		a.Route = &llm.Route{Provider: provider, Model: model, Withheld: withheld}
	}
	a.Usage = llm.Usage{Input: llm.Known(in), Output: llm.Known(out)}
	return a, true, nil
}

// keep writes an answer down, and what the run has spent with it.
func (st *Store) keep(ctx context.Context, run int64, step int, c CallRow, s Spent) error {
	err := st.db.Tx(ctx, func(tx *sql.Tx) error {
		if _, err := tx.ExecContext(ctx, `INSERT INTO graph_calls (run, step, name, asked, answered, provider, model, input_tokens, output_tokens, micro_usd, took_ms, withheld, finish)
			VALUES (?,?,?,?,?,?,?,?,?,?,?,?,?) ON CONFLICT (run, step, name) DO NOTHING`, run, step, c.Name, c.Asked, c.Answered, c.Provider, c.Model, c.Input, c.Output,
			c.MicroUSD, c.Took.Milliseconds(), c.Withheld, c.finish); err != nil {
			return err
		}
		_, err := tx.ExecContext(ctx, `UPDATE graph_runs SET calls=?, tokens=?, micro_usd=? WHERE id=?`, s.Calls, s.Tokens, s.MicroUSD, run)
		return err
	})
	if err != nil {
		return fmt.Errorf("keep answer %s of run %d: %w", c.Name, run, err)
	}
	return nil
}

// Run returns a run, ErrNotFound where there is none.
func (st *Store) Run(ctx context.Context, id int64) (RunRow, error) {
	return st.one(ctx, fmt.Sprintf("read run %d", id), `WHERE id = ?`, id)
}

// Runs returns the newest runs but those of the straight way, at most n, without their input.
func (st *Store) Runs(ctx context.Context, n int) ([]RunRow, error) {
	return st.list(ctx, `SELECT `+runColumns+` FROM graph_runs WHERE way <> 'straight' ORDER BY id DESC LIMIT ?`, n)
}

// Straight returns the newest runs of the straight way, as Runs does the others.
func (st *Store) Straight(ctx context.Context, n int) ([]RunRow, error) {
	return st.list(ctx, `SELECT `+runColumns+` FROM graph_runs WHERE way = 'straight' ORDER BY id DESC LIMIT ?`, n)
}

func (st *Store) list(ctx context.Context, query string, args ...any) ([]RunRow, error) {
	return db.All(ctx, st.db.Read(), "read runs", func(row *sql.Rows) (RunRow, error) {
		r, err := scanRun(row)
		r.Input = nil
		return r, err
	}, query, args...)
}

// Keyed returns the run of a key, ErrNotFound where there is none.
func (st *Store) Keyed(ctx context.Context, key string) (RunRow, error) {
	return st.one(ctx, "read run "+key, `WHERE key = ? AND key <> ''`, key)
}

func (st *Store) one(ctx context.Context, what, where string, arg any) (RunRow, error) {
	r, err := db.One(ctx, st.db.Read(), what, scanRun, `SELECT `+runColumns+` FROM graph_runs `+where, arg)
	if errors.Is(err, sql.ErrNoRows) {
		return r, ErrNotFound
	}
	return r, err
}

// Steps returns the steps of a run in their order.
func (st *Store) Steps(ctx context.Context, run int64) ([]StepRow, error) {
	return db.All(ctx, st.db.Read(), fmt.Sprintf("read steps of run %d", run), func(row *sql.Rows) (StepRow, error) {
		s := StepRow{Run: run}
		var state string
		var began int64
		var ended sql.NullInt64
		err := row.Scan(&s.N, &s.Node, &state, &s.Next, &s.Note, &began, &ended)
		if s.Began = time.UnixMilli(began); ended.Valid {
			s.Ended, s.State = time.UnixMilli(ended.Int64), json.RawMessage(state)
		}
		return s, err
	}, `SELECT n, node, state, next, note, began_at, ended_at FROM graph_steps WHERE run = ? ORDER BY n`, run)
}

// Calls returns what the steps of a run asked models, in the order of steps and names.
func (st *Store) Calls(ctx context.Context, run int64) ([]CallRow, error) {
	return db.All(ctx, st.db.Read(), fmt.Sprintf("read answers of run %d", run), func(row *sql.Rows) (c CallRow, err error) {
		var took int64
		err = row.Scan(&c.Step, &c.Name, &c.Asked, &c.Answered, &c.Provider, &c.Model, &c.Input, &c.Output, &c.MicroUSD, &took, &c.Withheld)
		c.Took = time.Duration(took) * time.Millisecond
		return c, err
	}, `SELECT step, name, asked, answered, provider, model, input_tokens, output_tokens, micro_usd, took_ms, withheld
		FROM graph_calls WHERE run = ? ORDER BY step, name`, run)
}

// Cancel ends a run that has not ended. Of one that runs in this process the models are told at once.
func (st *Store) Cancel(ctx context.Context, id int64) error {
	r, err := st.Run(ctx, id)
	if err != nil {
		return err
	}
	if r.Status != Running && r.Status != Paused {
		return fmt.Errorf("cancel run %d: it is %s already", id, r.Status)
	}
	st.mu.Lock()
	stop := st.active[id]
	st.mu.Unlock()
	if stop != nil {
		stop(errCancelled) // whoever runs it writes that down
		return nil
	}
	r.Status, r.Error, r.Ended = Cancelled, "cancelled by a person", time.Now()
	return st.end(ctx, &r)
}

// Answer ends the pause of a run: its node gets the decision when the run goes on.
func (st *Store) Answer(ctx context.Context, id int64, decision string) error {
	err := st.db.Tx(ctx, func(tx *sql.Tx) error {
		r, err := db.One(ctx, tx, "", scanRun, `SELECT `+runColumns+` FROM graph_runs WHERE id = ?`+st.db.Lock(), id)
		if errors.Is(err, sql.ErrNoRows) {
			return ErrNotFound
		}
		if err != nil {
			return err
		}
		if r.Status != Paused || decision == "" {
			return fmt.Errorf("it is %s; only one that is paused takes a decision, which must say something", r.Status)
		}
		r.Status, r.Decision = Running, decision
		return save(ctx, tx, &r)
	})
	if err != nil {
		return fmt.Errorf("decide for run %d: %w", id, err)
	}
	st.announce()
	return nil
}

// Fork begins another run from the state after a step of an old one (-1: from its beginning), or from the given state instead. It goes on with
// Proceed. What the steps before asked is not asked again.
func (st *Store) Fork(ctx context.Context, id int64, step int, state json.RawMessage) (r RunRow, err error) {
	old, err := st.Run(ctx, id)
	if err != nil {
		return r, err
	}
	steps, err := st.Steps(ctx, id)
	if err != nil {
		return r, err
	}
	if step < -1 || step >= len(steps) || step >= 0 && steps[step].Ended.IsZero() {
		return r, fmt.Errorf("fork run %d: it has no finished step %d", id, step)
	}
	if state != nil && !json.Valid(state) {
		return r, fmt.Errorf("fork run %d: the state is not JSON", id)
	}
	r = RunRow{Graph: old.Graph, Chat: old.Chat, Title: old.Title, Way: old.Way, Status: Running, Input: old.Input, ForkedFrom: id, ForkedStep: step, Began: time.Now()}
	if step == -1 && state != nil {
		r.Input = state
	}
	err = st.db.Tx(ctx, func(tx *sql.Tx) error {
		if err := st.insert(ctx, tx, &r); err != nil {
			return err
		}
		for _, s := range steps[:step+1] {
			kept := s.State
			if s.N == step && state != nil {
				kept = state
			}
			if _, err := tx.ExecContext(ctx, `INSERT INTO graph_steps (run, n, node, state, next, note, began_at, ended_at) VALUES (?,?,?,?,?,?,?,?)`,
				r.ID, s.N, s.Node, string(kept), s.Next, s.Note, s.Began.UnixMilli(), s.Ended.UnixMilli()); err != nil {
				return err
			}
		}
		return nil
	})
	if err != nil {
		return r, fmt.Errorf("fork run %d: %w", id, err)
	}
	st.announce()
	return r, nil
}

// Clean deletes the runs that ended before a time, but those of the straight way, and forks that have waited for a person since.
func (st *Store) Clean(ctx context.Context, before time.Time) error {
	return st.remove(ctx, `way <> 'straight' AND (ended_at < ? OR key = '' AND status = 'paused' AND began_at < ?)`, before.UnixMilli(), before.UnixMilli())
}

// CleanStraight deletes the runs of the straight way that ended before a time.
func (st *Store) CleanStraight(ctx context.Context, before time.Time) error {
	return st.remove(ctx, `way = 'straight' AND ended_at < ?`, before.UnixMilli())
}

// Forget deletes the runs of a conversation that is gone, and how it wanted plans.
func (st *Store) Forget(ctx context.Context, chat int64) error {
	err := st.db.Tx(ctx, func(tx *sql.Tx) error {
		_, err := tx.ExecContext(ctx, `DELETE FROM graph_plans WHERE chat = ?`, chat)
		return err
	})
	return errors.Join(err, st.remove(ctx, `chat = ? AND chat > 0`, chat))
}

func (st *Store) remove(ctx context.Context, where string, args ...any) error {
	err := st.db.Tx(ctx, func(tx *sql.Tx) error {
		for _, query := range []string{`DELETE FROM graph_calls WHERE run IN (SELECT id FROM graph_runs WHERE ` + where + `)`,
			`DELETE FROM graph_steps WHERE run IN (SELECT id FROM graph_runs WHERE ` + where + `)`, `DELETE FROM graph_runs WHERE ` + where} {
			if _, err := tx.ExecContext(ctx, query, args...); err != nil {
				return err
			}
		}
		return nil
	})
	if err != nil {
		return fmt.Errorf("delete runs: %w", err)
	}
	return nil
}
