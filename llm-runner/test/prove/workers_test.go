//go:build prove

package prove

import (
	"bytes"
	"database/sql"
	"encoding/json"
	"fmt"
	"net/http"
	"net/url"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"syscall"
	"testing"
	"time"

	"home.arpa/lab/llm-runner/internal/jobs"
	"home.arpa/lab/llm-runner/internal/usage"
	"home.arpa/lab/llm-runner/test/postgrestest"
)

// A crew is a server and workers that share a PostgreSQL database, before a fake provider.
type crew struct {
	*runner // the server
	fake    fake
	workers []*runner
}

func newCrew(t *testing.T, workers int, url, script string) *crew {
	t.Helper()
	groq := newFake(t, "groq", script)
	config := fmt.Sprintf(`database: %q
providers:
  groq: {kind: openai, url: "%s/openai/v1", key: "file:%s"}
routes:
  default: {provider: groq, model: tiny-chat}
`, strings.Replace(url, ":secret@", "@", 1), groq.url, keyFile(t))
	c := &crew{runner: newRunner(t, config), fake: groq}
	c.shared = url
	c.start()
	for range workers {
		w := newRunner(t, config)
		w.work()
		c.workers = append(c.workers, w)
	}
	return c
}

// work runs the program as a worker until it answers.
func (r *runner) work() {
	r.t.Helper()
	r.log = &bytes.Buffer{}
	p := exec.Command(binary, "worker", "--config", filepath.Join(r.dir, "runner.yaml"), "--data", r.dir, "--health", r.url[len("http://"):])
	p.Env = []string{"HOME=" + r.dir, "PATH=" + os.Getenv("PATH")}
	p.Stdout, p.Stderr = r.log, r.log
	p.SysProcAttr = &syscall.SysProcAttr{Pdeathsig: syscall.SIGKILL}
	if err := p.Start(); err != nil {
		r.t.Fatal(err)
	}
	ended := make(chan struct{})
	go func() {
		_ = p.Wait() // end looks at how it ended
		close(ended)
	}()
	r.process, r.ended = p, ended
	r.t.Cleanup(func() {
		r.kill()
		if r.t.Failed() {
			r.t.Logf("the worker said:\n%s", r.log)
		}
	})
	if err := poll(20*time.Second, 10*time.Millisecond, func() error { return r.get("/health", nil) }); err != nil {
		r.t.Fatalf("no worker: %v", err)
	}
}

// end asks the process to stop, and waits until it has.
func (r *runner) end() {
	r.t.Helper()
	p := r.process
	p.Process.Signal(syscall.SIGTERM) //nolint:errcheck // its end is looked at
	select {
	case <-r.ended:
		if r.process = nil; !p.ProcessState.Success() {
			r.t.Errorf("it ended with %v", p.ProcessState)
		}
	case <-time.After(30 * time.Second):
		r.t.Error("it does not stop")
	}
}

// submit hands in a job.
func (c *crew) submit(prompt string) int64 {
	c.t.Helper()
	body, err := json.Marshal(jobs.Spec{Prompt: prompt})
	if err != nil {
		c.t.Fatal(err)
	}
	resp, err := http.Post(c.url+"/api/jobs", "application/json", bytes.NewReader(body))
	if err != nil {
		c.t.Fatal(err)
	}
	defer resp.Body.Close()
	var j jobs.Job
	if err := json.NewDecoder(resp.Body).Decode(&j); err != nil || j.ID == 0 {
		c.t.Fatalf("submit: %s, %v", resp.Status, err)
	}
	return j.ID
}

// allDone waits until every job is done.
func (c *crew) allDone(n int, limit time.Duration) {
	c.t.Helper()
	err := poll(limit, 100*time.Millisecond, func() error {
		all := map[string]int{}
		err := c.query(`SELECT state, count(*) FROM jobs GROUP BY state`, func(row *sql.Rows) error {
			var state string
			var count int
			err := row.Scan(&state, &count)
			all[state] = count
			return err
		})
		if err == nil && all["done"] != n {
			err = fmt.Errorf("of %d jobs there are %v", n, all)
		}
		return err
	})
	if err != nil {
		c.t.Fatal(err)
	}
}

