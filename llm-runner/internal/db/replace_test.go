package db

import (
	"context"
	"errors"
	"os"
	process "os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"syscall"
	"testing"
)

// TestMain makes the test binary restore and die at a step where the environment says so.
func TestMain(m *testing.M) {
	step, path := os.Getenv("DIE_AT"), os.Getenv("DIE_PATH")
	if step == "" {
		os.Exit(m.Run())
	}
	reached = func(at string) {
		if at == step {
			syscall.Kill(os.Getpid(), syscall.SIGKILL)
			select {}
		}
	}
	if _, err := Replace(context.Background(), path, os.Getenv("DIE_SNAPSHOT")); err != nil {
		os.Stderr.WriteString(err.Error())
		os.Exit(1)
	}
	os.Exit(0)
}

// says opens the database as the program does and returns what its table note says.
func says(t *testing.T, path string) string {
	t.Helper()
	d, err := Open(t.Context(), path)
	if err != nil {
		t.Fatal(err)
	}
	defer d.Close()
	if err := integrity(t.Context(), d.Read()); err != nil {
		t.Fatal(err)
	}
	var what string
	if err := d.Read().QueryRow("SELECT x FROM note").Scan(&what); err != nil {
		t.Fatal(err)
	}
	return what
}

// leaveLog makes the database at path as one that was killed leaves it: what is committed last stands in the log only.
func leaveLog(t *testing.T, path, what string) {
	t.Helper()
	from := filepath.Join(t.TempDir(), Name)
	d := filled(t, from, what)
	for _, suffix := range []string{"", "-wal"} {
		if err := copyFile(t.Context(), path+suffix, from+suffix); err != nil {
			t.Fatal(err)
		}
	}
	d.Close()
	if st, err := os.Stat(path + "-wal"); err != nil || st.Size() == 0 {
		t.Fatalf("no log: %v", err)
	}
}

func kept(t *testing.T, path string) []string {
	t.Helper()
	all, err := filepath.Glob(path + ".before-restore-*")
	if err != nil {
		t.Fatal(err)
	}
	return all
}

func TestARestoreThatIsKilledLeavesTheOldOrTheNewDatabase(t *testing.T) {
	if testing.Short() {
		t.Skip("kills processes")
	}
	snapshot := snapshotOf(t, "new")
	for _, tt := range []struct{ step, want string }{
		{"copied", "old"}, {"settled", "old"}, {"folded", "old"}, {"linked", "old"}, {"set aside", "old"},
		{"renamed", "new"}, {"synced", "new"}, {"opened", "new"}, {"the end", "new"},
	} {
		t.Run(tt.step, func(t *testing.T) {
			dir := t.TempDir()
			path := filepath.Join(dir, Name)
			leaveLog(t, path, "old")
			cmd := process.CommandContext(t.Context(), os.Args[0])
			cmd.Env = append(os.Environ(), "DIE_AT="+tt.step, "DIE_PATH="+path, "DIE_SNAPSHOT="+snapshot)
			out, err := cmd.CombinedOutput()
			if dead := !cmd.ProcessState.Success() && cmd.ProcessState.Sys().(syscall.WaitStatus).Signal() == syscall.SIGKILL; dead != (tt.step != "the end") {
				t.Fatalf("%v: %s", err, out)
			}
			if !exists(path) {
				t.Fatal("there is no database")
			}
			if got := says(t, path); got != tt.want {
				t.Errorf("the database says %q, want %q", got, tt.want)
			}
			switch all := kept(t, path); {
			case tt.want == "old" && names(t, dir) != Name:
				t.Errorf("left behind: %s", names(t, dir))
			case tt.want == "new" && len(all) != 1:
				t.Errorf("kept: %v", all)
			case tt.want == "new" && says(t, all[0]) != "old":
				t.Error("what is kept is not the old database")
			}
			done, err := Replace(t.Context(), path, snapshot) // and once more to the end
			if err != nil || done.Kept == "" || says(t, path) != "new" {
				t.Errorf("restored again: %+v, %v", done, err)
			}
		})
	}
}

