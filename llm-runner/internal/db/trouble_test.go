package db

import (
	"context"
	"database/sql"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"syscall"
	"testing"
	"time"
)

func TestFaultOf(t *testing.T) {
	for text, want := range map[string]Fault{
		"run step: database or disk is full (13)": Full, "attempt to write a readonly database (8)": ReadOnly, "database is locked (5) (SQLITE_BUSY)": Locked,
		"disk I/O error (778)": Broken, "no such job": "",
	} {
		if got := FaultOf(errors.New(text)); got != want {
			t.Errorf("%s: %q", text, got)
		}
	}
	for err, want := range map[error]Fault{syscall.ENOSPC: Full, syscall.EDQUOT: Full, syscall.EROFS: ReadOnly, os.ErrNotExist: "", nil: ""} {
		if got := FaultOf(err); got != want {
			t.Errorf("%v: %q", err, got)
		}
	}
}

// A database that may not grow refuses as one on a full disk does.
func TestTroubleIsToldOnceAndItsEndToo(t *testing.T) {
	d := filled(t, filepath.Join(t.TempDir(), Name), "x")
	told := make(chan *Trouble, 10)
	ctx, cancel := context.WithCancel(t.Context())
	defer cancel()
	go d.Watch(ctx, func(x *Trouble) { told <- x }) //nolint:errcheck // it returns ctx's error
	var pages int
	if err := d.w.QueryRow("PRAGMA page_count").Scan(&pages); err != nil {
		t.Fatal(err)
	}
	exec(t, d, fmt.Sprintf("PRAGMA max_page_count = %d", pages))
	grow := func() error {
		return d.Tx(t.Context(), func(tx *sql.Tx) error {
			_, err := tx.Exec("INSERT INTO note SELECT hex(randomblob(100000))")
			return err
		})
	}
	for range 3 {
		if err := grow(); FaultOf(err) != Full {
			t.Fatalf("%v", err)
		}
	}
	if x := <-told; x == nil || x.Fault != Full || x.Since.IsZero() || !strings.Contains(x.Says(), "is full") || !strings.Contains(x.Cure(), "Free some space") {
		t.Errorf("%+v", x)
	}
	exec(t, d, "PRAGMA max_page_count = 1000000")
	if x := <-told; x != nil {
		t.Errorf("%+v", x)
	}
	if d.Trouble() != nil || len(told) != 0 {
		t.Error("there is trouble still")
	}
	if err := grow(); err != nil {
		t.Error(err)
	}
}

func TestEveryFaultHasWordsAndACure(t *testing.T) {
	seen := map[string]bool{}
	for _, f := range []Fault{Full, ReadOnly, Locked, Damaged, Broken} {
		x := Trouble{Fault: f, Path: "/data/runner.db"}
		if why := f.Refusal(); seen[why] || !strings.Contains(why, "so it was not taken: ") || !strings.Contains(why, "send it again") {
			t.Errorf("%s: %s", f, why)
		} else {
			seen[why] = true
		}
		if says := x.Says() + x.Cure(); seen[says] || !strings.Contains(says, "/data") || !strings.HasSuffix(x.Cure(), ".") {
			t.Errorf("%s: %s", f, says)
		} else {
			seen[says] = true
		}
	}
}

// A process that is killed leaves a log behind. Whatever is cut off it or written over its end, the database opens with the
// transactions that came before, whole.
func TestACutOrGarbledLogLosesItsEndOnly(t *testing.T) {
	if testing.Short() {
		t.Skip("opens a hundred databases, one after the other")
	}
	dir := t.TempDir()
	d := filled(t, filepath.Join(dir, Name), "0")
	for i := range 50 {
		exec(t, d, fmt.Sprintf("INSERT INTO note VALUES ('%d')", i+1))
	}
	main, err := os.ReadFile(filepath.Join(dir, Name))
	if err != nil {
		t.Fatal(err)
	}
	log, err := os.ReadFile(filepath.Join(dir, Name+"-wal"))
	if err != nil || len(log) < 50*4096 {
		t.Fatal(len(log), err)
	}
	garbled := func(at int) []byte {
		b := append([]byte(nil), log...)
		for i := at; i < len(b); i++ {
			b[i] ^= 0x5a
		}
		return b
	}
	last := 51
	for at := len(log); at > 0; at -= 9973 {
		for how, bytes := range map[string][]byte{"cut": log[:at], "garbled": garbled(at)} {
			path := filepath.Join(t.TempDir(), Name)
			if err := errors.Join(os.WriteFile(path, main, 0o600), os.WriteFile(path+"-wal", bytes, 0o600)); err != nil {
				t.Fatal(err)
			}
			x, err := Open(t.Context(), path)
			if err != nil {
				t.Fatalf("%s at %d: %v", how, at, err)
			}
			var rows int
			var ok string
			err = x.Read().QueryRow("PRAGMA integrity_check").Scan(&ok)
			x.Read().QueryRow("SELECT count(*) FROM note").Scan(&rows) //nolint:errcheck // before the table was made there is none
			if err != nil || ok != "ok" || rows > last {
				t.Errorf("%s at %d: %d rows, %s, %v", how, at, rows, ok, err)
			}
			if how == "garbled" {
				last = rows
			}
			x.Close()
		}
	}
	if last > 5 {
		t.Errorf("of a log of a few bytes %d rows are left", last)
	}
}

func TestAFileThatIsNoDatabaseIsToldWithTheCure(t *testing.T) {
	for name, damage := range map[string]func(b []byte) []byte{
		"a garbled header": func(b []byte) []byte { copy(b, strings.Repeat("garbage ", 12)); return b },
		"another file":     func([]byte) []byte { return []byte(strings.Repeat("dear diary ", 1000)) },
		"a torn page":      func(b []byte) []byte { copy(b[100:], make([]byte, 4000)); return b },
	} {
		path := filepath.Join(t.TempDir(), Name)
		filled(t, path, "x").Close()
		b, err := os.ReadFile(path)
		if err != nil {
			t.Fatal(err)
		}
		b = damage(b)
		if err := os.WriteFile(path, b, 0o600); err != nil {
			t.Fatal(err)
		}
		d, err := Open(t.Context(), path)
		if err == nil {
			err = d.Check(t.Context())
			d.Close()
		}
		if err == nil || !strings.Contains(err.Error(), "llm-runner restore") {
			t.Errorf("%s: %v", name, err)
		}
		if after, _ := os.ReadFile(path); len(after) != len(b) {
			t.Errorf("%s: the file was changed", name)
		}
	}
}

func TestAnotherProgramsLockIsToldAfterAWhile(t *testing.T) {
	d := filled(t, filepath.Join(t.TempDir(), Name), "x")
	exec(t, d, "PRAGMA busy_timeout = 50")
	other, err := OpenRead(t.Context(), d.path)
	if err != nil {
		t.Fatal(err)
	}
	defer other.Close()
	c, err := other.r.Conn(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	defer c.Close()
	for _, q := range []string{"PRAGMA query_only = 0", "BEGIN IMMEDIATE"} {
		if _, err := c.ExecContext(t.Context(), q); err != nil {
			t.Fatal(err)
		}
	}
	started := time.Now()
	err = d.Tx(t.Context(), func(*sql.Tx) error { return nil })
	if x := d.Trouble(); FaultOf(err) != Locked || x == nil || x.Fault != Locked || time.Since(started) > 5*time.Second {
		t.Errorf("%v, %+v", err, x)
	}
}
