package web

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"net/http"
	"time"

	"home.arpa/lab/llm-runner/internal/chat"
	"home.arpa/lab/llm-runner/internal/sse"
)

// stateEvent is the data of a state event: where the turn stands, and what now stands under the answer.
type stateEvent struct {
	State   chat.State `json:"state"`
	Running bool       `json:"running"`
	Over    bool       `json:"over"` // the stream ends: nothing more comes by itself
	Says    string     `json:"says"` // for screen readers
	Line    string     `json:"line"` // HTML
}

// events streams a turn:
//
//	blocks   [[index, html], ...]: the answer's changed blocks; what lies beyond the last one is to be removed
//	state    stateEvent; after one with over=true the stream ends
//	restart  the server is about to stop: come back in a moment
//
// The id of an event is the place in the turn's log that it leads up to. A reader that comes back with it, as
// Last-Event-ID or ?after=, gets what changed since.
func (s *Site) events(w http.ResponseWriter, r *http.Request) error {
	turn, err := number(r)
	if err != nil {
		return err
	}
	if _, err := s.Chats.Turn(r.Context(), turn); err != nil {
		return err
	}
	after := afterOf(r)
	h := w.Header()
	h.Set("Content-Type", "text/event-stream")
	h.Set("X-Accel-Buffering", "no") // nginx passes events on as they come
	f := &follower{ctx: r.Context(), site: s, turn: turn, after: after, out: sse.NewWriter(w), flush: http.NewResponseController(w), stream: newStream(s.markdown)}
	if err := f.follow(); err != nil {
		s.log.Debug("event stream ended", "turn", turn, "error", err)
	}
	return nil
}

// patience is how long one write to a reader may take.
const patience = 30 * time.Second

// A follower shows one turn to one reader.
type follower struct {
	ctx    context.Context // of the request
	site   *Site
	turn   int64
	after  int64 // the place up to which the reader has seen the log
	out    *sse.Writer
	flush  *http.ResponseController
	stream *stream
	text   []byte
	said   chat.State
	begun  bool // text of the answer has been announced
}

func (f *follower) follow() error {
	ctx, cancel := context.WithCancelCause(f.ctx)
	defer cancel(nil)
	defer context.AfterFunc(f.site.drain, func() { cancel(errDrain) })()
	defer f.flush.SetWriteDeadline(time.Time{}) //nolint:errcheck // the connection serves other requests after this one
	first := true
	// The log is read from its beginning: what the reader has is worked out, not remembered.
	for batch, err := range f.site.Chats.Events(ctx, f.turn, f.from()) {
		if err != nil {
			if errors.Is(err, errDrain) {
				f.out.Event("restart", -1, []byte("{}")) //nolint:errcheck // it may have left already
				return f.flush.Flush()
			}
			return err
		}
		began := time.Now()
		// A stream outlives the server's limit for ordinary answers; a reader that takes nothing for so long is gone.
		if err := f.flush.SetWriteDeadline(began.Add(patience)); err != nil {
			return err
		}
		if len(batch) == 0 {
			if err := f.out.Comment("still here"); err != nil {
				return err
			}
		}
		if err := f.show(batch, first); err != nil {
			return err
		}
		first = false
		if err := f.flush.Flush(); err != nil {
			return err
		}
		rest(ctx, f.pace(time.Since(began)))
	}
	return nil
}

// from is where reading begins: at the beginning, unless the reader has seen the end of a turn that is over.
func (f *follower) from() int64 {
	if t, err := f.site.Chats.Turn(f.ctx, f.turn); err == nil && !t.State.Running() && t.Seq == f.after {
		return f.after
	}
	return 0
}

