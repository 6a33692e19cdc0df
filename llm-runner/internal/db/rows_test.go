package db

import (
	"context"
	"database/sql"
	"errors"
	"maps"
	"path/filepath"
	"slices"
	"strings"
	"testing"
)

const (
	counting = `WITH RECURSIVE c(n) AS (SELECT 1 UNION ALL SELECT n + 1 FROM c WHERE n < ?) `
	breaking = counting + `SELECT CASE WHEN n < 3 THEN n ELSE abs(-9223372036854775807 - 1) END FROM c` // abs overflows at the third row
)

func TestRowsAreReadInTheirOrder(t *testing.T) {
	d, err := Open(t.Context(), filepath.Join(t.TempDir(), Name))
	if err != nil {
		t.Fatal(err)
	}
	defer d.Close()
	all, err := All(t.Context(), d.Read(), "read numbers", Column[int64], counting+`SELECT n FROM c ORDER BY n DESC`, 3)
	if err != nil || !slices.Equal(all, []int64{3, 2, 1}) {
		t.Errorf("%v, %v", all, err)
	}
	if all, err = All(t.Context(), d.Read(), "read numbers", Column[int64], counting+`SELECT n FROM c WHERE n > 3`, 3); err != nil || all == nil || len(all) != 0 {
		t.Errorf("of no rows: %#v, %v", all, err)
	}
	marks, args := In([]int64{4, 2, 9})
	if all, err = All(t.Context(), d.Read(), "read numbers", Column[int64], counting+`SELECT n FROM c WHERE n IN (`+marks+`)`, append([]any{5}, args...)...); err != nil || !slices.Equal(all, []int64{2, 4}) {
		t.Errorf("%v, %v", all, err)
	}
	byWord, err := Map(t.Context(), d.Read(), "read numbers", func(row *sql.Rows) (word string, n int64, err error) {
		err = row.Scan(&word, &n)
		return word, n, err
	}, counting+`SELECT 'w' || (n % 2), n FROM c ORDER BY n`, 3)
	if want := map[string]int64{"w0": 2, "w1": 3}; err != nil || !maps.Equal(byWord, want) {
		t.Errorf("%v, %v", byWord, err)
	}
	one, err := One(t.Context(), d.Read(), "read number", Column[int64], counting+`SELECT n FROM c ORDER BY n DESC`, 3)
	if err != nil || one != 3 {
		t.Errorf("%v, %v", one, err)
	}
	if _, err := One(t.Context(), d.Read(), "read number", Column[int64], counting+`SELECT n FROM c WHERE n > 3`, 3); !errors.Is(err, sql.ErrNoRows) {
		t.Errorf("one of no rows: %v", err)
	}
	if all, err = All(t.Context(), d.Writer(), "", Column[int64], breaking, 2); err != nil || len(all) != 2 {
		t.Errorf("%v, %v", all, err)
	}
}

// Whatever goes wrong, also half-way, says once what was read.
func TestWhatCouldNotBeReadIsSaidOnce(t *testing.T) {
	d, err := Open(t.Context(), filepath.Join(t.TempDir(), Name))
	if err != nil {
		t.Fatal(err)
	}
	defer d.Close()
	refused := errors.New("refused")
	refuse := func(*sql.Rows) (int64, error) { return 0, refused }
	gone, cancel := context.WithCancel(t.Context())
	cancel()
	for name, x := range map[string]struct {
		ctx   context.Context
		scan  func(*sql.Rows) (int64, error)
		query string
		says  string
	}{
		"the query":     {t.Context(), Column[int64], `SELECT n FROM nowhere WHERE 1 < ?`, "no such table"},
		"the scan":      {t.Context(), refuse, counting + `SELECT n FROM c`, "refused"},
		"the third row": {t.Context(), Column[int64], breaking, "integer overflow"},
		"cancelled":     {gone, Column[int64], counting + `SELECT n FROM c`, "context canceled"},
	} {
		t.Run(name, func(t *testing.T) {
			_, all := All(x.ctx, d.Read(), "read numbers", x.scan, x.query, 5)
			_, byKey := Map(x.ctx, d.Read(), "read numbers", func(row *sql.Rows) (int64, bool, error) { n, err := x.scan(row); return n, true, err }, x.query, 5)
			errs := []error{all, byKey}
			if x.query != breaking {
				_, one := One(x.ctx, d.Read(), "read numbers", x.scan, x.query, 5)
				errs = append(errs, one)
			}
			for _, err := range errs {
				if err == nil || !strings.HasPrefix(err.Error(), "read numbers: ") || strings.Count(err.Error(), "read numbers") != 1 || !strings.Contains(err.Error(), x.says) {
					t.Errorf("%v", err)
				}
			}
			if _, err := All(x.ctx, d.Read(), "", x.scan, x.query, 5); err == nil || strings.HasPrefix(err.Error(), ":") {
				t.Errorf("where the caller says it: %v", err)
			}
		})
	}
}

// A row costs what it costs in a loop written out.
func TestReadingAllAllocatesNothingMoreForEachRow(t *testing.T) {
	d, err := Open(t.Context(), filepath.Join(t.TempDir(), Name))
	if err != nil {
		t.Fatal(err)
	}
	defer d.Close()
	const query = counting + `SELECT n, n FROM c`
	type pair struct{ a, b int64 }
	out := testing.AllocsPerRun(10, func() {
		rows, err := d.Read().QueryContext(t.Context(), query, 1000)
		if err != nil {
			t.Fatal(err)
		}
		defer rows.Close()
		all := []pair{}
		for rows.Next() {
			var p pair
			if err := rows.Scan(&p.a, &p.b); err != nil {
				t.Fatal(err)
			}
			all = append(all, p)
		}
		if err := rows.Err(); err != nil || len(all) != 1000 {
			t.Fatal(len(all), err)
		}
	})
	in := testing.AllocsPerRun(10, func() {
		all, err := All(t.Context(), d.Read(), "read pairs", func(row *sql.Rows) (p pair, err error) {
			err = row.Scan(&p.a, &p.b)
			return p, err
		}, query, 1000)
		if err != nil || len(all) != 1000 {
			t.Fatal(len(all), err)
		}
	})
	if in > out+100 {
		t.Errorf("%.0f allocations for 1,000 rows, in a loop %.0f", in, out)
	}
}
