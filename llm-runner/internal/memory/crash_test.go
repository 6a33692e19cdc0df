package memory

import (
	"bufio"
	"context"
	"fmt"
	"iter"
	"math/rand/v2"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"home.arpa/lab/llm-runner/internal/db"
	"home.arpa/lab/llm-runner/internal/llm"
)

// crashDir names the folder in which a child process learns until it is killed.
const crashDir = "MEMORY_CRASH_DIR"

// telling writes down every question before it is answered.
type telling struct {
	inner llm.Provider
	log   *os.File
}

func (p telling) Stream(ctx context.Context, req llm.Request) iter.Seq2[llm.Event, error] {
	return func(yield func(llm.Event, error) bool) {
		fmt.Fprintf(p.log, "%q\n", req.Messages[1].Text()) // in one write, so that it is there whole or not at all
		time.Sleep(time.Millisecond)                       // as a model takes its time
		for ev, err := range p.inner.Stream(ctx, req) {
			if !yield(ev, err) {
				return
			}
		}
	}
}

// crashWorld is a world in a folder that outlives its process.
func crashWorld(t *testing.T, dir string) (*world, corpus) {
	t.Helper()
	d, err := db.Open(t.Context(), filepath.Join(dir, db.Name))
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { d.Close() })
	c := loadCorpus(t)
	w := worldOn(t, d, c.answers)
	c.tell(w)
	log, err := os.OpenFile(filepath.Join(dir, "asked"), os.O_CREATE|os.O_APPEND|os.O_WRONLY, 0o600)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { log.Close() })
	w.Provider = telling{w.model, log}
	return w, c
}

// TestCrashChild is the process that is killed.
func TestCrashChild(t *testing.T) {
	dir := os.Getenv(crashDir)
	if dir == "" {
		t.Skip("only as a child")
	}
	w, _ := crashWorld(t, dir)
	fmt.Println("begun")
	w.learn()
	fmt.Println("done")
}

// TestKilledAnywhere kills the process that learns, again and again: in the end all facts are there once, and no question was asked twice but
// one that was under way.
func TestKilledAnywhere(t *testing.T) {
	if testing.Short() {
		t.Skip("kills processes")
	}
	dir := t.TempDir()
	kills := 0
	for done := false; !done; {
		cmd := exec.CommandContext(t.Context(), os.Args[0], "-test.run=^TestCrashChild$", "-test.v")
		cmd.Env = append(os.Environ(), crashDir+"="+dir)
		out, err := cmd.StdoutPipe()
		if err != nil {
			t.Fatal(err)
		}
		if err := cmd.Start(); err != nil {
			t.Fatal(err)
		}
		lines := bufio.NewScanner(out)
		for lines.Scan() && !strings.Contains(lines.Text(), "begun") {
		}
		// Later each time: a slow machine gets to its end too.
		kill := time.AfterFunc(time.Duration(20+rand.IntN(120)+10*kills)*time.Millisecond, func() { cmd.Process.Kill() }) //nolint:errcheck // it may have ended
		for lines.Scan() {
			done = done || strings.Contains(lines.Text(), "done")
		}
		cmd.Wait() //nolint:errcheck // it was killed
		kill.Stop()
		if !done {
			kills++
		}
		if kills > 100 {
			t.Fatal("it never ends")
		}
	}
	if kills == 0 {
		t.Error("nothing was killed, so this test proves nothing")
	}
	w, c := crashWorld(t, dir)
	if r := w.learn(); r.Asked != 0 {
		t.Errorf("%+v", r)
	}
	w.model.asked = nil
	c.check(t, w)
	asked, err := os.ReadFile(filepath.Join(dir, "asked"))
	if err != nil {
		t.Fatal(err)
	}
	seen, twice := map[string]int{}, 0
	for line := range strings.Lines(string(asked)) {
		if seen[line]++; seen[line] > 1 {
			twice++
		}
	}
	if twice > kills {
		t.Errorf("%d questions were asked again, and only %d were under way", twice, kills)
	}
	t.Logf("killed %d times; %d of %d questions asked again", kills, twice, len(seen))
}