// show sends what a batch changes. In the first batch events up to the reader's place are only taken in.
func (f *follower) show(batch []chat.Event, first bool) error {
	if first && len(batch) > 0 {
		known := 0
		for known < len(batch) && batch[known].Seq <= f.after {
			known++
		}
		if known > 0 && batch[known-1].Seq == f.after {
			state := f.take(batch[:known])
			f.stream.update(string(f.text))
			f.begun = len(f.text) > 0
			batch = batch[known:]
			if len(batch) == 0 && state != nil && !state.State.Running() {
				return f.tell(f.after, state) // the reader missed only that it is over
			}
		}
	}
	state := f.take(batch)
	if len(batch) == 0 {
		return nil
	}
	seq := batch[len(batch)-1].Seq
	var changes []change
	if state != nil && !state.State.Running() {
		if len(f.text) > 0 || len(batch) > 1 || batch[0].Whole {
			changes = f.stream.finish(string(f.text), f.site.linked(state.Citations))
		}
	} else {
		changes = f.stream.update(string(f.text))
	}
	if len(changes) == 0 && batch[0].Whole {
		changes = []change{{0, ""}} // whatever the reader has, there is nothing
	}
	if len(changes) > 0 {
		data, err := encode(changes)
		if err != nil {
			return err
		}
		if err := f.out.Event("blocks", seq, data); err != nil {
			return err
		}
	}
	if state == nil && !f.begun && len(f.text) > 0 {
		t, err := f.site.Chats.Turn(f.ctx, f.turn)
		if err != nil {
			return err
		}
		state = &t
	}
	if state == nil {
		return nil
	}
	f.begun = f.begun || len(f.text) > 0
	return f.tell(seq, state)
}

// take adds events to the text and returns the newest facts among them, if any.
func (f *follower) take(batch []chat.Event) (state *chat.Turn) {
	for _, ev := range batch {
		if ev.Whole {
			f.text = f.text[:0]
			f.stream.restart()
		}
		f.text = append(f.text, ev.Text...)
		if ev.Turn != nil {
			state = ev.Turn
		}
	}
	return state
}

func (f *follower) tell(seq int64, t *chat.Turn) error {
	m, err := f.site.Chats.Message(f.ctx, f.turn)
	if err != nil {
		return err
	}
	m.Turn = t
	l := f.site.line(m)
	l.Text = len(f.text) > 0
	var b bytes.Buffer
	if err := f.site.pages["parts"].ExecuteTemplate(&b, "line", l); err != nil {
		return err
	}
	says := ""
	if t.State != f.said {
		says, f.said = announce(t), t.State
	}
	data, err := encode(stateEvent{t.State, t.State.Running(), t.Over(), says, b.String()})
	if err != nil {
		return err
	}
	return f.out.Event("state", seq, data)
}

// announce is a state for somebody who does not see the page.
func announce(t *chat.Turn) string {
	switch t.State {
	case chat.Waiting:
		return "Waiting for the model"
	case chat.Streaming:
		return "The answer is arriving"
	case chat.Finished:
		return "The answer is complete"
	case chat.Stopped:
		return "The answer was stopped"
	case chat.Held:
		if t.Due {
			return "Nobody can answer now; it goes on by itself"
		}
		return "Nobody can answer now; your question is kept"
	}
	return "The answer ended early: " + string(t.State)
}

// pace is how long the reader is left alone after an update that took so long to make: at most 12 updates a second, at
// most a tenth of a processor, and at most about 200 kB a second for an open block that is sent again each time.
func (f *follower) pace(cost time.Duration) time.Duration {
	open := 0
	if n := len(f.stream.sent); n > 0 {
		open = len(f.stream.sent[n-1])
	}
	return min(max(80*time.Millisecond, 9*cost, time.Duration(open)*time.Second/200_000), time.Second)
}

// encode is JSON whose HTML is not escaped once more.
func encode(v any) ([]byte, error) {
	var b bytes.Buffer
	e := json.NewEncoder(&b)
	e.SetEscapeHTML(false)
	err := e.Encode(v)
	return bytes.TrimSuffix(b.Bytes(), []byte("\n")), err
}
