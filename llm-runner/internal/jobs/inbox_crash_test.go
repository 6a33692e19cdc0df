package jobs

import (
	"context"
	"errors"
	"fmt"
	"math/rand/v2"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"testing"
	"time"

	"home.arpa/lab/llm-runner/internal/db"
	"home.arpa/lab/llm-runner/internal/llm"
	"home.arpa/lab/llm-runner/internal/provider/openai"
)

// vaultVictim is the process that the tests below kill: it is the inbox of the vault in dir, with a clock that runs fast. In
// $JOBS_STOP stands a step and how often it is reached before the process stands still there ("renamed 1").
func vaultVictim(path, dir string) {
	t := &dying{}
	s := open(t, path, &busyOnQuota{openai.New(openai.Config{Name: "fake", URL: os.Getenv("JOBS_UPSTREAM"), Key: "k"})})
	f := DefaultFolders
	f.Vault = dir
	s.config.Folders = &f
	in := NewInbox(s)
	reached := map[string]int{}
	in.reached = func(step string) {
		reached[step]++
		if says := fmt.Sprint(step, " ", reached[step]); says == os.Getenv("JOBS_STOP") {
			fmt.Println("at " + says)
			select {}
		}
	}
	fmt.Println("ready")
	for now, quiet := time.Now(), false; ; now = now.Add(time.Second) {
		if _, err := in.pass(context.Background(), now); err != nil {
			t.Fatal(err)
		}
		if shown(t, s, dir) {
			if !quiet {
				fmt.Println("all is shown")
			}
			quiet = true
		}
		time.Sleep(2 * time.Millisecond) // the victim's clock: it is killed before long
	}
}

// shown says that nothing is under way in a vault.
func shown(t testing.TB, s *Service, dir string) bool {
	for _, f := range []string{DefaultFolders.Queue, DefaultFolders.Active} {
		if all, err := filepath.Glob(filepath.Join(dir, f, "*.md")); err != nil || len(all) > 0 {
			return false
		}
	}
	due, err := dueJobs(context.Background(), s.db.Read(), 1)
	if err != nil {
		t.Fatal(err)
	}
	n, err := s.Counts(context.Background())
	if err != nil {
		t.Fatal(err)
	}
	return len(due) == 0 && n[Queued]+n[Running]+n[Held] == 0
}

// steps are the named points in the way of a file.
var steps = []string{"before rename 1", "renamed 1", "renamed 2", "renamed 3", "submitted 1", "submitted 2", "due 1", "due 2", "destined 1", "destined 2",
	"note written 1", "linked 1", "moved 1", "moved 2", "reason written 1", "reason written 2"}

func TestKilledAtAnyStepOfAFilesWayNothingIsLostOrDoneTwice(t *testing.T) {
	if testing.Short() {
		t.Skip("starts processes")
	}
	for _, step := range steps {
		t.Run(step, func(t *testing.T) {
			t.Parallel()
			path, dir := filepath.Join(t.TempDir(), db.Name), t.TempDir()
			f, url := upstream(t)
			b := &box{T: t, dir: dir}
			b.write("_queue/good.md", "---\ntitle: good\n---\none\n")
			b.write("_queue/bad.md", "---\ncolour: red\n---\none\n")
			b.write("_queue/poor.md", "---\nrequires: nobody\noutput: x/y.md\n---\npoor\n")
			p := run(t, path, url, "JOBS_VAULT="+dir, "JOBS_STOP="+step)
			p.await("at " + step)
			p.kill()
			p = run(t, path, url, "JOBS_VAULT="+dir)
			p.await("all is shown")
			p.kill()

			s := openQuietly(t, path)
			good := jobsBy(t, s, "good.md")
			poor := jobsBy(t, s, "poor.md")
			if len(good) != 1 || len(poor) != 1 || len(jobsBy(t, s, "bad.md")) != 0 || good[0].State != Done || poor[0].State != Failed ||
				good[0].File != "_completed/good.md" || poor[0].File != "_failed/poor.md" {
				t.Fatalf("%+v\n%+v", good, poor)
			}
			got := slices.DeleteFunc(b.files(), func(f string) bool { return filepath.Base(f) == scratch })
			want := []string{"_completed/good.md", "_failed/bad.md", "_failed/bad.reason.md", "_failed/poor.md", "_failed/poor.reason.md", good[0].Note}
			if !slices.Equal(got, want) {
				t.Errorf("the vault has\n%s", strings.Join(got, "\n"))
			}
			if n := calls(f, "one"); n < 1 || n > 2 { // a call under way when the process was killed is made again
				t.Errorf("%d calls", n)
			}
			link := "[[" + strings.TrimSuffix(good[0].Note, ".md") + "]]"
			if text := b.read("_completed/good.md"); strings.Count(text, link) != 1 || !strings.HasSuffix(text, "---\none\n") {
				t.Error(text)
			}
			if text := b.read(good[0].Note); !strings.Contains(text, "[[_completed/good]]") || !strings.HasSuffix(text, "---\n\nfirst\n") {
				t.Error(text)
			}
		})
	}
}

