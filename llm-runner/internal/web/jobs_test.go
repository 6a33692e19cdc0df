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
	r.work(t, r.queueUp)
	return r
}

// work gives a rig an engine, launches it once all who are called by it are there, and then starts them.
func (r *rig) work(t testing.TB, all ...func(testing.TB, *engine.Engine) func()) {
	t.Helper()
	work := enginetest.On(t, r.db, engine.Config{Log: r.log, Poll: 5 * time.Millisecond})
	t.Cleanup(func() { work.Close(5 * time.Second) }) //nolint:errcheck // the test has ended
	var starts []func()
	for _, called := range all {
		starts = append(starts, called(t, work))
	}
	if err := work.Launch(); err != nil {
		t.Fatal(err)
	}
	for _, start := range starts {
		start()
	}
}

// queueUp gives a rig a queue.
func (r *rig) queueUp(t testing.TB, work *engine.Engine) (start func()) {
	t.Helper()
	queue, err := jobs.New(context.Background(), r.db, work, r.Router, jobs.Config{Log: r.log})
	if err != nil {
		t.Fatal(err)
	}
	r.Jobs = queue
	r.handler = r.routes()
	return func() {}
}

func (r *rig) reach(id int64, state jobs.State) {
	r.t.Helper()
	ctx, cancel := context.WithTimeout(context.Background(), time.Minute)
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

func TestAJobsPageShowsItsAttemptsAndTheQueueItsModel(t *testing.T) {
	r := withQueue(t)
	r.answered("Of a conversation?", "Yes.") // whose attempt is not the job's
	status, _ := r.post("/jobs", "prompt", "Try <it>", "model", "llama-3.3-70b-versatile", "key", "k1", "max_attempts", "7")
	(<-r.puppet.asked).fail <- &llm.BusyError{Provider: "groq", Model: "llama-3.3-70b-versatile", Kind: llm.Quota, Reason: "groq: used <up>", Until: time.Now().Add(time.Hour)}
	r.reach(1, jobs.Held)
	_, body := r.get("/jobs")
	if status != http.StatusOK || !strings.Contains(body, "text, llama-3.3-70b-versatile on groq") {
		t.Errorf("%d %s", status, body)
	}
	r.post("/jobs/1/release")
	x := <-r.puppet.asked
	x.text("There.")
	x.done()
	r.reach(1, jobs.Done)
	_, body = r.get("/jobs/1")
	_, ledger, _ := strings.Cut(body, "Attempts <small>2</small>")
	contains(t, ledger, "llama-3.3-70b-versatile<small>groq", "used &lt;up&gt;")
	if strings.Contains(ledger, "qwen2.5:14b") {
		t.Error("the attempt of a conversation is there")
	}

	// Those that nobody asked a model for show who would answer.
	for j, want := range map[*jobs.Job]string{
		{}:                               "qwen2.5:14b",
		{Asked: "gemma4:27b"}:            "gemma4:27b on davas",
		{Type: jobs.Research}:            "research",
		{Requires: "nobody"}:             "nobody",
		{WaitsModel: "m", WaitsFor: "p"}: "m on p",
	} {
		if got := r.whose(*j); got != want {
			t.Errorf("%+v: %q, want %q", j, got, want)
		}
	}
}

func TestTheFormOfAJobHasAllThatTheAPIHas(t *testing.T) {
	r := withQueue(t)
	_, body := r.get("/jobs/new")
	contains(t, body, `<details class="fold"><summary>`, `name="title"`, `name="requires"`, `<option>davas</option>`, `name="output"`, `name="max_attempts"`, `<option value="failure">on failure</option>`)
	status, body := r.post("/jobs", "prompt", "x", "key", "k1", "max_attempts", "500", "output", "../out.md", "title", "My <title>", "requires", "davas", "notify", "failure", "tool", "web search")
	if status != http.StatusUnprocessableEntity {
		t.Error(status)
	}
	contains(t, body, "max_attempts: 500 is not between 1 and 100", "output: ", "tools[0]: ", `<details class="fold" open>`, `value="My &lt;title&gt;"`, "<option selected>davas</option>", `<option value="failure" selected>`)
	status, _ = r.post("/jobs", "prompt", "x", "key", "k2", "max_attempts", "7", "title", "Mine", "requires", "groq", "notify", "always", "tool", "*", "priority", "1")
	<-r.puppet.asked
	j, err := r.Jobs.Job(t.Context(), 1)
	if err != nil || status != http.StatusOK || j.Title != "Mine" || j.MaxAttempts != 7 || j.Requires != "groq" || j.Notify != jobs.NotifyAlways || len(j.Tools) != 1 || j.Priority != 1 {
		t.Errorf("%d %+v, %v", status, j, err)
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
