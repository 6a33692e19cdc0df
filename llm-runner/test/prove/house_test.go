//go:build prove

package prove

import (
	"bytes"
	"context"
	"database/sql"
	"encoding/json"
	"fmt"
	"io"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"syscall"
	"testing"
	"time"

	"home.arpa/lab/internal/port"
	"home.arpa/lab/llm-runner/internal/db"
	"home.arpa/lab/llm-runner/internal/usage"
	"home.arpa/lab/llm-runner/test/ollama/ollamatest"
)

// routes is the example deployment with tiny models: contabo answers, davas is switched off.
const routes = `providers:
  contabo: {kind: ollama, url: %s}
  davas: {kind: ollama, url: %s}
routes:
  default: {provider: contabo, model: tiny-chat}
  project: davas
  models:
    tiny-chat: {provider: contabo, model: tiny-chat}
    tiny-slow: {provider: contabo, model: tiny-slow}
    tiny-embed: {provider: contabo, model: tiny-embed}
    gemma4: {provider: davas, model: "gemma4:27b", requires: davas}
`

// A house is an Ollama and the runner before it.
type house struct {
	*runner
	ollama *ollamatest.Server
}

func newHouse(t *testing.T) *house {
	t.Helper()
	o := ollamatest.Start(t)
	r := newRunner(t, fmt.Sprintf(routes, o.URL, nobody(t)))
	r.start()
	return &house{r, o}
}

// nobody is a URL at which nobody listens.
func nobody(t *testing.T) string {
	t.Helper()
	free, err := port.Free()
	if err != nil {
		t.Fatal(err)
	}
	return fmt.Sprintf("http://127.0.0.1:%d", free)
}

// A runner is the program under test with a data directory of its own, which outlives the process.
type runner struct {
	t       *testing.T
	url     string
	dir     string
	process *exec.Cmd
	ended   chan struct{} // closed once the process has
	log     *bytes.Buffer // of the process; complete once it has ended
	under   []string      // a program that runs it, with its arguments
	shared  string        // the URL of its database; "" is a file in dir
}

func newRunner(t *testing.T, config string) *runner {
	t.Helper()
	r := &runner{t: t, url: nobody(t), dir: t.TempDir()}
	if err := os.WriteFile(filepath.Join(r.dir, "runner.yaml"), []byte(config), 0o600); err != nil {
		t.Fatal(err)
	}
	return r
}

// start runs the program until its page is there, and returns how long that took.
func (r *runner) start() time.Duration {
	r.t.Helper()
	r.launch()
	r.t.Cleanup(func() {
		r.kill()
		if r.t.Failed() {
			r.t.Logf("the runner said:\n%s", r.log)
		}
	})
	started := time.Now()
	err := poll(60*time.Second, time.Millisecond, func() error { return r.get("/", nil) })
	took := time.Since(started)
	if err != nil {
		r.t.Fatalf("no page from the runner: %v", err)
	}
	return took
}

// launch runs the program.
func (r *runner) launch() {
	r.t.Helper()
	r.log = &bytes.Buffer{}
	line := append(slices.Clone(r.under), binary, "serve", "--config", filepath.Join(r.dir, "runner.yaml"), "--data", r.dir, "--listen", r.url[len("http://"):])
	p := exec.Command(line[0], line[1:]...)
	p.Env = []string{"HOME=" + r.dir, "PATH=" + os.Getenv("PATH")} // nobody's keys, nobody's Ollama
	p.Stdout, p.Stderr = r.log, r.log
	p.SysProcAttr = &syscall.SysProcAttr{Pdeathsig: syscall.SIGKILL}
	if err := p.Start(); err != nil {
		r.t.Fatal(err)
	}
	ended := make(chan struct{})
	go func() {
		_ = p.Wait() // "signal: killed"
		close(ended)
	}()
	r.process, r.ended = p, ended
}

// kill ends the process without a warning, as a power cut does.
func (r *runner) kill() {
	if r.process == nil {
		return
	}
	pid := r.process.Process.Pid
	if len(r.under) > 0 { // the program is the only child
		if text, err := os.ReadFile(fmt.Sprintf("/proc/%d/task/%d/children", pid, pid)); err == nil {
			if child, err := strconv.Atoi(strings.TrimSpace(string(text))); err == nil {
				_ = syscall.Kill(child, syscall.SIGKILL) // whatever runs it ends with it
			}
		}
		select {
		case <-r.ended:
		case <-time.After(5 * time.Second):
		}
	}
	_ = r.process.Process.Kill() // it may have ended by itself
	<-r.ended
	r.process = nil
}

