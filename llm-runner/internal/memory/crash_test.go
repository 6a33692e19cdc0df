package memory

import (
	"context"
	"fmt"
	"iter"
	"maps"
	"math/rand/v2"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"syscall"
	"testing"

	"home.arpa/lab/llm-runner/internal/db"
	"home.arpa/lab/llm-runner/internal/llm"
)

// everyPoint has every point tried instead of one of each name.
var everyPoint = false

// What a child process is told: the folder it works in, the play, and the point at which it kills itself ("kept 3" or "17", the seventeenth
// of its life; "" none).
const crashDir, crashPlay, crashStop = "MEMORY_CRASH_DIR", "MEMORY_CRASH_PLAY", "MEMORY_CRASH_STOP"

// note writes a line into a file that outlives the process.
func note(t testing.TB, dir, file, line string) {
	f, err := os.OpenFile(filepath.Join(dir, file), os.O_CREATE|os.O_APPEND|os.O_WRONLY, 0o600)
	if err == nil {
		_, err = fmt.Fprintln(f, line) // in one write, so that it is there whole or not at all
	}
	if err == nil {
		err = f.Close()
	}
	if err != nil {
		t.Fatal(err)
	}
}

func noted(t testing.TB, dir, file string) []string {
	b, err := os.ReadFile(filepath.Join(dir, file))
	if os.IsNotExist(err) {
		return nil
	}
	if err != nil {
		t.Fatal(err)
	}
	return strings.Split(strings.TrimSpace(string(b)), "\n")
}

// telling writes down every question before it is answered.
type telling struct {
	inner llm.Provider
	asked func(question string)
	over  func()
}

func (p telling) Stream(ctx context.Context, req llm.Request) iter.Seq2[llm.Event, error] {
	return func(yield func(llm.Event, error) bool) {
		p.asked(req.Messages[1].Text())
		for ev, err := range p.inner.Stream(ctx, req) {
			if !yield(ev, err) {
				return
			}
		}
		p.over()
	}
}

// lasting is a world in a folder that outlives its process, its index in a folder of files.
func lasting(t *testing.T, dir, play string) (*world, corpus) {
	t.Helper()
	d, err := db.Open(t.Context(), filepath.Join(dir, db.Name))
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { d.Close() })
	var w *world
	var c corpus
	if play == "corpus" {
		c = loadCorpus(t)
		w = worldOn(t, d, c.answers)
		c.tell(w)
	} else {
		w = worldOn(t, d, moving)
		w.says(1, "I live in Berlin.", false)
		w.says(2, "I live in Hamburg.", false)
		w.says(3, "What time is it?", false)
		w.says(4, "Yes, I live in Hamburg.", false)
		w.says(5, "I moved to Bonn, no longer Berlin.", false)
	}
	index := filepath.Join(dir, "index")
	file := func(name string) string { return filepath.Join(index, strings.ReplaceAll(name, "/", "_")) }
	w.Put = func(_ context.Context, all ...Entry) error {
		if err := os.MkdirAll(index, 0o700); err != nil {
			return err
		}
		for _, e := range all {
			if err := os.WriteFile(file(e.Name), []byte(e.Text), 0o600); err != nil {
				return err
			}
		}
		return nil
	}
	w.Erase = func(_ context.Context, names ...string) error {
		for _, n := range names {
			if err := os.Remove(file(n)); err != nil && !os.IsNotExist(err) {
				return err
			}
		}
		return nil
	}
	w.Scrub = func(ctx context.Context) error {
		return d.Scrub(ctx, "memory_facts", "memory_sources", "memory_changes", "memory_answers")
	}
	return w, c
}

// TestCrashChild is the process that is killed.
func TestCrashChild(t *testing.T) {
	dir, play, stop := os.Getenv(crashDir), os.Getenv(crashPlay), os.Getenv(crashStop)
	if dir == "" {
		t.Skip("only as a child")
	}
	w, _ := lasting(t, dir, play)
	seen, count := map[string]int{}, 0
	pass := func(point string) {
		seen[point]++
		count++
		says := fmt.Sprint(point, " ", seen[point])
		if stop == "" {
			note(t, dir, "points", says)
		}
		if stop == says || stop == fmt.Sprint(count) {
			note(t, dir, "killed", says)
			if err := syscall.Kill(os.Getpid(), syscall.SIGKILL); err != nil {
				t.Fatal(err)
			}
			select {}
		}
	}
	w.hook = pass
	w.Provider = telling{w.model, func(q string) {
		note(t, dir, "asked", fmt.Sprintf("%q", q))
		pass("asked")
	}, func() { pass("answered") }}
	if play == "town" && len(noted(t, dir, "added")) == 0 {
		if _, err := w.Add(t.Context(), "The user's home lives in Berlin"); err != nil && !strings.Contains(err.Error(), "already") {
			t.Fatal(err)
		}
		note(t, dir, "added", "yes")
	}
	w.learn()
	if play == "town" {
		all, err := w.List(t.Context(), "")
		if err != nil {
			t.Fatal(err)
		}
		for _, f := range all {
			if strings.Contains(f.Text, "Hamburg") {
				if err := w.Forget(t.Context(), f.ID); err != nil {
					t.Fatal(err)
				}
			}
		}
	}
	note(t, dir, "ended", "yes")
}

