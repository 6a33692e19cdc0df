package db

import (
	"database/sql"
	"errors"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"sync"
	"syscall"
	"testing"
	"testing/fstest"
)

func TestOpenCreatesAndReopens(t *testing.T) {
	path := filepath.Join(t.TempDir(), Name)
	d, err := Open(t.Context(), path)
	if err != nil {
		t.Fatal(err)
	}
	if len(d.Applied) == 0 || d.Backup != "" {
		t.Errorf("a new file: applied %v, backup %q", d.Applied, d.Backup)
	}
	if err := d.Close(); err != nil {
		t.Fatal(err)
	}
	if st, err := os.Stat(path); err != nil || st.Mode().Perm() != 0o600 {
		t.Errorf("file mode %v, %v", st.Mode(), err)
	}
	d, err = Open(t.Context(), path)
	if err != nil {
		t.Fatal(err)
	}
	defer d.Close()
	if len(d.Applied) != 0 || d.Backup != "" {
		t.Errorf("opened again: applied %v, backup %q", d.Applied, d.Backup)
	}
}

func TestOldDatabasesAreCopiedBeforeTheyAreMigrated(t *testing.T) {
	path := filepath.Join(t.TempDir(), Name)
	all, err := load(migrations, sqliteDir)
	if err != nil {
		t.Fatal(err)
	}
	older := all[:len(all)-1] // as the version before the newest migration left it
	w, err := open(path, 1, "")
	if err != nil {
		t.Fatal(err)
	}
	d := &DB{path: path, w: w}
	for _, m := range older {
		exec(t, d, m.sql)
	}
	exec(t, d, "CREATE TABLE precious (x TEXT)")
	exec(t, d, "INSERT INTO precious VALUES ('kept')")
	exec(t, d, "PRAGMA user_version = "+strconv.Itoa(older[len(older)-1].version))
	if err := w.Close(); err != nil {
		t.Fatal(err)
	}

	if err := os.WriteFile(path+copying, []byte("of one that was killed"), 0o600); err != nil {
		t.Fatal(err)
	}
	reached = func(step string) {
		if named, err := filepath.Glob(path + ".before-*"); len(named) != 0 || err != nil || step != "copied before migration" {
			t.Errorf("%s: the copy has its name before it is whole: %v, %v", step, named, err)
		}
	}
	defer func() { reached = func(string) {} }()
	d, err = Open(t.Context(), path)
	if err != nil {
		t.Fatal(err)
	}
	defer d.Close()
	if d.Backup == "" {
		t.Fatal("no copy was made")
	}
	if st, err := os.Stat(d.Backup); err != nil || st.Mode() != 0o600 || exists(path+copying) {
		t.Errorf("%v, %v; left behind: %v", st, err, exists(path+copying))
	}
	copied, err := OpenRead(t.Context(), d.Backup)
	if err != nil {
		t.Fatal(err)
	}
	defer copied.Close()
	var got string
	if err := copied.Read().QueryRow("SELECT x FROM precious").Scan(&got); err != nil || got != "kept" {
		t.Errorf("the copy holds %q, %v", got, err)
	}
}

func TestWhatIsKeptIsOnTheDiskBeforeAnybodyHearsOfIt(t *testing.T) {
	d, err := Open(t.Context(), filepath.Join(t.TempDir(), Name))
	if err != nil {
		t.Fatal(err)
	}
	defer d.Close()
	exec(t, d, "CREATE TABLE note (x TEXT)")
	synced := 0
	var fails error
	d.fsync = func(name string) error {
		var n int
		if err := d.Read().QueryRow("SELECT count(*) FROM note").Scan(&n); err != nil || n != synced+1 {
			t.Errorf("%d rows are there, %v", n, err)
		}
		if name != d.path+"-wal" {
			t.Errorf("brought %s to the disk", name)
		}
		synced++
		return errors.Join(syncFile(name), fails)
	}
	write := func() error {
		return d.TxKept(t.Context(), func(tx *sql.Tx) error {
			_, err := tx.Exec("INSERT INTO note VALUES ('x')")
			return err
		})
	}
	if err := write(); err != nil || synced != 1 {
		t.Errorf("%v, %d times", err, synced)
	}
	fails = syscall.EIO
	if err := write(); FaultOf(err) != Broken || synced != 2 || d.Trouble() == nil {
		t.Errorf("%v, %d times; %v", err, synced, d.Trouble())
	}
	if err := d.TxKept(t.Context(), func(*sql.Tx) error { return sql.ErrNoRows }); !errors.Is(err, sql.ErrNoRows) || synced != 2 {
		t.Errorf("%v, %d times", err, synced)
	}
}

