package agent

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"math/rand/v2"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"syscall"
	"testing"
	"testing/fstest"
	"time"

	"home.arpa/lab/llm-runner/internal/llm"
	"home.arpa/lab/llm-runner/internal/toolbox"
)

func TestMain(m *testing.M) {
	if dir := os.Getenv("AGENT_VICTIM"); dir != "" {
		victim(dir)
		return
	}
	os.Exit(m.Run())
}

// everyPoint has every point tried instead of some.
var everyPoint = false

// dying is a testing.TB for the process that is killed.
type dying struct{ testing.TB }

func (dying) Helper()                  {}
func (dying) Cleanup(func())           {}
func (dying) Context() context.Context { return context.Background() }
func (dying) Fatal(args ...any)        { panic(fmt.Sprint(args...)) }
func (dying) Fatalf(f string, a ...any) {
	panic(fmt.Sprintf(f, a...))
}

// note writes a line into a file that outlives the process.
func note(dir, file, line string) {
	f, err := os.OpenFile(filepath.Join(dir, file), os.O_APPEND|os.O_CREATE|os.O_WRONLY, 0o600)
	if err != nil {
		panic(err)
	}
	if _, err := f.WriteString(strings.ReplaceAll(line, "\n", " ") + "\n"); err != nil {
		panic(err)
	}
	f.Close()
}

func noted(dir, file string) []string {
	text, err := os.ReadFile(filepath.Join(dir, file))
	if err != nil {
		return nil
	}
	return strings.Split(strings.TrimSpace(string(text)), "\n")
}

// filed is a sink whose posts outlive the process.
type filed struct{ dir string }

func (filed) Name() string { return "Discord" }
func (filed) Max() int     { return 400 }
func (s filed) Send(_ context.Context, text string) (time.Duration, error) {
	note(s.dir, "posts", text)
	return 0, nil
}

// victim is the process that the tests below have killed: four agents, due one after the other. At the point that AGENT_STOP names it kills itself,
// as nobody can prepare for. It works until all has ended.
func victim(dir string) {
	b := &bench{TB: dying{}, path: filepath.Join(dir, "runner.db"), vault: filepath.Join(dir, "vault"), posts: &sink{}, model: &model{}, box: true, stop: func() {}}
	b.files = fstest.MapFS{}
	for name, text := range map[string]string{
		"briefing": briefingFile, "boss": "---\nschedule: \"2 7 * * *\"\ndeliver: [vault, discord]\ntools: [agent_clerk]\n---\nBoss.\n", "clerk": "---\ntools: [look]\n---\nClerk.\n",
		"research": "---\nkind: research\ntitle: Research\nschedule: \"4 7 * * *\"\ndeliver: [vault, discord]\n---\n", "memory": "---\nkind: memory\nschedule: \"6 7 * * *\"\ndeliver: [vault]\n---\n",
	} {
		b.write(name, text)
	}
	b.at(time.Date(2026, 2, 2, 5, 59, 0, 0, time.UTC))
	b.config.Facts = eventful()
	feed := b.config.Facts.Feed
	b.config.Facts.Feed = func(ctx context.Context, url string) ([]Headline, error) { // none at the minute that lies between a run and its repetition
		all, err := feed(ctx, url)
		for i := range all {
			if !all[i].At.IsZero() {
				all[i].At = all[i].At.Add(30 * time.Minute)
			}
		}
		return all, err
	}
	b.model.answer = func(_ int, req llm.Request) (string, error) {
		who := strings.TrimSuffix(req.Messages[1].Text(), ".")
		last := req.Messages[len(req.Messages)-1]
		note(dir, "asked", fmt.Sprint(who, " ", last.Role))
		switch {
		case last.Role == llm.Tool:
			return who + " heard it.", nil
		case who == "Boss":
			return `call agent_clerk {"task":"count"}`, nil
		case who == "Clerk":
			return `call look {}`, nil
		}
		return "A backup failed.", nil
	}
	d := &desk{note: "- Heat pumps\n- Tariffs\n"}
	b.config.Desk = d.desk()
	b.config.Desk.Submit = func(_ context.Context, topic, key string) (int64, error) { // as the queue does: one key, one job
		all := noted(dir, "jobs")
		if i := slices.Index(all, key); i >= 0 {
			return int64(i + 1), nil
		}
		note(dir, "jobs", key)
		return int64(len(all) + 1), nil
	}
	b.config.Desk.Result = func(context.Context, int64) (Finding, error) {
		return Finding{Ended: true, Answer: "It is so [1].", Sources: []llm.Citation{{Path: "a.md"}}}, nil
	}
	b.config.Learn = func(context.Context, string) (string, Spent, error) {
		note(dir, "learnt", "once")
		return "1 fact", Spent{}, nil
	}
	var mu sync.Mutex
	seen := map[string]int{}
	b.hooked = func(point string) {
		mu.Lock()
		defer mu.Unlock()
		seen[point]++
		says := fmt.Sprint(point, " ", seen[point])
		if says == os.Getenv("AGENT_STOP") {
			if err := syscall.Kill(os.Getpid(), syscall.SIGKILL); err != nil {
				panic(err)
			}
			select {}
		}
		if os.Getenv("AGENT_STOP") == "" {
			note(dir, "points", says)
		}
	}
	b.sink = filed{dir}
	b.tools = []toolbox.Tool{{Name: "look", Policy: toolbox.Allow, Schema: []byte(`{"type":"object"}`), Run: func(context.Context, toolbox.Call) (toolbox.Result, error) {
		note(dir, "looked", "once")
		return toolbox.Result{Text: "a thing"}, nil
	}}}
	b.start()
	b.settle()
	b.until(time.Date(2026, 2, 2, 6, 10, 0, 0, time.UTC))
	b.settle()
	note(dir, "ended", "yes")
	os.Exit(0)
}