// jobsBy returns the jobs that a file became.
func jobsBy(t *testing.T, d *db.DB, dropped string) (found []Job) {
	t.Helper()
	all, err := list(t.Context(), d.Read(), Filter{Limit: 1 << 20})
	if err != nil {
		t.Fatal(err)
	}
	for _, j := range all {
		if j.Dropped == dropped {
			found = append(found, j)
		}
	}
	return found
}

func TestKilledAtRandomEveryDroppedFileIsAnsweredOnce(t *testing.T) {
	if testing.Short() {
		t.Skip("starts processes")
	}
	const seed, kills, files = 20261123, 20, 40
	random := rand.New(rand.NewPCG(seed, seed))
	path, dir := filepath.Join(t.TempDir(), db.Name), t.TempDir()
	_, url := upstream(t)
	b := &box{T: t, dir: dir}
	dropped := 0
	for range kills {
		for range files / kills {
			dropped++
			b.write("_queue/n"+strconv.Itoa(dropped)+".md", "one "+strconv.Itoa(dropped))
		}
		p := run(t, path, url, "JOBS_VAULT="+dir)
		p.await("ready")
		time.Sleep(time.Duration(random.IntN(60)) * time.Millisecond) // the moment of the kill
		p.kill()
	}
	p := run(t, path, url, "JOBS_VAULT="+dir)
	p.await("all is shown")
	p.kill()
	s := openQuietly(t, path)
	if n, err := counts(t.Context(), s.Read()); err != nil || len(n) != 1 || n[Done] != files {
		t.Fatal(n, err)
	}
	have := b.files()
	notes := 0
	for n := range dropped {
		name := "n" + strconv.Itoa(n+1) + ".md"
		found := jobsBy(t, s, name)
		if len(found) != 1 || found[0].File != "_completed/"+name || !slices.Contains(have, found[0].Note) {
			t.Errorf("%s: %+v", name, found)
		}
	}
	for _, f := range have {
		if strings.HasPrefix(f, "runner-outputs/") && filepath.Base(f) != scratch {
			notes++
		}
	}
	if notes != files {
		t.Errorf("%d notes for %d files", notes, files)
	}
}

var errStopped = errors.New("stopped")

// stopAt has the inbox break off at a step, as if its process were killed there: what comes after is a new inbox on the
// same vault and database.
func (b *box) stopAt(step string) {
	b.Helper()
	b.reached = func(s string) {
		if s == step {
			panic(errStopped)
		}
	}
	func() {
		defer func() {
			if p := recover(); p != errStopped {
				b.Fatalf("it did not come to %q: %v", step, p)
			}
		}()
		b.pass()
	}()
	b.restart()
}

func TestStoppedWhileARetriedFileMovesBackNothingIsLost(t *testing.T) {
	for _, step := range []string{"due", "destined", "moved"} {
		t.Run(step, func(t *testing.T) {
			wait := make(chan struct{})
			b := newBox(t, func(ctx context.Context, req llm.Request, n int) (string, error) {
				if n > 1 {
					<-wait
				}
				return refuseFirst(ctx, req, n)
			})
			b.write("_queue/a.md", "x")
			b.settle()
			b.end(1, Failed)
			if _, err := b.s.Retry(t.Context(), 1); err != nil {
				t.Fatal(err)
			}
			b.stopAt(step)
			b.settle()
			b.has("_active/a.md")
			close(wait)
			j := b.end(1)
			b.has("_completed/a.md", j.Note)
			if n, err := b.s.Counts(t.Context()); err != nil || n[Done] != 1 || len(n) != 1 {
				t.Error(n, err)
			}
		})
	}
}
