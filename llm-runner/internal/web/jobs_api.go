package web

import (
	"context"
	"encoding/json"
	"errors"
	"io"
	"net/http"
	"slices"
	"strconv"
	"strings"
	"time"

	"home.arpa/lab/llm-runner/internal/db"
	"home.arpa/lab/llm-runner/internal/jobs"
	"home.arpa/lab/llm-runner/internal/sse"
)

// apiJob is a job as the API shows it.
type apiJob struct {
	jobs.Job
	Deadline string       `json:"deadline,omitempty"` // as a duration
	URL      string       `json:"url"`
	Timeline []jobs.Event `json:"timeline,omitempty"` // of one job, not in lists
}

func shown(j jobs.Job) apiJob {
	a := apiJob{Job: j, URL: "/api/jobs/" + strconv.FormatInt(j.ID, 10)}
	if j.Deadline > 0 {
		a.Deadline = j.Deadline.String()
	}
	return a
}

// apiError is what a caller is told that did something wrong, or came at a bad time.
type apiError struct {
	Message string            `json:"message"`
	Fields  []jobs.FieldError `json:"fields,omitempty"`
}

func (s *Site) apiFail(w http.ResponseWriter, r *http.Request, err error) {
	if errors.Is(err, errGone) || r.Context().Err() != nil {
		return
	}
	status, e := jobProblem(err)
	if status >= 500 {
		if r.Method == http.MethodGet && e.Message == notTaken {
			e.Message = "it could not be read; the log says why. Ask again in a moment"
		}
		if !db.Told(err) { // that one is told of once, not for every caller
			s.log.Error("serve the API", "path", r.URL.Path, "error", err)
		}
		w.Header().Set("Retry-After", "5")
	}
	w.Header().Set("Content-Type", "application/json")
	b, err := json.Marshal(map[string]apiError{"error": e})
	if err != nil {
		b = []byte("{}")
	}
	w.WriteHeader(status)
	w.Write(append(b, '\n')) //nolint:errcheck // the reader has left
}

// jobProblem says what an error of package jobs means for whoever asked.
func jobProblem(err error) (int, apiError) {
	var wrong jobs.SpecError
	var state *jobs.StateError
	var told problem
	var large *http.MaxBytesError
	switch {
	case errors.As(err, &wrong):
		return http.StatusUnprocessableEntity, apiError{Message: "the job cannot be taken: " + wrong.Error(), Fields: wrong}
	case errors.As(err, &state):
		return http.StatusConflict, apiError{Message: state.Error()}
	case errors.Is(err, jobs.ErrKeyUsed):
		return http.StatusUnprocessableEntity, apiError{Message: err.Error()}
	case errors.Is(err, jobs.ErrNotFound):
		return http.StatusNotFound, apiError{Message: err.Error()}
	case errors.As(err, &large):
		return http.StatusRequestEntityTooLarge, apiError{Message: "the job is larger than 4 MiB: shorten the prompt"}
	case errors.As(err, &told):
		return told.Status, apiError{Message: told.Says}
	}
	if status, says := unwritten(err); status != 0 {
		return status, apiError{Message: says}
	}
	return http.StatusServiceUnavailable, apiError{Message: notTaken}
}

const notTaken = "it could not be written down, so it was not taken; the log says why. Send it again in a moment"

// unwritten says what it means that something could not be written down; status 0 where it is not that.
func unwritten(err error) (status int, says string) {
	fault := db.FaultOf(err)
	switch fault {
	case "":
		return 0, ""
	case db.Full:
		return http.StatusInsufficientStorage, fault.Refusal()
	}
	return http.StatusServiceUnavailable, fault.Refusal()
}

func (s *Site) apiSubmit(w http.ResponseWriter, r *http.Request) error {
	var spec jobs.Spec
	d := json.NewDecoder(r.Body)
	d.DisallowUnknownFields()
	if err := d.Decode(&spec); err != nil {
		var large *http.MaxBytesError
		if errors.As(err, &large) {
			return err
		}
		says := "the body is not a job as JSON: " + strings.TrimPrefix(err.Error(), "json: ")
		var kind *json.UnmarshalTypeError
		switch {
		case errors.Is(err, io.EOF):
			says = `the body is empty: send {"prompt": "..."}`
		case errors.As(err, &kind):
			return jobs.SpecError{{Field: kind.Field, Text: "is a " + kind.Value + ", not a " + kind.Type.String()}}
		case strings.Contains(err.Error(), "unknown field "):
			field := strings.Trim(strings.SplitAfterN(err.Error(), "unknown field ", 2)[1], `"`)
			return jobs.SpecError{{Field: field, Text: "is not a field of a job: type, title, prompt, model, requires, project, priority, deadline, max_attempts, tools, plan, notify, output, request"}}
		}
		return problem{http.StatusBadRequest, "Not a job", says}
	}
	key := r.Header.Get("Idempotency-Key")
	if len(key) > 255 {
		return problem{http.StatusBadRequest, "Not a key", "the Idempotency-Key has more than 255 characters"}
	}
	j, fresh, err := s.Jobs.Submit(s.Traces.Incoming(r.Context(), r.Header), spec, key)
	if err != nil {
		return err
	}
	w.Header().Set("Location", shown(j).URL)
	w.Header().Set("Content-Type", "application/json")
	if fresh {
		w.WriteHeader(http.StatusAccepted)
	}
	return writeJSON(w, shown(j))
}