func TestARestoreMigratesAnOlderSnapshot(t *testing.T) {
	all, err := load(migrations, sqliteDir)
	if err != nil {
		t.Fatal(err)
	}
	dir := t.TempDir()
	old := filepath.Join(dir, "old.db")
	h, err := open(old, 1, "")
	if err != nil {
		t.Fatal(err)
	}
	for _, q := range []string{all[0].sql, "CREATE TABLE note (x TEXT)", "INSERT INTO note VALUES ('from long ago')", "PRAGMA user_version = 1"} {
		if _, err := h.Exec(q); err != nil {
			t.Fatal(err)
		}
	}
	h.Close()
	path := filepath.Join(t.TempDir(), Name)
	done, err := Replace(t.Context(), path, old)
	if err != nil {
		t.Fatal(err)
	}
	if done.Kept != "" || done.Schema != 1 || len(done.Applied) != len(all)-1 {
		t.Errorf("%+v", done)
	}
	if got := says(t, path); got != "from long ago" {
		t.Errorf("it says %q", got)
	}
	if got := names(t, filepath.Dir(path)); got != Name {
		t.Errorf("left behind: %s", got)
	}
	if got := names(t, dir); got != "old.db" {
		t.Errorf("beside the snapshot: %s", got)
	}
}

func TestWhatIsNoSnapshotOfOursIsRefused(t *testing.T) {
	good := snapshotOf(t, "new")
	whole, err := os.ReadFile(good)
	if err != nil {
		t.Fatal(err)
	}
	all, err := load(migrations, sqliteDir)
	if err != nil {
		t.Fatal(err)
	}
	newest := all[len(all)-1].version
	change := func(q string) func(string) {
		return func(path string) {
			if err := os.WriteFile(path, whole, 0o600); err != nil {
				t.Fatal(err)
			}
			h, err := open(path, 1, "")
			if err != nil {
				t.Fatal(err)
			}
			defer h.Close()
			if _, err := h.Exec(q); err != nil {
				t.Fatal(err)
			}
		}
	}
	write := func(text []byte) func(string) {
		return func(path string) {
			if err := os.WriteFile(path, text, 0o600); err != nil {
				t.Fatal(err)
			}
		}
	}
	spoiled := append([]byte(nil), whole...)
	for i := 3 * 4096; i < 5*4096; i++ {
		spoiled[i] ^= 0x5a
	}
	for name, tt := range map[string]struct {
		make func(path string)
		says string
	}{
		"nothing":         {func(string) {}, "no such file"},
		"a folder":        {func(p string) { os.Mkdir(p, 0o700) }, "is not a file"},
		"an empty file":   {write(nil), "not a database"},
		"text":            {write([]byte("Dear diary, this is not a database at all.")), "not a database"},
		"half of it":      {write(whole[:len(whole)/2]), "damaged"},
		"the head alone":  {write(whole[:100]), "damaged"},
		"spoiled":         {write(spoiled), "damaged"},
		"a newer schema":  {change("PRAGMA user_version = " + strconv.Itoa(newest+1)), "newer version"},
		"another program": {change("DROP TABLE attempts"), "it has no attempts"},
		"no schema":       {change("PRAGMA user_version = 0"), "not one of llm-runner"},
		"a log beside it": {func(p string) { write(whole)(p); write([]byte("x"))(p + "-wal") }, "lies beside it"},
	} {
		t.Run(name, func(t *testing.T) {
			dir := t.TempDir()
			path, bad := filepath.Join(dir, Name), filepath.Join(t.TempDir(), "bad.db")
			filled(t, path, "old").Close()
			tt.make(bad)
			if _, err := Replace(t.Context(), path, bad); err == nil || !strings.Contains(err.Error(), tt.says) {
				t.Errorf("got %v, want %q", err, tt.says)
			}
			if got := names(t, dir); got != Name {
				t.Errorf("left behind: %s", got)
			}
			if got := says(t, path); got != "old" {
				t.Errorf("the database says %q", got)
			}
		})
	}
	path := filepath.Join(t.TempDir(), Name)
	filled(t, path, "old").Close()
	if _, err := Replace(t.Context(), path, path); err == nil || !strings.Contains(err.Error(), "the database itself") {
		t.Errorf("%v", err)
	}
}

