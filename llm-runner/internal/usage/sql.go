package usage

import (
	"context"
	"database/sql"
	"fmt"
	"math"
	"time"

	"home.arpa/lab/llm-runner/internal/db"
	"home.arpa/lab/llm-runner/internal/llm"
)

const (
	insertStart = `INSERT INTO attempts (id, started_at, purpose, asked, rule, provider, model, worker, work) VALUES (?,?,?,?,?,?,?,?,?)
		ON CONFLICT (id) DO NOTHING`
	updateEnd = `UPDATE attempts SET outcome=?, error=?, first_byte_us=?, total_us=?, input_tokens=?, output_tokens=?,
		cached_tokens=?, thinking_tokens=?, cost_micro_usd=? WHERE id=?`
)

// recoverRows marks the rows that a dead process left open and returns the highest id. In shared books open rows may be those
// of living processes.
func recoverRows(ctx context.Context, d *db.DB) (last int64, err error) {
	if d.Shared() {
		return 0, nil
	}
	err = d.Tx(ctx, func(tx *sql.Tx) error {
		if _, err := tx.ExecContext(ctx, `UPDATE attempts SET outcome=?, error=`+meanwhile+`
			WHERE id > (SELECT settled FROM attempts_mark) AND outcome=?`, Interrupted, Unfinished); err != nil {
			return err
		}
		if err := tx.QueryRowContext(ctx, `SELECT coalesce(max(id), 0) FROM attempts`).Scan(&last); err != nil {
			return err
		}
		_, err := tx.ExecContext(ctx, `UPDATE attempts_mark SET settled=?`, last)
		return err
	})
	if err != nil {
		return 0, fmt.Errorf("recover ledger: %w", err)
	}
	return last, nil
}

// number counts the processes that have opened shared books, this one included.
func number(ctx context.Context, d *db.DB) (n int64, err error) {
	if err := d.Writer().QueryRowContext(ctx, `UPDATE usage_processes SET begun = begun + 1 WHERE id = 1 RETURNING begun`).Scan(&n); err != nil {
		return 0, fmt.Errorf("open the shared books: %w", err)
	}
	return n, nil
}

const meanwhile = `'the program ended meanwhile'`

// adopt marks the rows that a dead process left open in shared books.
func adopt(ctx context.Context, d *db.DB, worker string) error {
	_, err := d.Writer().ExecContext(ctx, `UPDATE attempts SET outcome=?, error=`+meanwhile+` WHERE outcome='open' AND worker=?`, Interrupted, worker)
	if err != nil {
		return fmt.Errorf("adopt ledger of %s: %w", worker, err)
	}
	return nil
}

// settle moves the mark up to the oldest open row, so that the next start need not look at what lies before it.
func settle(ctx context.Context, d *db.DB) error {
	if d.Shared() {
		return nil
	}
	_, err := d.Writer().ExecContext(ctx, `UPDATE attempts_mark SET settled = coalesce(
		(SELECT min(id) - 1 FROM attempts WHERE id > settled AND outcome=?), (SELECT max(id) FROM attempts), 0)`, Unfinished)
	if err != nil {
		return fmt.Errorf("settle ledger: %w", err)
	}
	return nil
}

// firstSince returns the id of the first row at or after a moment: rows are written in the order of time, but for a clock
// that is set back, which moves the edge of a sum by as much.
func firstSince(ctx context.Context, d *db.DB, since time.Time) (int64, error) {
	if d.Shared() {
		return idAt(since), nil
	}
	var low, high int64
	if err := d.Read().QueryRowContext(ctx, `SELECT coalesce(min(id), 1), coalesce(max(id), 0) + 1 FROM attempts`).Scan(&low, &high); err != nil {
		return 0, fmt.Errorf("read ledger: %w", err)
	}
	for low < high {
		middle := low + (high-low)/2
		var at int64
		if err := d.Read().QueryRowContext(ctx, `SELECT started_at FROM attempts WHERE id >= ? ORDER BY id LIMIT 1`, middle).Scan(&at); err != nil {
			return 0, fmt.Errorf("read ledger: %w", err)
		}
		if at < since.UnixMilli() {
			low = middle + 1
		} else {
			high = middle
		}
	}
	return low, nil
}

// giveUp is when a database server that does not answer counts as one that refuses.
const giveUp = 5 * time.Second

// A writer keeps the two statements prepared on the database's writing connection.
type writer struct {
	db         *db.DB
	start, end *sql.Stmt
}

func (w *writer) close() {
	if w.start != nil {
		w.start.Close()
		w.end.Close()
	}
}

func (w *writer) commit(batch []entry) error { return w.db.Noted(w.write(batch)) }

