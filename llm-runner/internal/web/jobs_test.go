package web

import (
	"bufio"
	"context"
	"fmt"
	"net/http"
	"strings"
	"testing"
	"time"

	"home.arpa/lab/llm-runner/internal/engine"
	"home.arpa/lab/llm-runner/internal/jobs"
	"home.arpa/lab/llm-runner/internal/llm"
	"home.arpa/lab/llm-runner/internal/sse"
	"home.arpa/lab/llm-runner/test/enginetest"
)

// withQueue gives a rig a queue.
func withQueue(t *testing.T) *rig {
	t.Helper()
	r := newRig(t)
	work := enginetest.On(t, r.db, engine.Config{Log: r.log})
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

func TestAJobsAnswerArrivesOnItsPageAndInItsEvents(t *testing.T) {
	r := withQueue(t)
	r.post("/jobs", "type", "text", "prompt", "tell me", "key", "k1")
	p := <-r.puppet.asked
	p.text("A *first* one.\n\nAnd then")
	seen := r.follow("/jobs/1/events")
	seen("blocks", `[[0,"<p>A <em>first</em> one.</p>"],[1,"<p>And then</p>"]]`)
	api := r.follow("/api/jobs/1/events")
	api("text", `{"text":"A *first* one.\n\nAnd then","whole":true}`)
	_, body := r.get("/jobs/1")
	contains(t, body, `class="prose arriving"`, "<em>first</em>", `data-live="/jobs/1/events"`)
	p.text(" more")
	seen("blocks", `[[1,"<p>And then more</p>"]]`)
	api("text", `{"text":" more"}`)
	p.done()
	r.reach(1, jobs.Done)
	seen("change", "{}")
	api("end", "")
	_, body = r.get("/jobs/1")
	contains(t, body, "And then more")
	if strings.Contains(body, "arriving") || strings.Contains(body, "data-live") {
		t.Error("the page of a job that has ended waits for more")
	}
}

// follow reads server-sent events; what it returns reads on until an event has come with that name and, unless it is "", data.
func (r *rig) follow(path string) func(name, data string) {
	r.t.Helper()
	ctx, stop := context.WithTimeout(context.Background(), 30*time.Second)
	res, err := r.server.Client().Do(r.request("GET", path, nil).WithContext(ctx))
	if err != nil {
		r.t.Fatal(err)
	}
	r.t.Cleanup(func() { stop(); res.Body.Close() })
	in := sse.NewReader(bufio.NewReader(res.Body))
	return func(name, data string) {
		r.t.Helper()
		var seen []string
		for {
			ev, err := in.Next()
			if err != nil {
				r.t.Fatalf("%v came, then %v, and no %s %s", seen, err, name, data)
			}
			if !ev.Dispatched {
				continue
			}
			if string(ev.Name) == name && (data == "" || string(ev.Data) == data) {
				return
			}
			seen = append(seen, fmt.Sprintf("%s %s", ev.Name, ev.Data))
		}
	}
}