// play runs the victim; stop is the point at which it kills itself, "" it works to the end.
func play(t *testing.T, dir, stop string) {
	t.Helper()
	ctx, cancel := context.WithTimeout(t.Context(), 90*time.Second)
	defer cancel()
	cmd := exec.CommandContext(ctx, os.Args[0], "-test.run=^$")
	cmd.Env = append(os.Environ(), "AGENT_VICTIM="+dir, "AGENT_STOP="+stop)
	var out bytes.Buffer
	cmd.Stdout, cmd.Stderr = &out, &out
	err := cmd.Run()
	var exit *exec.ExitError
	if stop != "" && errors.As(err, &exit) && exit.Sys().(syscall.WaitStatus).Signal() == syscall.SIGKILL {
		return
	}
	if err != nil || stop != "" {
		t.Fatalf("stop at %q: %v\n%s", stop, err, out.String())
	}
}

func counted(all []string) map[string]int {
	n := map[string]int{}
	for _, x := range all {
		n[x]++
	}
	return n
}

func TestKilledAtAnyStepNothingIsLostOrDoneTwice(t *testing.T) {
	if testing.Short() {
		t.Skip("starts processes")
	}
	first := t.TempDir()
	if err := os.Mkdir(filepath.Join(first, "vault"), 0o755); err != nil {
		t.Fatal(err)
	}
	play(t, first, "")
	points := noted(first, "points")
	slices.Sort(points)
	points = slices.Compact(points)
	posts, asked, jobs := counted(noted(first, "posts")), counted(noted(first, "asked")), noted(first, "jobs")
	if len(points) < 50 || len(posts) < 4 || len(asked) != 5 || len(jobs) != 2 {
		t.Fatalf("%d points, %d posts, asked %v, %d jobs", len(points), len(posts), asked, len(jobs))
	}
	list := func(dir string) string {
		b := &bench{TB: t, vault: filepath.Join(dir, "vault")}
		return strings.Join(slices.DeleteFunc(b.notes(), func(p string) bool { return strings.HasPrefix(filepath.Base(p), ".") }), "\n")
	}
	want := list(first)
	if !everyPoint {
		rand.New(rand.NewPCG(7, 7)).Shuffle(len(points), func(i, j int) { points[i], points[j] = points[j], points[i] })
		points = points[:5]
	}
	for _, point := range points {
		t.Run(point, func(t *testing.T) {
			dir := t.TempDir()
			if err := os.Mkdir(filepath.Join(dir, "vault"), 0o755); err != nil {
				t.Fatal(err)
			}
			play(t, dir, point)
			play(t, dir, "")
			if got := list(dir); got != want {
				t.Errorf("the vault has\n%s\nnot\n%s", got, want)
			}
			postedAgain, workedAgain := 0, 0
			for post, n := range counted(noted(dir, "posts")) {
				if postedAgain += n - 1; posts[post] != 1 {
					t.Errorf("posted %q", post)
				}
			}
			for what, n := range counted(noted(dir, "asked")) {
				if workedAgain += n - asked[what]; asked[what] == 0 {
					t.Errorf("asked %q", what)
				}
			}
			for _, file := range []string{"looked", "learnt"} {
				workedAgain += len(noted(dir, file)) - 1
			}
			// Work is done again where it was done and not kept: between a model's answer and the disk. A post is made again between the post and its
			// mark, a moment in which the process may also die of what another place is told. Everywhere else nothing is.
			may := func(points ...string) int {
				if slices.ContainsFunc(points, func(p string) bool { return strings.HasPrefix(point, p+" ") }) {
					return 1
				}
				return 0
			}
			if n := may("made"); workedAgain < 0 || workedAgain > n {
				t.Errorf("%d pieces of work were done again, and %d may be", workedAgain, n)
			}
			if n := may("sending", "sent", "marked", "prepared"); postedAgain > n {
				t.Errorf("%d posts were made again, and %d may be", postedAgain, n)
			}
			if len(counted(noted(dir, "posts"))) != len(posts) || len(noted(dir, "jobs")) != 2 {
				t.Errorf("%d posts of %d, %d jobs", len(counted(noted(dir, "posts"))), len(posts), len(noted(dir, "jobs")))
			}
			if text, err := os.ReadFile(filepath.Join(dir, "vault", "Daily", "2026-02-02.md")); err != nil || bytes.Count(text, []byte("<!-- generated: briefing -->")) != 1 {
				t.Errorf("%s, %v", text, err)
			}
		})
	}
}