func (w *writer) write(batch []entry) error {
	ctx := context.Background() // a batch that was begun is finished, also while stopping
	if w.db.Shared() {
		var cancel context.CancelFunc
		ctx, cancel = context.WithTimeout(ctx, giveUp)
		defer cancel()
	}
	if w.start == nil {
		start, err := w.db.Writer().PrepareContext(ctx, insertStart)
		if err != nil {
			return fmt.Errorf("write ledger: %w", err)
		}
		end, err := w.db.Writer().PrepareContext(ctx, updateEnd)
		if err != nil {
			start.Close() //nolint:sqlclosecheck // it lives on otherwise
			return fmt.Errorf("write ledger: %w", err)
		}
		w.start, w.end = start, end
	}
	if len(batch) == 1 { // a statement on its own is a transaction on its own, at a third of the price
		if err := writeEntry(ctx, w.start, w.end, w.db.Worker(), batch[0]); err != nil {
			return fmt.Errorf("write ledger: %w", err)
		}
		return nil
	}
	err := w.db.Tx(ctx, func(tx *sql.Tx) error {
		start, end := tx.StmtContext(ctx, w.start), tx.StmtContext(ctx, w.end)
		for _, e := range batch {
			if err := writeEntry(ctx, start, end, w.db.Worker(), e); err != nil {
				return err
			}
		}
		return nil
	})
	if err != nil {
		return fmt.Errorf("write ledger: %w", err)
	}
	return nil
}

func writeEntry(ctx context.Context, start, end *sql.Stmt, worker string, e entry) error {
	a := e.attempt
	if e.end == nil {
		_, err := start.ExecContext(ctx, a.id, a.At.UnixMilli(), a.Purpose, a.Asked, a.Rule, a.Provider, a.Model, worker, a.Work)
		return err
	}
	u := e.end.Usage
	_, err := end.ExecContext(ctx, string(e.end.Outcome), errorText(e.end.Err), micros(e.end.FirstByte), micros(e.end.Total),
		u.Input.Ptr(), u.Output.Ptr(), u.CachedInput.Ptr(), u.Thinking.Ptr(), e.cost.Ptr(), a.id)
	return err
}

func errorText(err error) string {
	if err == nil {
		return ""
	}
	text := err.Error()
	if len(text) > 500 {
		text = text[:500]
	}
	return string(llm.KindOf(err)) + ": " + text
}

func micros(d time.Duration) *int64 {
	if d <= 0 {
		return nil
	}
	us := d.Microseconds()
	return &us
}

// Row is one attempt as the ledger holds it.
type Row struct {
	ID        int64         `json:"id"`
	At        time.Time     `json:"at"`
	Purpose   string        `json:"purpose"`
	Asked     string        `json:"asked"`
	Rule      string        `json:"rule"`
	Provider  string        `json:"provider"`
	Model     string        `json:"model"`
	Outcome   Outcome       `json:"outcome"`
	Error     string        `json:"error,omitempty"`
	FirstByte time.Duration `json:"first_byte_ns"`
	Total     time.Duration `json:"total_ns"`
	Usage     llm.Usage     `json:"usage"`
	Cost      llm.Count     `json:"cost_micro_usd"`
}

// Recent returns the newest n attempts, newest first.
func Recent(ctx context.Context, d *db.DB, n int) ([]Row, error) { return newest(ctx, d, 0, n) }

// newest returns the newest n of the attempts from an id on, newest first.
func newest(ctx context.Context, d *db.DB, from int64, n int) ([]Row, error) {
	return attempts(ctx, d, `id >= ? ORDER BY id DESC LIMIT ?`, from, n)
}

// Made returns the attempts that were made for some work in a time, see For, oldest first.
func Made(ctx context.Context, d *db.DB, work string, from, to time.Time) ([]Row, error) {
	first, err := firstSince(ctx, d, from)
	if err != nil {
		return nil, err
	}
	last, err := firstSince(ctx, d, to.Add(time.Second))
	if err != nil {
		return nil, err
	}
	return attempts(ctx, d, `id >= ? AND id < ? AND work = ? ORDER BY id`, first, last, work)
}

