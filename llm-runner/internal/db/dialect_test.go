package db

import (
	"database/sql/driver"
	"os"
	"path/filepath"
	"strings"
	"testing"
)

func TestParametersAreNumberedOutsideQuotes(t *testing.T) {
	for query, want := range map[string]string{
		`SELECT 1`:                                   `SELECT 1`,
		`INSERT INTO t VALUES (?,?)`:                 `INSERT INTO t VALUES ($1,$2)`,
		`SELECT '?', "a?b" FROM t WHERE x=?`:         `SELECT '?', "a?b" FROM t WHERE x=$1`,
		`SELECT 'it''s ?' WHERE a=? AND b='' OR c=?`: `SELECT 'it''s ?' WHERE a=$1 AND b='' OR c=$2`,
		`SELECT $1`:                                  `SELECT $1`,
	} {
		if got := numbered(query); got != want {
			t.Errorf("%s\n got %s\nwant %s", query, got, want)
		}
	}
}

func TestStringsArriveAsPostgresTakesThem(t *testing.T) {
	type state string
	for given, want := range map[any]any{"a\x00b": "a\uFFFDb", "\xff": "\uFFFD", state("done"): "done", int64(7): int64(7)} {
		v := driver.NamedValue{Value: given}
		if err := (conn{}).CheckNamedValue(&v); err != nil || v.Value != want {
			t.Errorf("%q became %q, %v", given, v.Value, err)
		}
	}
}

// Where one process stays on SQLite and the other machines share PostgreSQL, both have to mean the same schema.
func TestEveryMigrationHasATwinForPostgres(t *testing.T) {
	ours, err := filepath.Glob(sqliteDir + "/*.sql")
	if err != nil || len(ours) == 0 {
		t.Fatal(ours, err)
	}
	theirs, err := filepath.Glob(postgresDir + "/*.sql")
	if err != nil || len(theirs) != len(ours) {
		t.Errorf("%d migrations, %d for PostgreSQL, %v", len(ours), len(theirs), err)
	}
	first := func(path string) string {
		text, err := os.ReadFile(path)
		if err != nil {
			t.Error(err)
		}
		return strings.SplitN(string(text), "\n", 2)[0]
	}
	for _, path := range ours {
		if owner, twin := first(path), first(filepath.Join(postgresDir, filepath.Base(path))); owner != twin {
			t.Errorf("%s begins %q, its twin %q", path, owner, twin)
		}
	}
}

func TestAPostgresURLThatCannotBeReadIsNotRepeated(t *testing.T) {
	for _, url := range []string{"postgres://me:hunter2@host:port/x", "mysql://me:hunter2@host/x", "postgres://me:hunter2%zz@host/x"} {
		err := CheckPostgresURL(url)
		if err == nil || strings.Contains(err.Error(), "hunter2") || !strings.Contains(err.Error(), "postgres://USER") {
			t.Errorf("%v", err)
		}
	}
	if err := CheckPostgresURL("postgres://me:hunter2@host:5433/runner"); err != nil {
		t.Error(err)
	}
}