// get asks for a page or, with into, a JSON document.
func (r *runner) get(path string, into any) error {
	ctx, cancel := context.WithTimeout(context.Background(), 10*time.Second)
	defer cancel()
	req, err := http.NewRequestWithContext(ctx, http.MethodGet, r.url+path, nil)
	if err != nil {
		return err
	}
	if into != nil {
		req.Header.Set("Accept", "application/json")
	}
	resp, err := http.DefaultClient.Do(req)
	if err != nil {
		return err
	}
	defer resp.Body.Close()
	body, err := io.ReadAll(resp.Body)
	if err != nil {
		return err
	}
	if resp.StatusCode != http.StatusOK {
		return fmt.Errorf("GET %s: %s: %.300s", path, resp.Status, body)
	}
	if into == nil {
		return nil
	}
	return json.Unmarshal(body, into)
}

// A health is what /health tells programs.
type health struct {
	Status    string
	Version   string
	Providers map[string]struct {
		Kind   string
		Status string
		Error  string
		Usage  struct{ Today totals }
	}
}

type totals struct {
	Requests     int     `json:"requests"`
	Errors       int     `json:"errors"`
	InputTokens  int     `json:"input_tokens"`
	OutputTokens int     `json:"output_tokens"`
	CostUSD      float64 `json:"cost_usd"`
}

func (r *runner) health() (h health) {
	r.t.Helper()
	if err := r.get("/health", &h); err != nil {
		r.t.Fatal(err)
	}
	return h
}

// waitStatus waits until /health tells a provider's status, and returns how long that took.
func (r *runner) waitStatus(provider, status string) time.Duration {
	r.t.Helper()
	started := time.Now()
	err := poll(30*time.Second, 20*time.Millisecond, func() error {
		if p := r.health().Providers[provider]; p.Status != status {
			return fmt.Errorf("%s is %q (%s), not %q", provider, p.Status, p.Error, status)
		}
		return nil
	})
	if err != nil {
		r.t.Fatal(err)
	}
	return time.Since(started)
}

// ledger returns the newest rows, newest first.
func (r *runner) ledger() ([]usage.Row, error) {
	ctx := context.Background()
	d, err := r.read(ctx)
	if err != nil {
		return nil, err
	}
	defer d.Close()
	return usage.Recent(ctx, d, 20)
}

// read opens its database for reading.
func (r *runner) read(ctx context.Context) (*db.DB, error) {
	if r.shared != "" {
		return db.OpenPostgresRead(ctx, r.shared)
	}
	return db.OpenRead(ctx, filepath.Join(r.dir, db.Name))
}

// query asks its database.
func (r *runner) query(text string, row func(*sql.Rows) error) error {
	ctx, cancel := context.WithTimeout(context.Background(), 10*time.Second)
	defer cancel()
	d, err := r.read(ctx)
	if err != nil {
		return err
	}
	defer d.Close()
	return db.Each(ctx, d.Read(), "", row, text)
}

// waitOutcome waits until the newest ledger row of a model has an outcome.
func (r *runner) waitOutcome(model string, want usage.Outcome) usage.Row {
	r.t.Helper()
	var found usage.Row
	err := poll(30*time.Second, 20*time.Millisecond, func() error {
		rows, err := r.ledger()
		if err != nil {
			return err
		}
		for _, row := range rows {
			if row.Asked != model {
				continue
			}
			if found = row; row.Outcome != want {
				return fmt.Errorf("the ledger says %q of %s, not %q: %+v", row.Outcome, model, want, row)
			}
			return nil
		}
		return fmt.Errorf("the ledger has no row of %s", model)
	})
	if err != nil {
		r.t.Fatal(err)
	}
	return found
}

// poll asks until there is no error, and returns the last one when the limit has passed.
func poll(limit, every time.Duration, ask func() error) error {
	for deadline := time.Now().Add(limit); ; time.Sleep(every) {
		err := ask()
		if err == nil || time.Now().After(deadline) {
			return err
		}
	}
}