func attempts(ctx context.Context, d *db.DB, where string, args ...any) ([]Row, error) {
	return db.All(ctx, d.Read(), "read ledger", func(row *sql.Rows) (r Row, err error) {
		var ms, first, total int64
		var in, out, cached, thinking, cost sql.NullInt64
		err = row.Scan(&r.ID, &ms, &r.Purpose, &r.Asked, &r.Rule, &r.Provider, &r.Model, &r.Outcome, &r.Error,
			&first, &total, &in, &out, &cached, &thinking, &cost)
		r.At = time.UnixMilli(ms)
		r.FirstByte, r.Total = time.Duration(first)*time.Microsecond, time.Duration(total)*time.Microsecond
		r.Usage = llm.Usage{Input: db.Count(in), Output: db.Count(out), CachedInput: db.Count(cached), Thinking: db.Count(thinking)}
		r.Cost = db.Count(cost)
		return r, err
	}, `SELECT id, started_at, purpose, asked, rule, provider, model, outcome, error,
		coalesce(first_byte_us,0), coalesce(total_us,0), input_tokens, output_tokens, cached_tokens, thinking_tokens, cost_micro_usd
		FROM attempts WHERE `+where, args...)
}

// Last returns the attempts that began in the time before the youngest one began, newest first.
func Last(ctx context.Context, d *db.DB, before time.Duration) ([]Row, error) {
	last, err := Recent(ctx, d, 1)
	if err != nil || len(last) == 0 {
		return nil, err
	}
	first, err := firstSince(ctx, d, last[0].At.Add(-before))
	if err != nil {
		return nil, err
	}
	return newest(ctx, d, first, math.MaxInt32)
}

// A Target is a model on a provider.
type Target struct{ Provider, Model string }

// Typical is what an answer of each model took of late: the median over those of the newest 2,000 attempts that ended well.
// A model with fewer than three is left out.
func Typical(ctx context.Context, d *db.DB) (map[Target]time.Duration, error) {
	return db.Map(ctx, d.Read(), "read ledger", func(row *sql.Rows) (t Target, took time.Duration, err error) {
		var us int64
		err = row.Scan(&t.Provider, &t.Model, &us)
		return t, time.Duration(us) * time.Microsecond, err
	}, `
		WITH a AS (SELECT * FROM attempts ORDER BY id DESC LIMIT 2000), b AS (
		  SELECT provider, model, total_us, row_number() OVER (PARTITION BY provider, model ORDER BY total_us) AS place,
		    count(*) OVER (PARTITION BY provider, model) AS good
		  FROM a WHERE outcome = 'ok' AND purpose <> 'embed' AND total_us IS NOT NULL)
		SELECT provider, model, total_us FROM b WHERE good >= 3 AND place = (good+1)/2`)
}

// A Day is the sum of one provider's attempts on one day of the local time zone.
type Day struct {
	Day      string    `json:"day"` // 2026-11-22
	Provider string    `json:"provider"`
	Totals   Totals    `json:"totals"`
	P50      llm.Count `json:"p50_ms"` // of the whole answer, over attempts that ended well
	P95      llm.Count `json:"p95_ms"`
}

// Days sums the attempts since a moment, by day and provider, oldest day first.
func Days(ctx context.Context, d *db.DB, since time.Time) ([]Day, error) {
	first, err := firstSince(ctx, d, since)
	if err != nil {
		return nil, err
	}
	day := "date(started_at/1000, 'unixepoch', 'localtime')"
	if d.Shared() {
		day = dayOf(since, time.Now())
	}
	return db.All(ctx, d.Read(), "sum ledger", func(row *sql.Rows) (x Day, err error) {
		var p50, p95 sql.NullInt64
		t := &x.Totals
		err = row.Scan(&x.Day, &x.Provider, &t.Requests, &t.Errors, &t.Busy, &t.Cancelled, &t.InputTokens,
			&t.OutputTokens, &t.CostMicroUSD, &t.well, &t.wellUS, &p50, &p95)
		x.P50, x.P95 = db.Count(p50), db.Count(p95)
		return x, err
	}, `
		WITH a AS (SELECT *, `+day+` AS day FROM attempts WHERE id >= ?), b AS (
		  SELECT *, row_number() OVER (PARTITION BY day, provider ORDER BY outcome<>'ok', total_us) AS place,
		    count(*) FILTER (WHERE outcome='ok') OVER (PARTITION BY day, provider) AS good FROM a)
		SELECT day, provider, count(*), count(*) FILTER (WHERE outcome='error'), count(*) FILTER (WHERE outcome='busy'),
		  count(*) FILTER (WHERE outcome='cancelled'),
		  coalesce(sum(input_tokens),0), coalesce(sum(output_tokens),0), coalesce(sum(cost_micro_usd),0),
		  max(good), coalesce(sum(CASE WHEN outcome='ok' THEN total_us END),0),
		  max(CASE WHEN outcome='ok' AND place = (good+1)/2 THEN total_us END)/1000,
		  max(CASE WHEN outcome='ok' AND place = (good*95+99)/100 THEN total_us END)/1000
		FROM b GROUP BY day, provider ORDER BY day, provider`, first)
}