// live runs a child until it ends or kills itself, and says which.
func live(t *testing.T, dir, play, stop string) (ended bool) {
	t.Helper()
	cmd := exec.CommandContext(t.Context(), os.Args[0], "-test.run=^TestCrashChild$")
	cmd.Env = append(os.Environ(), crashDir+"="+dir, crashPlay+"="+play, crashStop+"="+stop)
	out, err := cmd.CombinedOutput()
	ended = len(noted(t, dir, "ended")) > 0
	if status, ok := cmd.ProcessState.Sys().(syscall.WaitStatus); err != nil && (!ok || status.Signal() != syscall.SIGKILL) || ended != (err == nil) {
		t.Fatalf("stop at %q: %v\n%s", stop, err, out)
	}
	return ended
}

// againAtMost checks that no question was asked twice but those that were under way when a process was killed.
func againAtMost(t *testing.T, dir string) {
	t.Helper()
	underWay := 0
	for _, point := range noted(t, dir, "killed") {
		if strings.HasPrefix(point, "asked ") || strings.HasPrefix(point, "answered ") { // the answer was not on disk
			underWay++
		}
	}
	seen := map[string]bool{}
	twice := 0
	for _, q := range noted(t, dir, "asked") {
		if seen[q] {
			twice++
		}
		seen[q] = true
	}
	if twice != underWay {
		t.Errorf("%d questions were asked again, and %d were under way: killed at %v", twice, underWay, noted(t, dir, "killed"))
	}
}

// inIndex is what the folder of the index holds.
func inIndex(t *testing.T, dir string) (all []string) {
	t.Helper()
	files, err := os.ReadDir(filepath.Join(dir, "index"))
	if err != nil {
		t.Fatal(err)
	}
	for _, f := range files {
		b, err := os.ReadFile(filepath.Join(dir, "index", f.Name()))
		if err != nil {
			t.Fatal(err)
		}
		all = append(all, string(b))
	}
	slices.Sort(all)
	return all
}

// TestKilledAgainAndAgain kills the process that learns the seeded conversations at points drawn by lot, life after life: in the end all facts
// are there once, and no question was asked twice but those that were under way.
func TestKilledAgainAndAgain(t *testing.T) {
	const seed = 8
	random := rand.New(rand.NewPCG(seed, seed))
	dir := t.TempDir()
	lives := 1
	for ; !live(t, dir, "corpus", fmt.Sprint(1+random.IntN(160))); lives++ {
		if lives > 200 {
			t.Fatal("it never ends")
		}
	}
	if lives < 3 {
		t.Errorf("only %d lives, so this test proves little", lives)
	}
	w, c := lasting(t, dir, "corpus")
	if r := w.learn(); r.Asked != 0 {
		t.Errorf("%+v", r)
	}
	c.check(t, w)
	againAtMost(t, dir)
	if got := inIndex(t, dir); !slices.Equal(got, w.texts(Current)) {
		t.Errorf("the index has %v", got)
	}
	t.Logf("killed at %v", noted(t, dir, "killed"))
}

// TestKilledAtNamedPoints kills a process that adds, compares, learns and forgets once at each point, and has the next one go on: the facts are the
// same as without, and of what is forgotten no byte is left.
func TestKilledAtNamedPoints(t *testing.T) {
	const seed = 8
	whole := t.TempDir()
	if !live(t, whole, "town", "") {
		t.Fatal("nobody stopped it")
	}
	points := noted(t, whole, "points")
	if !everyPoint {
		byName := map[string][]string{}
		for _, p := range points {
			name, _, _ := strings.Cut(p, " ")
			byName[name] = append(byName[name], p)
		}
		random := rand.New(rand.NewPCG(seed, seed))
		points = nil
		for _, name := range slices.Sorted(maps.Keys(byName)) {
			points = append(points, byName[name][random.IntN(len(byName[name]))])
		}
	}
	if len(points) < 12 {
		t.Fatalf("only %d points: %v", len(points), points)
	}
	expect, _ := lasting(t, whole, "town")
	facts := expect.texts("")
	if len(facts) < 2 || strings.Contains(strings.Join(facts, " "), "Hamburg") {
		t.Fatalf("%v", facts)
	}
	for _, point := range points {
		t.Run(point, func(t *testing.T) {
			dir := t.TempDir()
			if live(t, dir, "town", point) {
				t.Fatal("it was not killed")
			}
			if !live(t, dir, "town", "") {
				t.Fatal("it was killed again")
			}
			againAtMost(t, dir)
			w, _ := lasting(t, dir, "town")
			if got := w.texts(""); !slices.Equal(got, facts) {
				t.Errorf("facts %v, without a kill %v", got, facts)
			}
			if got, want := inIndex(t, dir), w.texts(Current); !slices.Equal(got, want) {
				t.Errorf("the index has %v, should have %v", got, want)
			}
			for _, name := range []string{db.Name, db.Name + "-wal"} {
				if b, err := os.ReadFile(filepath.Join(dir, name)); err == nil && strings.Contains(string(b), "Hamburg") {
					t.Errorf("%s holds what is forgotten", name)
				}
			}
		})
	}
}