// sent is what the provider saw: questions by their prompt and status.
func (c *crew) sent() (ok map[string]int, refused, all int) {
	c.t.Helper()
	var seen []struct {
		Method, Body string
		Status       int
	}
	if err := c.fake.get("/_fake/requests", &seen); err != nil {
		c.t.Fatal(err)
	}
	ok = map[string]int{}
	for _, s := range seen {
		if s.Method != http.MethodPost {
			continue
		}
		var q struct{ Messages []struct{ Content string } }
		if err := json.Unmarshal([]byte(s.Body), &q); err != nil {
			c.t.Fatal(err)
		}
		switch all++; s.Status {
		case http.StatusOK:
			ok[q.Messages[0].Content]++
		case http.StatusTooManyRequests:
			refused++
		}
	}
	return ok, refused, all
}

// booked is what the ledger holds, by outcome.
func (c *crew) booked() (by map[usage.Outcome]int, all int) {
	c.t.Helper()
	by = map[usage.Outcome]int{}
	err := c.query(`SELECT outcome, count(*) FROM attempts GROUP BY outcome`, func(row *sql.Rows) error {
		var outcome usage.Outcome
		var n int
		err := row.Scan(&outcome, &n)
		by[outcome] = n
		all += n
		return err
	})
	if err != nil {
		c.t.Fatal(err)
	}
	return by, all
}

// Two hundred jobs, shared by three processes at a limit that lets through 120 at once and two a second: each is answered once,
// the books say what the provider saw, and the provider hardly ever has to refuse. It counts a request when it comes and not
// when it was sent, so a busy machine meets a few refusals, as a single process does too; processes that share no limit
// meet a hundred.
func TestWorkersShareJobsAndALimit(t *testing.T) {
	server := postgrestest.Start(t)
	c := newCrew(t, 2, server.New(), "limits:\n  - {dimension: requests/minute, max: 120}\n")
	const n = 200
	for i := range n {
		c.submit(fmt.Sprintf("job %d", i))
	}
	began := time.Now()
	c.allDone(n, 3*time.Minute)
	t.Logf("done after %s", time.Since(began).Round(time.Second))
	ok, refused, all := c.sent()
	if len(ok) != n || all != n+refused || refused > 15 {
		t.Errorf("the provider saw %d different prompts in %d requests and refused %d", len(ok), all, refused)
	}
	if err := poll(30*time.Second, 100*time.Millisecond, func() error {
		if by, booked := c.booked(); booked != all || by[usage.OK] != n || by[usage.Busy] != refused {
			return fmt.Errorf("the books: %v", by)
		}
		return nil
	}); err != nil {
		t.Error(err)
	}
	t.Logf("refused %d times", refused)
	workers := map[string]int{}
	if err := c.query(`SELECT worker, count(*) FROM jobs GROUP BY worker`, func(row *sql.Rows) error {
		var worker string
		var n int
		err := row.Scan(&worker, &n)
		workers[worker] = n
		return err
	}); err != nil {
		t.Fatal(err)
	}
	if t.Logf("shared as %v", workers); len(workers) != 3 {
		t.Errorf("not all took part: %v", workers)
	}
	for _, w := range c.workers {
		w.end()
	}
}

// A server that is killed in the midst of an answer to a person loses nothing: a worker asks again.
func TestAKilledServersAnswerIsMadeByAWorker(t *testing.T) {
	server := postgrestest.Start(t)
	c := newCrew(t, 1, server.New(), "reply:\n  - {match: go, text: \"one two three four five six\", chunk_delay: 300ms}\n")
	c.streaming(c.post("/chats", url.Values{"text": {"go"}}))
	c.kill()
	began := time.Now()
	if err := poll(90*time.Second, 100*time.Millisecond, func() error {
		states := ""
		err := c.query(`SELECT t.state || ' ' || t.due || ' ' || m.text FROM turns t JOIN messages m ON m.id = t.id ORDER BY t.id DESC LIMIT 1`,
			func(row *sql.Rows) error { return row.Scan(&states) })
		if err == nil && states != "finished false one two three four five six" {
			err = fmt.Errorf("the last turn: %s", states)
		}
		return err
	}); err != nil {
		t.Fatal(err)
	}
	t.Logf("made after %s", time.Since(began).Round(time.Second))
	if err := poll(30*time.Second, 100*time.Millisecond, func() error {
		if by, all := c.booked(); all != 2 || by[usage.OK] != 1 || by[usage.Interrupted] != 1 {
			return fmt.Errorf("the books: %v", by)
		}
		return nil
	}); err != nil {
		t.Error(err)
	}
	for _, w := range c.workers {
		w.end()
	}
}

