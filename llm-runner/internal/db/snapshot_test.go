package db

import (
	"context"
	"crypto/sha256"
	"database/sql"
	"encoding/hex"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"sync"
	"sync/atomic"
	"syscall"
	"testing"
)

// filled returns an open database whose table note says what.
func filled(t *testing.T, path, what string) *DB {
	t.Helper()
	d, err := Open(t.Context(), path)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { d.Close() })
	exec(t, d, "CREATE TABLE note (x TEXT)")
	exec(t, d, "INSERT INTO note VALUES ('"+what+"')")
	return d
}

// snapshotOf writes a snapshot whose table note says what, and returns its path.
func snapshotOf(t *testing.T, what string) string {
	t.Helper()
	dir := t.TempDir()
	path := filepath.Join(dir, "snapshot.db")
	if _, err := filled(t, filepath.Join(dir, Name), what).Snapshot(t.Context(), path, SnapshotOptions{}); err != nil {
		t.Fatal(err)
	}
	return path
}

func names(t *testing.T, dir string) string {
	t.Helper()
	entries, err := os.ReadDir(dir)
	if err != nil {
		t.Fatal(err)
	}
	var all []string
	for _, e := range entries {
		all = append(all, e.Name())
	}
	return strings.Join(all, " ")
}

func TestASnapshotSaysWhatItHolds(t *testing.T) {
	out := t.TempDir()
	path := filepath.Join(out, "a b?c%.db")
	info, err := filled(t, filepath.Join(t.TempDir(), Name), "kept").Snapshot(t.Context(), path, SnapshotOptions{})
	if err != nil {
		t.Fatal(err)
	}
	text, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	sum := sha256.Sum256(text)
	if info.Path != path || info.Bytes != int64(len(text)) || info.SHA256 != hex.EncodeToString(sum[:]) || info.Schema == 0 {
		t.Errorf("%+v of a file of %d bytes", info, len(text))
	}
	rows := map[string]int64{}
	for _, table := range info.Tables {
		rows[table.Name] = table.Rows
	}
	if rows["note"] != 1 || rows["attempts_mark"] != 1 || len(rows) < 5 {
		t.Errorf("tables %v", info.Tables)
	}
	if st, err := os.Stat(path); err != nil || st.Mode().Perm() != 0o600 {
		t.Errorf("%v, %v", st.Mode(), err)
	}
	again, err := Verify(t.Context(), path)
	if err != nil || again.SHA256 != info.SHA256 {
		t.Errorf("%+v, %v", again, err)
	}
	if got := names(t, out); got != "a b?c%.db" {
		t.Errorf("beside it: %s", got)
	}
}

func TestASnapshotOverwritesOnlyWhereItIsTold(t *testing.T) {
	dir, out := t.TempDir(), t.TempDir()
	d := filled(t, filepath.Join(dir, Name), "kept")
	path := filepath.Join(out, "s.db")
	if err := os.WriteFile(path, []byte("precious"), 0o644); err != nil {
		t.Fatal(err)
	}
	if _, err := d.Snapshot(t.Context(), path, SnapshotOptions{}); err == nil || !strings.Contains(err.Error(), "--force") {
		t.Errorf("%v", err)
	}
	if text, _ := os.ReadFile(path); string(text) != "precious" {
		t.Errorf("it holds %q", text)
	}
	if _, err := d.Snapshot(t.Context(), path, SnapshotOptions{Overwrite: true}); err != nil {
		t.Fatal(err)
	}
	if st, _ := os.Stat(path); st.Mode().Perm() != 0o600 {
		t.Errorf("mode %v", st.Mode())
	}
	for _, self := range []string{Name, Name + "-wal", Name + "-shm"} {
		if _, err := d.Snapshot(t.Context(), filepath.Join(dir, self), SnapshotOptions{Overwrite: true}); err == nil || !strings.Contains(err.Error(), "the database itself") {
			t.Errorf("%s: %v", self, err)
		}
	}
	for _, bad := range []string{out, filepath.Join(out, "nowhere", "s.db"), filepath.Join(path, "s.db")} {
		if _, err := d.Snapshot(t.Context(), bad, SnapshotOptions{}); err == nil || !strings.Contains(err.Error(), "name a file in") {
			t.Errorf("%s: %v", bad, err)
		}
	}
	if got := names(t, out); got != "s.db" {
		t.Errorf("left behind: %s", got)
	}
}

func TestWhatAKilledSnapshotLeftIsSweptAway(t *testing.T) {
	out := t.TempDir()
	path := filepath.Join(out, "s.db")
	dead, alive := path+".part.999999999", path+".part."+strconv.Itoa(os.Getppid())
	for _, p := range []string{dead, dead + "-journal", alive, path + ".part.mine"} {
		if err := os.WriteFile(p, nil, 0o600); err != nil {
			t.Fatal(err)
		}
	}
	if _, err := filled(t, filepath.Join(t.TempDir(), Name), "x").Snapshot(t.Context(), path, SnapshotOptions{}); err != nil {
		t.Fatal(err)
	}
	if got := names(t, out); got != "s.db "+filepath.Base(alive)+" s.db.part.mine" && got != "s.db s.db.part.mine "+filepath.Base(alive) {
		t.Errorf("left: %s", got)
	}
}

