package gateway

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"net/http"
	"strconv"
	"strings"
	"time"

	"home.arpa/lab/llm-runner/internal/db"
	"home.arpa/lab/llm-runner/internal/jobs"
	"home.arpa/lab/llm-runner/internal/llm"
)

// wishes are what a client says about waiting.
type wishes struct {
	async bool          // it does not want to wait: a job will do
	wait  time.Duration // how long it waits for somebody to answer
	said  bool          // wait is its own word
}

// readWishes reads the header Prefer (RFC 7240: respond-async, wait=SECONDS). Without it, libraries that tell their own
// timeout wait for half of it at most, so that there is time left for the answer (x-stainless-read-timeout of openai-python,
// x-stainless-timeout of openai-node, both in seconds); others wait for otherwise.
func readWishes(h http.Header, otherwise time.Duration) wishes {
	w := wishes{wait: otherwise}
	for _, name := range []string{"X-Stainless-Timeout", "X-Stainless-Read-Timeout"} {
		if s, err := strconv.ParseFloat(h.Get(name), 64); err == nil && s > 0 {
			w.wait, w.said = seconds(s/2), true
		}
	}
	for _, line := range h.Values("Prefer") {
		for preference := range strings.SplitSeq(line, ",") {
			name, value, _ := strings.Cut(strings.TrimSpace(preference), "=")
			switch strings.ToLower(strings.TrimSpace(name)) {
			case "respond-async":
				w.async = true
			case "wait":
				if s, err := strconv.ParseFloat(strings.Trim(value, ` "`), 64); err == nil && s >= 0 {
					w.wait, w.said = seconds(s), true
				}
			}
		}
	}
	if w.async && !w.said {
		w.wait = 0
	}
	return w
}

// longestWait bounds what a client may ask for: a connection that is silent for longer is better a job.
const longestWait = time.Hour

func seconds(s float64) time.Duration {
	return time.Duration(min(s, longestWait.Seconds()) * float64(time.Second))
}

// lookAgain is how often it is looked whether a machine is back that nobody knows when to expect.
const lookAgain = 500 * time.Millisecond

// hold calls do until somebody answers, the client's patience is used up, or it is clear that it will be: then the last
// refusal is returned. Nobody had begun to answer when do is called again.
func (c *call) hold(ctx context.Context, w wishes, do func() error) error {
	deadline := time.Now().Add(w.wait)
	for {
		err := do()
		var busy *llm.BusyError
		if !errors.As(err, &busy) || busy.Kind == llm.Unavailable && (busy.Err != nil || !w.said) {
			return err
		}
		until := busy.Until
		if until.IsZero() && busy.Broken {
			return err // looking again asks the one that is broken
		}
		if until.IsZero() {
			until = time.Now().Add(lookAgain)
		}
		if until.After(deadline) {
			return err
		}
		t := time.NewTimer(time.Until(until))
		select {
		case <-t.C:
		case <-ctx.Done():
			t.Stop()
			return &llm.Error{Kind: llm.Cancelled, Message: "the client went away while it waited", Err: context.Cause(ctx)}
		}
	}
}

// promise takes the request as a job: 202 with its address, or the whole answer where it comes within the client's wait.
func (c *call) promise(w wishes) {
	if field, cure := beyondField(c.body); field != "" {
		badRequest(field + ": a job cannot do this; " + cure + ", or do not prefer respond-async").write(c.out.w)
		return
	}
	j, fresh, err := c.gateway.Jobs.Submit(c.r.Context(), jobs.Spec{Request: c.body, Requires: c.ask.Requires, Project: c.ask.Project},
		c.r.Header.Get("Idempotency-Key"))
	if err != nil {
		notTaken(err).write(c.out.w)
		return
	}
	h := c.out.w.Header()
	h.Set("Preference-Applied", "respond-async")
	h.Set("Location", fmt.Sprintf("/api/jobs/%d", j.ID))
	waits := w.wait > 0 || !fresh
	if waits {
		ctx, cancel := context.WithTimeout(c.r.Context(), w.wait)
		j = c.follow(ctx, j)
		cancel()
	}
	c.out.hurry()
	h.Set("Content-Type", "application/json")
	if waits && j.State == jobs.Done && len(j.Response) > 0 { // who does not wait is told where it is, also of one that is done by now
		c.out.decide(j.Route.Provider, j.Route.Model, j.Route.Rule)
		c.out.w.WriteHeader(http.StatusOK)
		_ = c.out.write(j.Response)
		return
	}
	c.out.w.WriteHeader(http.StatusAccepted)
	b, err := json.Marshal(map[string]any{"id": fmt.Sprintf("job-%d", j.ID), "object": "job", "job": j.ID, "status": j.State,
		"url": fmt.Sprintf("/api/jobs/%d", j.ID), "created": j.Created.Unix()})
	if err == nil {
		_ = c.out.write(append(b, '\n')) // the job is taken, whether the client reads this or not
	}
}

// follow waits until the job has ended or ctx has, and returns it as it then stands.
func (c *call) follow(ctx context.Context, j jobs.Job) jobs.Job {
	for _, err := range c.gateway.Jobs.Events(ctx, j.ID, 0) { // it ends with the job
		if err != nil {
			break
		}
	}
	if now, err := c.gateway.Jobs.Job(c.r.Context(), j.ID); err == nil {
		return now
	}
	return j
}

// notTaken explains why a job was not taken.
func notTaken(err error) *problem {
	var wrong jobs.SpecError
	switch {
	case errors.As(err, &wrong):
		return badRequest(wrong.Error())
	case errors.Is(err, jobs.ErrKeyUsed):
		p := badRequest(err.Error())
		p.status, p.Code = http.StatusUnprocessableEntity, "idempotency_key_used"
		return p
	}
	p := &problem{status: http.StatusServiceUnavailable, Type: "unavailable", Code: "not_written",
		Message: "the job could not be written down, so it was not taken; send it again in a moment"}
	switch fault := db.FaultOf(err); fault {
	case "":
	case db.Full:
		p.status, p.Code, p.Message = http.StatusInsufficientStorage, "disk_full", fault.Refusal()
	default:
		p.Message = fault.Refusal()
	}
	p.wait(time.Time{}, time.Now())
	return p
}