func TestADamagedDatabaseIsKeptWithItsLogAndReplaced(t *testing.T) {
	path := filepath.Join(t.TempDir(), Name)
	for p, text := range map[string]string{path: strings.Repeat("rubbish ", 1000), path + "-wal": "log", path + "-shm": "index"} {
		if err := os.WriteFile(p, []byte(text), 0o600); err != nil {
			t.Fatal(err)
		}
	}
	done, err := Replace(t.Context(), path, snapshotOf(t, "new"))
	if err != nil {
		t.Fatal(err)
	}
	if got := says(t, path); got != "new" {
		t.Errorf("it says %q", got)
	}
	if text, err := os.ReadFile(done.Kept); err != nil || !strings.HasPrefix(string(text), "rubbish") {
		t.Errorf("kept: %.20q, %v", text, err)
	}
	if text, err := os.ReadFile(done.Kept + "-wal"); err != nil || string(text) != "log" {
		t.Errorf("its log: %.20q, %v", text, err)
	}
}

func TestALogWithoutADatabaseIsNotTakenForTheNewOnes(t *testing.T) {
	path := filepath.Join(t.TempDir(), Name)
	leaveLog(t, path, "stale")
	if err := os.Remove(path); err != nil {
		t.Fatal(err)
	}
	done, err := Replace(t.Context(), path, snapshotOf(t, "new"))
	if err != nil || done.Kept != "" {
		t.Fatalf("%+v, %v", done, err)
	}
	if got := says(t, path); got != "new" {
		t.Errorf("it says %q", got)
	}
}

func TestADatabaseThatSomebodyReadsIsNotReplaced(t *testing.T) {
	path := filepath.Join(t.TempDir(), Name)
	d := filled(t, path, "old")
	tx, err := d.Read().Begin()
	if err != nil {
		t.Fatal(err)
	}
	defer tx.Rollback()
	var n int
	if err := tx.QueryRow("SELECT count(*) FROM note").Scan(&n); err != nil {
		t.Fatal(err)
	}
	if _, err := Replace(t.Context(), path, snapshotOf(t, "new")); err == nil || !strings.Contains(err.Error(), "another program has") {
		t.Errorf("%v", err)
	}
	tx.Rollback()
	d.Close()
	if got := says(t, path); got != "old" {
		t.Errorf("it says %q", got)
	}
}

func TestAFileSystemWithoutSecondNamesGetsACopy(t *testing.T) {
	link = func(string, string) error { return errors.ErrUnsupported }
	defer func() { link = os.Link }()
	path := filepath.Join(t.TempDir(), Name)
	leaveLog(t, path, "old")
	done, err := Replace(t.Context(), path, snapshotOf(t, "new"))
	if err != nil {
		t.Fatal(err)
	}
	if says(t, path) != "new" || says(t, done.Kept) != "old" {
		t.Errorf("%s: %q, %s: %q", path, says(t, path), done.Kept, says(t, done.Kept))
	}
	if got := names(t, filepath.Dir(path)); got != Name+" "+filepath.Base(done.Kept) {
		t.Errorf("left behind: %s", got)
	}
}

func TestWhatAKilledRestoreLeftIsNotRestored(t *testing.T) {
	path := filepath.Join(t.TempDir(), Name)
	filled(t, path, "old").Close()
	if err := copyFile(t.Context(), path+restoring, path); err != nil {
		t.Fatal(err)
	}
	if _, err := Replace(t.Context(), path, path+restoring); err == nil || !strings.Contains(err.Error(), "a killed restore left") {
		t.Errorf("%v", err)
	}
}

func TestTheOldDatabaseComesBackWhenTheNewOneDoesNotOpen(t *testing.T) {
	defer func() { reached = func(string) {} }()
	for _, step := range []string{"renamed", "set aside"} {
		dir := t.TempDir()
		path := filepath.Join(dir, Name)
		filled(t, path, "old").Close()
		ctx, cancel := context.WithCancel(t.Context())
		reached = func(at string) {
			if at == step && step == "renamed" {
				cancel() // opening fails from here on
			} else if at == step {
				os.Remove(path + restoring) // the rename fails
			}
		}
		_, err := Replace(ctx, path, snapshotOf(t, "new"))
		cancel()
		if err == nil || step == "renamed" && !errors.Is(err, context.Canceled) {
			t.Errorf("%s: %v", step, err)
		}
		if got := says(t, path); got != "old" {
			t.Errorf("%s: it says %q", step, got)
		}
		if got := names(t, dir); got != Name {
			t.Errorf("%s: left behind: %s", step, got)
		}
	}
}
