package web

import (
	"context"
	"net/http"
	"strings"
	"testing"
	"time"

	"home.arpa/lab/llm-runner/internal/engine"
	"home.arpa/lab/llm-runner/internal/jobs"
	"home.arpa/lab/llm-runner/internal/llm"
)

// withQueue gives a rig a queue.
func withQueue(t *testing.T) *rig {
	t.Helper()
	r := newRig(t)
	handle, err := r.db.NewWriter()
	if err != nil {
		t.Fatal(err)
	}
	work, err := engine.Open(context.Background(), handle, engine.Config{Log: r.log})
	if err != nil {
		t.Fatal(err)
	}
	queue, err := jobs.New(context.Background(), r.db, work, r.Router, jobs.Config{Log: r.log})
	if err != nil {
		t.Fatal(err)
	}
	if err := work.Launch(); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { work.Close(5 * time.Second) }) //nolint:errcheck // the test has ended
	r.Jobs = queue
	r.handler = r.routes()
	return r
}

func (r *rig) reach(id int64, state jobs.State) {
	r.t.Helper()
	ctx, cancel := context.WithTimeout(context.Background(), 10*time.Second)
	defer cancel()
	for {
		changed := r.Jobs.Changed()
		j, err := r.Jobs.Job(ctx, id)
		if err != nil {
			r.t.Fatal(err)
		}
		if j.State == state {
			return
		}
		select {
		case <-changed:
		case <-ctx.Done():
			r.t.Fatalf("job %d is %s (%s), not %s", id, j.State, j.Reason, state)
		}
	}
}

func TestJobsFromThePageWithoutScript(t *testing.T) {
	r := withQueue(t)
	_, body := r.get("/jobs")
	contains(t, body, "No jobs yet", `aria-current="page"`)
	_, body = r.get("/jobs/new")
	key := field(t, body, "key")
	status, body := r.post("/jobs", "type", "chain", "prompt", "no <heading>", "deadline", "soon", "priority", "5", "key", key)
	if status != http.StatusUnprocessableEntity {
		t.Error(status)
	}
	contains(t, body, "prompt: has no step", "deadline: &#34;soon&#34; is not a duration", "no &lt;heading&gt;")

	_, body = r.post("/jobs", "type", "text", "prompt", "write <it>", "priority", "2", "key", key)
	contains(t, body, "write &lt;it&gt;", "What happened", "/jobs/1/cancel", "priority 2", `http-equiv="refresh"`)
	(<-r.puppet.asked).fail <- &llm.Error{Kind: llm.Quota, Message: "used up", Until: time.Now().Add(time.Hour)}
	r.reach(1, jobs.Held)
	_, body = r.get("/jobs")
	contains(t, body, "held <small>1</small>", "used up", "/jobs/1/release", "goes on")
	_, body = r.post("/jobs/1/cancel")
	contains(t, body, "cancelled by a person", "/jobs/1/retry")
	if status, _ := r.post("/jobs/1/release"); status != http.StatusConflict {
		t.Errorf("released what is cancelled: %d", status)
	}
	if status, body := r.get("/jobs/9"); status != http.StatusNotFound || !strings.Contains(body, "There is no such job") {
		t.Error(status, body)
	}
}