// apiJobs lists jobs: ?state=held,queued and ?limit=.
func (s *Site) apiJobs(w http.ResponseWriter, r *http.Request) error {
	var f jobs.Filter
	for name := range strings.SplitSeq(r.FormValue("state"), ",") {
		if name == "" {
			continue
		}
		if !slices.Contains(jobs.States, jobs.State(name)) {
			return jobs.SpecError{{Field: "state", Text: strconv.Quote(name) + " is not one of queued, running, held, done, failed, cancelled"}}
		}
		f.States = append(f.States, jobs.State(name))
	}
	if n := r.FormValue("limit"); n != "" {
		limit, err := strconv.Atoi(n)
		if err != nil || limit < 1 || limit > 1000 {
			return jobs.SpecError{{Field: "limit", Text: strconv.Quote(n) + " is not a number between 1 and 1000"}}
		}
		f.Limit = limit
	}
	all, err := s.Jobs.Jobs(r.Context(), f)
	if err != nil {
		return err
	}
	counts, err := s.Jobs.Counts(r.Context())
	if err != nil {
		return err
	}
	out := []apiJob{}
	for _, j := range all {
		out = append(out, shown(j))
	}
	return writeJSON(w, struct {
		Jobs   []apiJob           `json:"jobs"`
		Counts map[jobs.State]int `json:"counts"`
	}{out, counts})
}

func (s *Site) apiOneJob(w http.ResponseWriter, r *http.Request) error {
	return s.showJob(w, r, s.Jobs.Job)
}

// showJob writes the job that do returns, with its timeline.
func (s *Site) showJob(w http.ResponseWriter, r *http.Request, do func(context.Context, int64) (jobs.Job, error)) error {
	id, err := jobNumber(r)
	if err != nil {
		return err
	}
	if _, err := do(r.Context(), id); err != nil {
		return err
	}
	j, err := s.Jobs.Job(r.Context(), id)
	if err != nil {
		return err
	}
	a := shown(j)
	if a.Timeline, err = s.Jobs.Timeline(r.Context(), id, 0); err != nil {
		return err
	}
	return writeJSON(w, a)
}

func jobNumber(r *http.Request) (int64, error) {
	id, err := strconv.ParseInt(r.PathValue("id"), 10, 64)
	if err != nil || id <= 0 {
		return 0, jobs.ErrNotFound
	}
	return id, nil
}

// apiJobEvents streams a job's timeline until it has ended:
//
//	transition  jobs.Event; its id is the place in the timeline, for Last-Event-ID or ?after=
//	text        jobs.Piece: the answer as it arrives, while this process runs the job
//	end         the job, with its answer
//	restart     the server is about to stop: come back in a moment
func (s *Site) apiJobEvents(w http.ResponseWriter, r *http.Request) error {
	after := afterOf(r)
	return s.followJob(w, r, after, func(out *sse.Writer, news jobs.News) error {
		for _, e := range news.Events {
			after = e.Seq
			if err := event(out, "transition", e.Seq, e); err != nil {
				return err
			}
		}
		if news.Piece != nil {
			return event(out, "text", -1, news.Piece)
		}
		return nil
	}, func(out *sse.Writer, j jobs.Job) error { return event(out, "end", after, shown(j)) })
}

// jobEvents streams a job to its page until it has ended:
//
//	change   something happened to it: the page is another one
//	blocks   [[index, html], ...]: the changed blocks of the answer that arrives, as those of a turn
//	restart  the server is about to stop: come back in a moment
func (s *Site) jobEvents(w http.ResponseWriter, r *http.Request) error {
	stream, text := newStream(s.markdown), ""
	return s.followJob(w, r, 0, func(out *sse.Writer, news jobs.News) error {
		if len(news.Events) > 0 {
			if err := out.Event("change", -1, []byte("{}")); err != nil {
				return err
			}
			if text != "" && news.Events[len(news.Events)-1].To != jobs.Running { // what had come of it is not kept
				text = ""
				stream.restart()
				return event(out, "blocks", -1, []change{{0, ""}})
			}
		}
		if news.Piece == nil {
			return nil
		}
		if text += news.Piece.Text; news.Piece.Whole {
			stream.restart()
			text = news.Piece.Text
		}
		changes := stream.update(text)
		if len(changes) == 0 {
			return nil
		}
		return event(out, "blocks", -1, changes)
	}, func(out *sse.Writer, _ jobs.Job) error { return out.Event("change", -1, []byte("{}")) })
}

