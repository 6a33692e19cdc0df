package main

import (
	"encoding/json"
	"errors"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
	"testing/iotest"
	"time"

	"home.arpa/lab/llm-runner/internal/db"
)

// marked makes a data directory whose database holds a table of one row for each mark.
func marked(t *testing.T, marks int) string {
	t.Helper()
	dir := t.TempDir()
	d, err := db.Open(t.Context(), filepath.Join(dir, db.Name))
	if err != nil {
		t.Fatal(err)
	}
	defer d.Close()
	if _, err := d.Writer().Exec("CREATE TABLE marks (pad TEXT)"); err != nil {
		t.Fatal(err)
	}
	for range marks {
		if _, err := d.Writer().Exec("INSERT INTO marks VALUES (hex(randomblob(200000)))"); err != nil {
			t.Fatal(err)
		}
	}
	return dir
}

// marks takes a snapshot, which reads everything, and returns how many marks it holds.
func marks(t *testing.T, dir string) (int64, string) {
	t.Helper()
	path := filepath.Join(t.TempDir(), "s.db")
	var out, errs strings.Builder
	if code := run(t.Context(), []string{"snapshot", path, "--json", "--data", dir}, strings.NewReader(""), &out, &errs); code != exitOK {
		t.Fatalf("snapshot: exit code %d: %s", code, errs.String())
	}
	var info db.Info
	if err := json.Unmarshal([]byte(out.String()), &info); err != nil {
		t.Fatal(err)
	}
	for _, table := range info.Tables {
		if table.Name == "marks" {
			return table.Rows, path
		}
	}
	t.Fatalf("no marks: %s", out.String())
	return 0, ""
}

// The steps at which a restore can die are taken one by one in package db; here the whole program dies at any moment.
func TestTheProgramStartsAfterARestoreThatWasKilled(t *testing.T) {
	if testing.Short() {
		t.Skip("kills processes")
	}
	_, snapshot := marks(t, marked(t, 2))
	seen := map[int64]int{}
	for i := range 12 {
		dir := marked(t, 1)
		cmd := exec.CommandContext(t.Context(), "llm-runner", "restore", snapshot, "--yes", "--data", dir)
		if err := cmd.Start(); err != nil {
			t.Fatal(err)
		}
		time.Sleep(time.Duration(i*i) * time.Millisecond) // a moment of its own each time
		cmd.Process.Kill()
		cmd.Wait()
		n, _ := marks(t, dir)
		if n != 1 && n != 2 {
			t.Fatalf("killed after %d ms: %d marks", i*i, n)
		}
		seen[n]++
		out, err := exec.CommandContext(t.Context(), "llm-runner", "ask", "exit codes", "--data", dir).CombinedOutput()
		if err != nil {
			t.Fatalf("killed after %d ms, then ask: %v\n%s", i*i, err, out)
		}
	}
	t.Logf("the old database %d times, the new one %d times", seen[1], seen[2])
}

func TestConfirm(t *testing.T) {
	for answer, want := range map[string]error{"y\n": nil, "Yes\n": nil, "n\n": errors.New("nothing was changed"), "\n": errors.New("nothing was changed"), "": errNobodyToAsk} {
		var asked strings.Builder
		c := &call{stdin: strings.NewReader(answer), stderr: &asked}
		if err := c.confirm(t.Context(), "Sure? "); (err == nil) != (want == nil) || err != nil && err.Error() != want.Error() {
			t.Errorf("%q: %v", answer, err)
		}
		if asked.String() != "Sure? " {
			t.Errorf("asked %q", asked.String())
		}
	}
	null, err := os.Open(os.DevNull)
	if err != nil {
		t.Fatal(err)
	}
	defer null.Close()
	if terminal(null) {
		t.Error("the null device was taken for a terminal")
	}
	if terminal(iotest.ErrReader(io.EOF)) {
		t.Error("a reader was taken for a terminal")
	}
}

func TestProgressIsToldAfterASecond(t *testing.T) {
	var told strings.Builder
	c := &call{stderr: &told}
	c.progress(time.Now())(1, 2)
	c.progress(time.Now().Add(-2*time.Second))(1_500_000, 3_000_000_000)
	if told.String() != "1.5 MB of about 3.0 GB written\n" {
		t.Errorf("%q", told.String())
	}
}
