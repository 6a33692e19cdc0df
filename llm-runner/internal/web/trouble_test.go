package web

import (
	"context"
	"fmt"
	"io"
	"net/http"
	"strings"
	"testing"
	"time"

	"home.arpa/lab/llm-runner/internal/alert"
	"home.arpa/lab/llm-runner/internal/db"
)

// A database that may not grow refuses as one on a full disk does; one that may not be written as one on a read-only disk.
func TestWhileTheDiskRefusesAnswersGoOnAndJobsAreRefusedHonestly(t *testing.T) {
	for _, tt := range []struct {
		refuse, allow string
		status        int
		says          string
	}{
		{"PRAGMA max_page_count = 1", "PRAGMA max_page_count = 1000000", http.StatusInsufficientStorage, "the disk is full"},
		{"PRAGMA query_only = 1", "PRAGMA query_only = 0", http.StatusServiceUnavailable, "the disk is read-only"},
	} {
		t.Run(tt.says, func(t *testing.T) {
			r := withQueue(t)
			if _, err := r.db.Writer().Exec(tt.refuse); err != nil {
				t.Fatal(err)
			}
			body := fmt.Sprintf(`{"prompt": %q}`, strings.Repeat("word ", 10_000))
			resp, text := r.json("POST", "/api/jobs", body)
			if resp.StatusCode != tt.status || !strings.Contains(text, tt.says) || !strings.Contains(text, "send it again") || resp.Header.Get("Retry-After") == "" {
				t.Errorf("%d %v %s", resp.StatusCode, resp.Header, text)
			}
			if status, page := r.post("/jobs", "prompt", strings.Repeat("word ", 10_000)); status != tt.status || !strings.Contains(page, "It could not be saved") {
				t.Errorf("the form: %d %s", status, page)
			}
			turn, play := r.ask("still there?")
			play.text("yes")
			play.done()
			r.end(turn.ID)
			if status, page := r.get(chatPath(turn)); status != 200 || !strings.Contains(page, "<p>yes</p>") || !strings.Contains(page, "Nothing can be saved") {
				t.Errorf("%d %s", status, page)
			}
			if _, page := r.get("/health"); !strings.Contains(page, "degraded") && !strings.Contains(page, "the database") {
				t.Errorf("health: %s", page)
			}
			// Not before: its look writes a page in place, for which a database that may not grow has room.
			told := make(chan *db.Trouble, 10)
			ctx, cancel := context.WithCancel(t.Context())
			defer cancel()
			go r.db.Watch(ctx, func(x *db.Trouble) { told <- x }) //nolint:errcheck // it returns ctx's error
			if x := <-told; x == nil {
				t.Error("no trouble is told")
			}
			if _, err := r.db.Writer().Exec(tt.allow); err != nil {
				t.Fatal(err)
			}
			if x := <-told; x != nil {
				t.Error("trouble is told twice")
			}
			if resp, text := r.json("POST", "/api/jobs", body); resp.StatusCode != http.StatusAccepted {
				t.Errorf("%d %s", resp.StatusCode, text)
			}
			if status, page := r.get(chatPath(turn)); status != 200 || !strings.Contains(page, "<p>yes</p>") || strings.Contains(page, "Nothing can be saved") {
				t.Errorf("%d %s", status, page)
			}
		})
	}
}

func TestIncidentsStandOnTheHealthPage(t *testing.T) {
	r := newRig(t)
	r.Incidents = func() []alert.Alert {
		return []alert.Alert{{Key: "quota/groq", Text: "groq is <used up>.", Began: time.Now(), Jobs: 3}}
	}
	req := r.request("GET", "/health", nil)
	req.Header.Set("Accept", "text/html")
	if _, page := r.do(req); !strings.Contains(page, "groq is &lt;used up&gt;.") || !strings.Contains(page, "Jobs held for it so far: 3") || !strings.Contains(page, "1 incident lasts.") {
		t.Error(page)
	}
	req = r.request("GET", "/health", nil)
	req.Header.Set("Accept", "*/*")
	if _, body := r.do(req); !strings.Contains(body, `"status": "degraded"`) || !strings.Contains(body, `"jobs_held": 3`) {
		t.Error(body)
	}
}

// json sends a JSON document.
func (r *rig) json(method, path, body string) (*http.Response, string) {
	r.t.Helper()
	req := r.request(method, path, nil)
	req.Body, req.ContentLength = io.NopCloser(strings.NewReader(body)), int64(len(body))
	req.Header.Set("Content-Type", "application/json")
	resp, err := http.DefaultTransport.RoundTrip(req)
	if err != nil {
		r.t.Fatal(err)
	}
	defer resp.Body.Close()
	text, err := io.ReadAll(resp.Body)
	if err != nil {
		r.t.Fatal(err)
	}
	return resp, string(text)
}
