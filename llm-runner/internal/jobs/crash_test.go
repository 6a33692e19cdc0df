package jobs

import (
	"bufio"
	"context"
	"fmt"
	"io"
	"iter"
	"net/http"
	"net/http/httptest"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"home.arpa/lab/llm-runner/internal/db"
	"home.arpa/lab/llm-runner/internal/fake"
	"home.arpa/lab/llm-runner/internal/fake/script"
	"home.arpa/lab/llm-runner/internal/llm"
	"home.arpa/lab/llm-runner/internal/provider/openai"
)

// TestMain is also the process that the tests below kill: it works on the database in $JOBS_CRASH, asks the upstream in
// $JOBS_UPSTREAM, submits a job for each line on standard input and says on standard output what has happened.
func TestMain(m *testing.M) {
	if path := os.Getenv("JOBS_CRASH"); path != "" {
		if dir := os.Getenv("JOBS_VAULT"); dir != "" {
			vaultVictim(path, dir)
		}
		victim(path)
		return
	}
	os.Exit(m.Run())
}

func victim(path string) {
	t := &dying{}
	p := openai.New(openai.Config{Name: "fake", URL: os.Getenv("JOBS_UPSTREAM"), Key: "k"})
	s := open(t, path, &busyOnQuota{p})
	go func() {
		seen := map[string]bool{}
		for {
			changed := s.Changed()
			all, err := s.Jobs(context.Background(), Filter{})
			if err != nil {
				t.Fatal(err)
			}
			for _, j := range all {
				if says := fmt.Sprintf("job %d is %s", j.ID, j.State); !seen[says] {
					seen[says] = true
					fmt.Println(says)
				}
			}
			<-changed
		}
	}()
	fmt.Println("ready")
	in := bufio.NewScanner(os.Stdin)
	for in.Scan() {
		c := Spec{Prompt: strings.ReplaceAll(in.Text(), "|", "\n")}
		if strings.HasPrefix(c.Prompt, "## ") {
			c.Type = Chain
		}
		fmt.Println("submitting")
		j, _, err := s.Submit(context.Background(), c, in.Text())
		if err != nil {
			t.Fatal(err)
		}
		fmt.Printf("acknowledged %d\n", j.ID)
	}
	select {}
}

// dying is a testing.TB of a process that is killed: nothing is cleaned up.
type dying struct{ testing.TB }

func (*dying) Helper()           {}
func (*dying) Cleanup(func())    {}
func (*dying) Fatal(args ...any) { fmt.Println(append([]any{"fatal:"}, args...)...); os.Exit(1) }

// busyOnQuota turns a refusal for quota into what the router makes of it.
type busyOnQuota struct{ llm.Provider }

func (p *busyOnQuota) Stream(ctx context.Context, req llm.Request) iter.Seq2[llm.Event, error] {
	req.Model = "m"
	return func(yield func(llm.Event, error) bool) {
		for ev, err := range p.Provider.Stream(ctx, req) {
			if err != nil && llm.KindOf(err) == llm.Quota {
				err = &llm.BusyError{Provider: "fake", Kind: llm.Quota, Reason: err.Error(), Until: time.Now().Add(500 * time.Millisecond), Err: err}
			}
			if !yield(ev, err) {
				return
			}
		}
	}
}

// A process is a victim that runs.
type process struct {
	t     *testing.T
	cmd   *exec.Cmd
	in    io.WriteCloser
	lines chan string
	said  map[string]bool
}

func run(t *testing.T, path, upstream string, env ...string) *process {
	t.Helper()
	cmd := exec.Command(os.Args[0])
	cmd.Env = append(append(os.Environ(), "JOBS_CRASH="+path, "JOBS_UPSTREAM="+upstream), env...)
	cmd.Stderr = os.Stderr
	in, err := cmd.StdinPipe()
	if err != nil {
		t.Fatal(err)
	}
	out, err := cmd.StdoutPipe()
	if err != nil {
		t.Fatal(err)
	}
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	p := &process{t, cmd, in, make(chan string, 1000), map[string]bool{}}
	go func() {
		for s := bufio.NewScanner(out); s.Scan(); {
			p.lines <- s.Text()
		}
		close(p.lines)
	}()
	t.Cleanup(p.kill)
	return p
}

// await reads what the process says until it has said line.
func (p *process) await(line string) {
	p.t.Helper()
	limit := time.After(60 * time.Second)
	for !p.said[line] {
		select {
		case got, ok := <-p.lines:
			p.said[got] = true
			if !ok || strings.HasPrefix(got, "fatal:") {
				p.t.Fatalf("the process said %q, not %q", got, line)
			}
		case <-limit:
			p.t.Fatalf("the process did not say %q", line)
		}
	}
}

func (p *process) say(line string) { fmt.Fprintln(p.in, line) }

func (p *process) kill() {
	p.cmd.Process.Kill() //nolint:errcheck // it may be dead already
	p.cmd.Wait()         //nolint:errcheck // killed
}