// A worker that is killed loses nothing: the others do its jobs.
func TestAKilledWorkersJobsAreDoneByTheOthers(t *testing.T) {
	server := postgrestest.Start(t)
	c := newCrew(t, 2, server.New(), "reply:\n  - {match: job, text: done, delay: 4s}\n")
	const n = 24 // all places of three processes
	for i := range n {
		c.submit(fmt.Sprintf("job %d", i))
	}
	if err := poll(60*time.Second, 50*time.Millisecond, func() error {
		if _, _, all := c.sent(); all < n {
			return fmt.Errorf("%d of %d are asked", all, n)
		}
		return nil
	}); err != nil {
		t.Fatal(err)
	}
	c.workers[0].kill()
	began := time.Now()
	c.allDone(n, 90*time.Second)
	took := time.Since(began)
	ok, _, all := c.sent()
	by, booked := c.booked()
	t.Logf("all done %s after the kill, %d requests, the books say %v", took.Round(time.Millisecond), all, by)
	if len(ok) != n || all <= n || all > n+8 || booked != all || by[usage.Interrupted] != all-n {
		t.Errorf("the provider saw %d different prompts in %d requests, the books %v", len(ok), all, by)
	}
	if err := c.query(`SELECT job, count(*) FROM job_events WHERE to_state = 'done' GROUP BY job HAVING count(*) <> 1`, func(row *sql.Rows) error {
		var id, n int
		err := row.Scan(&id, &n)
		t.Errorf("job %d ended %d times", id, n)
		return err
	}); err != nil {
		t.Fatal(err)
	}
}

// While PostgreSQL is gone everything waits; when it is back everything goes on by itself, and nothing is asked twice. It goes
// in the midst of commits of which nobody hears whether they were made.
func TestWorkersGoOnWhenPostgresIsBack(t *testing.T) {
	server := postgrestest.Start(t)
	c := newCrew(t, 1, server.New(), "reply:\n  - {match: job, text: done, delay: 100ms}\n")
	const n, outages = 240, 4
	for i := range n {
		c.submit(fmt.Sprintf("job %d", i))
	}
	for i := range outages {
		if err := poll(30*time.Second, 10*time.Millisecond, func() error {
			if _, _, all := c.sent(); all < (i+1)*n/(outages+2) {
				return fmt.Errorf("%d are asked", all)
			}
			return nil
		}); err != nil {
			t.Fatal(err)
		}
		server.Stop()
		time.Sleep(time.Duration(i) * time.Second) // how long it is gone
		server.Up()
	}
	c.allDone(n, time.Minute)
	if ok, _, all := c.sent(); len(ok) != n || all != n {
		t.Errorf("the provider saw %d different prompts in %d requests", len(ok), all)
	}
	if err := poll(30*time.Second, 100*time.Millisecond, func() error {
		if by, all := c.booked(); all != n || by[usage.OK] != n {
			return fmt.Errorf("the books: %v", by)
		}
		return nil
	}); err != nil {
		t.Error(err)
	}
}

// What the handbook says of PostgreSQL's own tools works: a dump put back is the whole house.
func TestADumpIsPutBackAsTheHandbookSays(t *testing.T) {
	server := postgrestest.Start(t)
	c := newCrew(t, 0, server.New(), "")
	c.submit("kept")
	c.allDone(1, 20*time.Second)
	dump := filepath.Join(t.TempDir(), "runner.dump")
	tool := func(line string) {
		t.Helper()
		cmd := exec.Command("bash", "-c", line)
		cmd.Env = append(os.Environ(), "DATABASE_URL="+c.shared)
		if out, err := cmd.CombinedOutput(); err != nil {
			t.Fatalf("%s: %v\n%s", line, err, out)
		}
	}
	tool(`pg_dump --format=custom --file=` + dump + ` "$DATABASE_URL"`)
	c.submit("after the dump")
	c.allDone(2, 20*time.Second)
	c.kill()
	tool(`pg_restore --clean --if-exists --single-transaction --dbname="$DATABASE_URL" ` + dump)
	c.start()
	c.submit("after the restore")
	c.allDone(2, 20*time.Second)
}