func TestAFullDiskLeavesNothingHalfWritten(t *testing.T) {
	small := t.TempDir()
	if err := syscall.Mount("tmpfs", small, "tmpfs", 0, "size=2m"); err != nil { // an empty database and its log fit, the note below does not
		t.Skipf("only root can make a small disk: %v", err)
	}
	defer syscall.Unmount(small, 0)
	d := filled(t, filepath.Join(t.TempDir(), Name), "x")
	exec(t, d, "INSERT INTO note SELECT hex(randomblob(1000000))")
	_, err := d.Snapshot(t.Context(), filepath.Join(small, "s.db"), SnapshotOptions{})
	if err == nil || !strings.Contains(err.Error(), "no room left in "+small) {
		t.Errorf("%v", err)
	}
	if got := names(t, small); got != "" {
		t.Errorf("left: %s", got)
	}
	big := filepath.Join(t.TempDir(), "s.db")
	if _, err := d.Snapshot(t.Context(), big, SnapshotOptions{}); err != nil {
		t.Fatal(err)
	}
	little := filled(t, filepath.Join(small, Name), "old")
	little.Close()
	if _, err := Replace(t.Context(), filepath.Join(small, Name), big); err == nil || !strings.Contains(err.Error(), "no room left in "+small) {
		t.Errorf("%v", err)
	}
	if got := says(t, filepath.Join(small, Name)); got != "old" {
		t.Errorf("the database says %q", got)
	}
	if got := names(t, small); got != Name {
		t.Errorf("left: %s", got)
	}
}

func TestASnapshotThatIsCalledOffLeavesNothing(t *testing.T) {
	d := filled(t, filepath.Join(t.TempDir(), Name), "x")
	exec(t, d, "INSERT INTO note SELECT hex(randomblob(1000000)) FROM (VALUES (1), (2), (3), (4), (5), (6), (7), (8))")
	ctx, cancel := context.WithCancel(t.Context())
	out := t.TempDir()
	go cancel()
	if _, err := d.Snapshot(ctx, filepath.Join(out, "s.db"), SnapshotOptions{}); err == nil {
		t.Skip("it was faster")
	}
	if got := names(t, out); got != "" {
		t.Errorf("left: %s", got)
	}
}

// Two tables are always written in one transaction, in order: a snapshot that holds k rows of one holds the same k of the other.
func TestSnapshotsUnderLoadHoldOneStateEach(t *testing.T) {
	d, err := Open(t.Context(), filepath.Join(t.TempDir(), Name))
	if err != nil {
		t.Fatal(err)
	}
	defer d.Close()
	exec(t, d, "CREATE TABLE a (id INTEGER PRIMARY KEY, pad TEXT)")
	exec(t, d, "CREATE TABLE b (id INTEGER PRIMARY KEY, pad TEXT)")
	var quit atomic.Bool
	var wg sync.WaitGroup
	for range 8 {
		wg.Go(func() {
			for !quit.Load() {
				if err := d.Tx(t.Context(), func(tx *sql.Tx) error {
					if _, err := tx.Exec("INSERT INTO a (pad) VALUES (hex(randomblob(200)))"); err != nil {
						return err
					}
					_, err := tx.Exec("INSERT INTO b (pad) SELECT pad FROM a ORDER BY id DESC LIMIT 1")
					return err
				}); err != nil {
					t.Error(err)
					return
				}
			}
		})
	}
	path := filepath.Join(t.TempDir(), "s.db")
	snapshots := 15
	if testing.Short() {
		snapshots = 4
	}
	last := int64(-1)
	for range snapshots {
		if _, err := d.Snapshot(t.Context(), path, SnapshotOptions{Overwrite: true}); err != nil {
			t.Fatal(err) // it includes integrity_check
		}
		s, err := OpenRead(t.Context(), path)
		if err != nil {
			t.Fatal(err)
		}
		var rows, most, same int64
		if err := s.Read().QueryRow(`SELECT (SELECT count(*) FROM a), (SELECT ifnull(max(id), 0) FROM a),
			(SELECT count(*) FROM a JOIN b USING (id) WHERE a.pad = b.pad) + (SELECT count(*) FROM b) - (SELECT count(*) FROM a)`).Scan(&rows, &most, &same); err != nil {
			t.Fatal(err)
		}
		s.Close()
		if rows != most || rows != same || rows < last {
			t.Errorf("%d rows, the highest is %d, %d are in both; the snapshot before had %d", rows, most, same, last)
		}
		last = rows
	}
	quit.Store(true)
	wg.Wait()
	if last <= 0 {
		t.Error("nothing was written meanwhile")
	}
}