func TestNewerDatabasesAreRefusedUntouched(t *testing.T) {
	path := filepath.Join(t.TempDir(), Name)
	d, err := Open(t.Context(), path)
	if err != nil {
		t.Fatal(err)
	}
	exec(t, d, "PRAGMA user_version = 9999")
	d.Close()
	if _, err := Open(t.Context(), path); err == nil || !strings.Contains(err.Error(), "newer version") {
		t.Errorf("got %v", err)
	}
}

func TestAFailedTransactionLeavesNothing(t *testing.T) {
	d, err := Open(t.Context(), filepath.Join(t.TempDir(), Name))
	if err != nil {
		t.Fatal(err)
	}
	defer d.Close()
	exec(t, d, "CREATE TABLE x (n INTEGER)")
	if err := d.Tx(t.Context(), func(tx *sql.Tx) error {
		if _, err := tx.Exec("INSERT INTO x VALUES (1)"); err != nil {
			return err
		}
		return os.ErrInvalid
	}); err != os.ErrInvalid {
		t.Fatal(err)
	}
	var n int
	if err := d.Read().QueryRow("SELECT count(*) FROM x").Scan(&n); err != nil || n != 0 {
		t.Errorf("%d rows, %v", n, err)
	}
}

func TestManyWritersAndReadersNeverMeetABusyDatabase(t *testing.T) {
	d, err := Open(t.Context(), filepath.Join(t.TempDir(), Name))
	if err != nil {
		t.Fatal(err)
	}
	defer d.Close()
	exec(t, d, "CREATE TABLE x (n INTEGER)")
	var wg sync.WaitGroup
	for range 8 {
		wg.Go(func() {
			for range 50 {
				if err := d.Tx(t.Context(), func(tx *sql.Tx) error {
					_, err := tx.Exec("INSERT INTO x VALUES (1)")
					return err
				}); err != nil {
					t.Error(err)
				}
				var n int
				if err := d.Read().QueryRow("SELECT count(*) FROM x").Scan(&n); err != nil {
					t.Error(err)
				}
			}
		})
	}
	wg.Wait()
}

func TestMigrationsAreNumberedAndOwned(t *testing.T) {
	all, err := load(migrations, sqliteDir)
	if err != nil {
		t.Fatal(err)
	}
	for i, m := range all {
		if m.version != i+1 {
			t.Errorf("%s: the number must be %d: a database that has a higher one would never get it", m.name, i+1)
		}
		if !strings.HasPrefix(m.sql, "-- owner: ") {
			t.Errorf("%s: the first line must name the owner", m.name)
		}
	}
	if _, err := load(fstest.MapFS{"migrations/first.sql": {Data: []byte("x")}}, sqliteDir); err == nil {
		t.Error("a file without a number was taken")
	}
}

func exec(t *testing.T, d *DB, q string) {
	t.Helper()
	if _, err := d.w.Exec(q); err != nil {
		t.Fatalf("%s: %v", q, err)
	}
}

func TestTrimLeavesADatabaseThatAnswers(t *testing.T) {
	d, err := Open(t.Context(), filepath.Join(t.TempDir(), Name))
	if err != nil {
		t.Fatal(err)
	}
	defer d.Close()
	rows, err := d.Read().QueryContext(t.Context(), "SELECT 1 UNION SELECT 2")
	if err != nil {
		t.Fatal(err)
	}
	defer rows.Close()
	d.Trim() // one connection is in use
	n := 0
	for rows.Next() {
		n++
	}
	if err := d.Read().QueryRowContext(t.Context(), "SELECT 3").Scan(new(int)); n != 2 || rows.Err() != nil || err != nil {
		t.Error(n, rows.Err(), err)
	}
}
