//go:build prove

package prove

import (
	"database/sql"
	"fmt"
	"io"
	"net/http"
	"net/url"
	"strings"
	"testing"
	"time"

	"home.arpa/lab/llm-runner/test/postgrestest"
)

// reply sends a request and returns status and body.
func (c *crew) reply(r *http.Request) (int, string) {
	c.t.Helper()
	client := &http.Client{Timeout: time.Minute, CheckRedirect: func(*http.Request, []*http.Request) error { return http.ErrUseLastResponse }}
	resp, err := client.Do(r)
	if err != nil {
		c.t.Fatal(err)
	}
	defer resp.Body.Close()
	text, err := io.ReadAll(resp.Body)
	if err != nil {
		c.t.Fatal(err)
	}
	return resp.StatusCode, string(text)
}

func (c *crew) request(method, path, body string, header ...string) *http.Request {
	c.t.Helper()
	r, err := http.NewRequest(method, c.url+path, strings.NewReader(body))
	if err != nil {
		c.t.Fatal(err)
	}
	for i := 0; i+1 < len(header); i += 2 {
		r.Header.Set(header[i], header[i+1])
	}
	return r
}

// beats are the counts of all processes.
func (c *crew) beats() (map[string]int64, error) {
	all := map[string]int64{}
	err := c.query(`SELECT id, beat FROM engine_workers`, func(row *sql.Rows) error {
		var id string
		var n int64
		err := row.Scan(&id, &n)
		all[id] = n
		return err
	})
	return all, err
}

// acquainted waits until all processes have seen each other.
func (c *crew) acquainted(n int) {
	c.t.Helper()
	var before map[string]int64
	if err := poll(time.Minute, 100*time.Millisecond, func() error {
		now, err := c.beats()
		if err != nil || len(now) != n {
			return fmt.Errorf("%d of %d processes: %v", len(now), n, err)
		}
		if before == nil {
			before = now
		}
		for id, beat := range now {
			if beat < before[id]+2 {
				return fmt.Errorf("%s has not looked at the others", id)
			}
		}
		return nil
	}); err != nil {
		c.t.Fatal(err)
	}
}

// An outage of PostgreSQL is told once, by one of the processes, and so is its end; jobs and questions are refused meanwhile with the
// reason, and programs are answered. A restart is told to nobody.
func TestAnOutageOfPostgresIsToldOnce(t *testing.T) {
	server := postgrestest.Start(t)
	address := server.New()
	groq, discord := newFake(t, "groq", "reply:\n  - {text: \"It is so.\"}\n"), newFake(t, "discord", "")
	config := fmt.Sprintf(`database: %q
providers:
  groq: {kind: openai, url: "%s/openai/v1", key: "file:%s"}
routes:
  default: {provider: groq, model: tiny-chat}
discord:
  webhook: "file:%s"
`, strings.Replace(address, ":secret@", "@", 1), groq.url, keyFile(t), secretFile(t, discord.url+"/api/webhooks/1/planted-token"))
	s := &storage{runner: newRunner(t, config), groq: groq, discord: discord}
	c := &crew{runner: s.runner, fake: groq}
	c.shared = address
	c.start()
	for range 2 {
		w := newRunner(t, config)
		w.work()
		c.workers = append(c.workers, w)
	}
	c.acquainted(3)

	server.Stop()
	server.Up() // nobody is to hear of this
	if err := poll(time.Minute, 100*time.Millisecond, func() error {
		if h := s.health(); h.Status != "ok" {
			return fmt.Errorf("health is %s", h.Status)
		}
		return nil
	}); err != nil {
		t.Fatal(err)
	}
	c.acquainted(3)

	server.Stop()
	const says = "PostgreSQL does not answer"
	form := url.Values{"text": {"is it so?"}, "model": {"tiny-chat"}}.Encode()
	for _, x := range []struct {
		name    string
		request *http.Request
		status  int
		says    string
	}{
		{"a job", c.request("POST", "/api/jobs", `{"prompt": "later"}`, "Content-Type", "application/json"), 503, says},
		{"a request that may wait", c.request("POST", "/v1/chat/completions", `{"model":"tiny-chat","messages":[{"role":"user","content":"later"}]}`, "Prefer", "respond-async"), 503, says},
		{"a question in the chat", c.request("POST", "/chats", form, "Content-Type", "application/x-www-form-urlencoded"), 503, says},
		{"a program", c.request("POST", "/v1/chat/completions", `{"model":"tiny-chat","messages":[{"role":"user","content":"is it so?"}]}`), 200, "It is so."},
		{"a page", c.request("GET", "/", ""), 503, "The database does not answer"},
	} {
		if status, text := c.reply(x.request); status != x.status || !strings.Contains(text, x.says) {
			t.Errorf("%s: %d %s", x.name, status, text)
		}
	}
	s.awaitTold("does not answer since")
	if err := poll(time.Minute, 100*time.Millisecond, func() error {
		if _, text := c.reply(c.request("GET", "/", "")); !strings.Contains(text, "Nothing can be saved:") {
			return fmt.Errorf("no notice on the page: %s", text)
		}
		return nil
	}); err != nil {
		t.Error(err)
	}
	if h := s.health(); h.Status == "ok" {
		t.Error("health is ok while the database is away")
	}
	server.Up()
	s.awaitTold("PostgreSQL answers again after")

	// What comes behind it was to be told after it.
	if status, text := s.job("goes on", `, "notify": "always"`); status != http.StatusAccepted {
		t.Fatalf("a job afterwards: %d %s", status, text)
	}
	c.allDone(1, time.Minute)
	s.awaitTold("goes on")
	if err := poll(time.Minute, 100*time.Millisecond, func() error {
		n := 0
		return c.query(`SELECT count(*) FROM alerts a WHERE NOT EXISTS (SELECT 1 FROM alert_tellings t WHERE t.alert = a.id AND t.told = 2)`, func(row *sql.Rows) error {
			if err := row.Scan(&n); err != nil || n > 0 {
				return fmt.Errorf("%d are not marked as told: %w", n, err)
			}
			return nil
		})
	}); err != nil {
		t.Error(err)
	}
	counts := map[string]int{}
	for _, line := range s.told() {
		for _, part := range []string{"does not answer", "answers again"} {
			if strings.Contains(line, part) {
				counts[part]++
			}
		}
	}
	if counts["does not answer"] != 1 || counts["answers again"] != 1 {
		t.Errorf("told %v: %q", counts, s.told())
	}
	t.Logf("told: %q", s.told())
	for _, w := range c.workers {
		w.end()
	}
}