func event(out *sse.Writer, name string, id int64, v any) error {
	data, err := encode(v)
	if err != nil {
		return err
	}
	return out.Event(name, id, data)
}

// afterOf is the place from which a reader goes on.
func afterOf(r *http.Request) int64 {
	after, err := strconv.ParseInt(r.Header.Get("Last-Event-ID"), 10, 64)
	if err != nil {
		after, _ = strconv.ParseInt(r.FormValue("after"), 10, 64)
	}
	return after
}

// pieceRest is how long a reader of an arriving answer is left alone after each of its pieces.
const pieceRest = 80 * time.Millisecond

// followJob streams what is said of the news of a job, and of its end.
func (s *Site) followJob(w http.ResponseWriter, r *http.Request, after int64, tell func(*sse.Writer, jobs.News) error, end func(*sse.Writer, jobs.Job) error) error {
	id, err := jobNumber(r)
	if err != nil {
		return err
	}
	if _, err := s.Jobs.Job(r.Context(), id); err != nil {
		return err
	}
	return s.stream(w, r, func(ctx context.Context, out *sse.Writer, sent func() error) error {
		for news, err := range s.Jobs.Events(ctx, id, after) {
			if err != nil {
				return err
			}
			began := time.Now()
			if len(news.Events) == 0 && news.Piece == nil {
				err = out.Comment("still here")
			} else {
				err = tell(out, news)
			}
			if err == nil {
				err = sent()
			}
			if err != nil {
				return err
			}
			if news.Piece != nil {
				rest(ctx, min(max(pieceRest, 9*time.Since(began)), time.Second))
			}
		}
		j, err := s.Jobs.Job(ctx, id)
		if err != nil {
			return err
		}
		if err := end(out, j); err != nil {
			return err
		}
		return sent()
	})
}

// rest waits, or until ctx ends.
func rest(ctx context.Context, d time.Duration) {
	t := time.NewTimer(d)
	defer t.Stop()
	select {
	case <-t.C:
	case <-ctx.Done():
	}
}

// queueEvents tells a page that some job has changed: "change", at most twice a second.
func (s *Site) queueEvents(w http.ResponseWriter, r *http.Request) error {
	return s.stream(w, r, func(ctx context.Context, out *sse.Writer, sent func() error) error {
		still := time.NewTicker(15 * time.Second)
		defer still.Stop()
		changed := s.Jobs.Changed()
		for {
			if err := sent(); err != nil {
				return err
			}
			select {
			case <-changed:
				changed = s.Jobs.Changed() // what changes during the rest is told after it
				if err := out.Event("change", -1, []byte("{}")); err != nil {
					return err
				}
				if err := sent(); err != nil {
					return err
				}
				rest(ctx, 500*time.Millisecond)
			case <-still.C:
				if err := out.Comment("still here"); err != nil {
					return err
				}
			case <-ctx.Done():
				return context.Cause(ctx)
			}
		}
	})
}

// stream answers with server-sent events that say writes; sent flushes them. When the server stops, the reader is told.
func (s *Site) stream(w http.ResponseWriter, r *http.Request, say func(ctx context.Context, out *sse.Writer, sent func() error) error) error {
	ctx, cancel := context.WithCancelCause(r.Context())
	defer cancel(nil)
	defer context.AfterFunc(s.drain, func() { cancel(errDrain) })()
	h := w.Header()
	h.Set("Content-Type", "text/event-stream")
	h.Set("X-Accel-Buffering", "no") // nginx passes events on as they come
	out, flush := sse.NewWriter(w), http.NewResponseController(w)
	defer flush.SetWriteDeadline(time.Time{}) //nolint:errcheck // the connection serves other requests after this one
	sent := func() error {
		if err := flush.SetWriteDeadline(time.Now().Add(patience)); err != nil {
			return err
		}
		return flush.Flush()
	}
	err := say(ctx, out, sent)
	if errors.Is(err, errDrain) {
		out.Event("restart", -1, []byte("{}")) //nolint:errcheck // it may have left already
		err = sent()
	}
	if err != nil {
		s.log.Debug("event stream ended", "path", r.URL.Path, "error", err)
	}
	return nil
}
