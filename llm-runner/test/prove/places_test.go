//go:build prove

package prove

import (
	"bytes"
	"database/sql"
	"fmt"
	"io"
	"net/http"
	"net/http/httptest"
	"strings"
	"sync"
	"testing"
	"time"

	imitation "home.arpa/lab/llm-runner/internal/fake"
	"home.arpa/lab/llm-runner/internal/fake/script"
	"home.arpa/lab/llm-runner/test/postgrestest"
)

// A machine imitates Ollama and counts what it is asked at once.
type machine struct {
	*httptest.Server
	mu              sync.Mutex
	now, most, came int
}

func newMachine(t *testing.T, replies ...script.Rule) *machine {
	t.Helper()
	f, err := imitation.New("ollama", script.Script{Reply: replies})
	if err != nil {
		t.Fatal(err)
	}
	m := &machine{}
	m.Server = httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		if r.Method == http.MethodPost && r.URL.Path == "/api/chat" {
			m.count(1)
			work := &work{ResponseWriter: w, end: sync.OnceFunc(func() { m.count(-1) })}
			defer work.end()
			w = work
		}
		f.ServeHTTP(w, r)
	}))
	t.Cleanup(m.Close)
	return m
}

// work is a request that the machine does until the last piece of its answer goes out: whoever has that may send the next one at once, and that
// may come before the handler of this one has returned.
type work struct {
	http.ResponseWriter
	end func()
}

func (w *work) Write(b []byte) (int, error) {
	if bytes.Contains(b, []byte(`"done":true`)) {
		w.end()
	}
	return w.ResponseWriter.Write(b)
}

// Unwrap lets http.ResponseController flush.
func (w *work) Unwrap() http.ResponseWriter { return w.ResponseWriter }

func (m *machine) count(n int) {
	m.mu.Lock()
	defer m.mu.Unlock()
	m.now += n
	m.most, m.came = max(m.most, m.now), m.came+max(n, 0)
}

// asked is how many requests came, and how many were there at once at most.
func (m *machine) asked() (came, most int) {
	m.mu.Lock()
	defer m.mu.Unlock()
	return m.came, m.most
}

// A household is a crew of which all have the same configuration.
type household struct {
	crew
	config string
}

// newHousehold is a household before a machine that does so many requests at once.
func newHousehold(t *testing.T, url string, m *machine, places int) *household {
	t.Helper()
	c := &household{}
	c.config = fmt.Sprintf(`database: %q
providers:
  davas: {kind: ollama, url: "%s", concurrency: %d}
routes:
  default: {provider: davas, model: tiny-chat}
`, strings.Replace(url, ":secret@", "@", 1), m.URL, places)
	c.runner = newRunner(t, c.config)
	c.shared = url
	c.start()
	return c
}

// hire adds a worker like the server.
func (c *household) hire() *runner {
	c.t.Helper()
	w := newRunner(c.t, c.config)
	w.work()
	c.workers = append(c.workers, w)
	return w
}

// Three processes together never ask a machine for more at once than it does, and they all have their turn.
func TestWorkersShareTheConcurrencyOfAMachine(t *testing.T) {
	const places, n = 2, 60
	server := postgrestest.Start(t)
	m := newMachine(t, script.Rule{Match: "job", Text: "done", Delay: 150 * time.Millisecond})
	c := newHousehold(t, server.New(), m, places)
	c.hire()
	c.hire()
	for i := range n {
		c.submit(fmt.Sprintf("job %d", i))
	}
	began := time.Now()
	c.allDone(n, 3*time.Minute)
	came, most := m.asked()
	t.Logf("%d jobs after %s, %d at once at most", n, time.Since(began).Round(time.Millisecond), most)
	if came != n || most != places {
		t.Errorf("%d requests came, %d at once at most; want %d and %d", came, most, n, places)
	}
	by := map[string]int{}
	if err := c.query(`SELECT worker, count(*) FROM attempts GROUP BY worker`, func(row *sql.Rows) error {
		var worker string
		var count int
		err := row.Scan(&worker, &count)
		by[worker] = count
		return err
	}); err != nil {
		t.Fatal(err)
	}
	if t.Logf("shared as %v", by); len(by) != 3 {
		t.Errorf("not all had their turn: %v", by)
	}
	c.noPlaces()
	for _, w := range c.workers {
		w.end()
	}
}

// noPlaces waits until nobody uses a place or waits for one, by the rows.
func (c *household) noPlaces() {
	c.t.Helper()
	if err := poll(20*time.Second, 50*time.Millisecond, func() error {
		return c.query(`SELECT worker, taken, waiting FROM quota_places`, func(row *sql.Rows) error {
			var worker string
			var taken, waiting int
			if err := row.Scan(&worker, &taken, &waiting); err != nil {
				return err
			}
			return fmt.Errorf("%s has %d places, %d wait", worker, taken, waiting)
		})
	}); err != nil {
		c.t.Error(err)
	}
}

// The places of a process that was killed come back to the others.
func TestAKilledProcessGivesItsPlacesBack(t *testing.T) {
	server := postgrestest.Start(t)
	m := newMachine(t, script.Rule{Match: "long", Text: "done", Delay: 2 * time.Minute}, script.Rule{Match: "short", Text: "done"})
	c := newHousehold(t, server.New(), m, 1)
	c.submit("long")
	if err := poll(time.Minute, 10*time.Millisecond, func() error {
		if came, _ := m.asked(); came != 1 {
			return fmt.Errorf("%d requests came", came)
		}
		return nil
	}); err != nil {
		t.Fatal(err)
	}
	b := newRunner(t, c.config)
	b.start()
	answer := make(chan error, 1)
	go func() {
		resp, err := http.Post(b.url+"/v1/chat/completions", "application/json", strings.NewReader(`{"model":"tiny-chat","messages":[{"role":"user","content":"short"}]}`))
		if err == nil {
			defer resp.Body.Close()
			var text []byte
			if text, err = io.ReadAll(resp.Body); err == nil && (resp.StatusCode != http.StatusOK || !strings.Contains(string(text), "done")) {
				err = fmt.Errorf("%s: %s", resp.Status, text)
			}
		}
		answer <- err
	}()
	if err := poll(time.Minute, 10*time.Millisecond, func() error {
		waits := 0
		err := c.query(`SELECT coalesce(sum(waiting), 0) FROM quota_places`, func(row *sql.Rows) error { return row.Scan(&waits) })
		if err == nil && waits != 1 {
			err = fmt.Errorf("%d wait", waits)
		}
		return err
	}); err != nil {
		t.Fatal(err)
	}
	if came, _ := m.asked(); came != 1 {
		t.Errorf("%d requests came while the only place is taken", came)
	}
	c.kill()
	began := time.Now()
	select {
	case err := <-answer:
		if took := time.Since(began); err != nil {
			t.Error(err)
		} else {
			t.Logf("answered %s after the kill", took.Round(time.Millisecond))
		}
	case <-time.After(time.Minute):
		t.Error("the place does not come back")
	}
	if _, most := m.asked(); most != 1 {
		t.Errorf("%d at once", most)
	}
}