// upstream is a fake that answers "one", "two" and "slow" as a script says, refuses "busy" once, and "poor" for good. The first
// "slow" request is not answered: it lasts until who sent it is killed.
func upstream(t *testing.T) (*fake.Server, string) {
	t.Helper()
	f, err := fake.New("openai", script.Script{Models: []string{"m"}, Reply: []script.Rule{
		{Match: "slow", Text: "slowly done"},
		{Match: "poor", Fault: &script.Fault{Kind: script.BadKey}},
		{Match: "two", Text: "second"},
		{Match: "one", Text: "first"},
	}})
	if err != nil {
		t.Fatal(err)
	}
	refused := false
	var slow atomic.Bool
	server := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		body, _ := io.ReadAll(r.Body)
		if strings.Contains(string(body), "busy") && !refused {
			refused = true
			w.Header().Set("Retry-After", "1")
			w.WriteHeader(http.StatusTooManyRequests)
			io.WriteString(w, `{"error":{"message":"Rate limit reached","type":"requests","code":"rate_limit_exceeded"}}`) //nolint:errcheck // a test
			return
		}
		r.Body = io.NopCloser(strings.NewReader(string(body)))
		if strings.Contains(string(body), "slow") && !slow.Swap(true) {
			w = stuck{w, r.Context().Done()}
		}
		f.ServeHTTP(w, r)
	}))
	t.Cleanup(server.Close)
	return f, server.URL + "/v1"
}

// A stuck answer does not begin before who asked for it has gone.
type stuck struct {
	http.ResponseWriter
	gone <-chan struct{}
}

func (s stuck) WriteHeader(int) { <-s.gone }

func (s stuck) Write([]byte) (int, error) {
	<-s.gone
	return 0, io.ErrClosedPipe
}

// calls counts the requests with a word in them.
func calls(f *fake.Server, word string) (n int) {
	for _, r := range f.Requests() {
		if strings.Contains(r.Body, word) {
			n++
		}
	}
	return n
}

func TestKilledAnywhereEveryAcknowledgedJobEndsOnce(t *testing.T) {
	if testing.Short() {
		t.Skip("starts processes")
	}
	const chain = "## A|one|## B|two slow {{output}}"
	for _, c := range []struct {
		name, prompt string
		until        func(p *process, f *fake.Server)
		path         string
		least, most  int // calls of the word
		word         string
	}{
		{"after the acknowledgement", "one", func(p *process, _ *fake.Server) { p.await("acknowledged 1") }, "", 1, 2, "one"},
		{"while it runs", "slow", func(p *process, f *fake.Server) {
			p.await("acknowledged 1")
			f.Await(p.t.Context(), func(s fake.Seen) bool { return true })
		}, "queued running queued running done", 2, 2, "slow"},
		{"while a chain's second step runs", chain, func(p *process, f *fake.Server) {
			p.await("acknowledged 1")
			f.Await(p.t.Context(), func(s fake.Seen) bool { return strings.Contains(s.Body, "two") })
		}, "queued running queued running done", 2, 2, "two"},
		{"while it is held", "busy one", func(p *process, _ *fake.Server) {
			p.await("acknowledged 1")
			p.await("job 1 is held")
		}, "queued running held running done", 1, 1, "one"},
		{"after it is done", "one", func(p *process, _ *fake.Server) { p.await("job 1 is done") }, "queued running done", 1, 1, "one"},
	} {
		t.Run(c.name, func(t *testing.T) {
			t.Parallel()
			path := filepath.Join(t.TempDir(), db.Name)
			f, url := upstream(t)
			p := run(t, path, url)
			p.await("ready")
			p.say(c.prompt)
			c.until(p, f)
			p.kill()

			began := time.Now()
			p = run(t, path, url)
			p.await("ready")
			p.say(c.prompt) // with its key again: a caller that did not hear the answer
			p.await("acknowledged 1")
			p.await("job 1 is done")
			took := time.Since(began)
			p.kill()
			s := openQuietly(t, path)
			j, err := one(t.Context(), s.Read(), 1)
			if err != nil || j.State != Done {
				t.Fatal(j, err)
			}
			n, err := counts(t.Context(), s.Read())
			if err != nil || len(n) != 1 || n[Done] != 1 {
				t.Errorf("jobs: %v, %v", n, err)
			}
			events, err := timeline(t.Context(), s.Read(), 1, 0)
			if err != nil {
				t.Fatal(err)
			}
			var states []string
			ends := 0
			for _, e := range events {
				if e.From != e.To {
					states = append(states, string(e.To))
				}
				if e.To.Ended() {
					ends++
				}
			}
			got := strings.Join(states, " ")
			if ends != 1 || c.path != "" && got != c.path {
				t.Errorf("went %s", got)
			}
			if n := calls(f, c.word); n < c.least || n > c.most {
				t.Errorf("%d calls for %q, want %d to %d", n, c.word, c.least, c.most)
			}
			if strings.HasPrefix(c.prompt, "## ") {
				if n := calls(f, "one"); n != 1 {
					t.Errorf("the finished step was asked for %d times", n)
				}
				if j.Answer != "slowly done" {
					t.Errorf("%q", j.Answer)
				}
			}
			t.Logf("%s; done %s after the new process was started", got, took.Round(time.Millisecond))
		})
	}
}

func TestKilledBeforeTheCommitNothingWasAcknowledged(t *testing.T) {
	path := filepath.Join(t.TempDir(), db.Name)
	_, url := upstream(t)
	p := run(t, path, url)
	p.await("ready")
	block := openQuietly(t, path) // a writer that does not come to its end keeps the submission from its commit
	tx, err := block.Writer().BeginTx(t.Context(), nil)
	if err != nil {
		t.Fatal(err)
	}
	p.say("one")
	p.await("submitting")
	p.kill()
	if err := tx.Rollback(); err != nil {
		t.Fatal(err)
	}
	for line := range p.lines {
		if strings.HasPrefix(line, "acknowledged") {
			t.Error(line)
		}
	}
	if n, err := counts(t.Context(), block.Read()); err != nil || len(n) != 0 {
		t.Errorf("%v, %v", n, err)
	}
}

func openQuietly(t *testing.T, path string) *db.DB {
	t.Helper()
	d, err := db.Open(t.Context(), path)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { d.Close() })
	return d
}
