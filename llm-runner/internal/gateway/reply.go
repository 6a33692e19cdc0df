package gateway

import (
	"net/http"
	"strconv"
	"sync"
	"time"

	"home.arpa/lab/llm-runner/internal/llm"
	"home.arpa/lab/llm-runner/internal/route"
)

// A reply is the response on its way to the client. While there is no answer yet, a timer may write comments beside the
// call; from begin, fail or silence on, the call has the response for itself.
type reply struct {
	w        http.ResponseWriter
	control  *http.ResponseController
	patience time.Duration
	tongue   *tongue
	decided  bool // the client can be told who answers
	hurried  time.Time
	cut      bool // the client has been told of the failure, or cannot be told any more: the connection just ends

	mu        sync.Mutex
	timer     *time.Timer // nil: no comments
	quiet     bool        // the timer must not write any more
	committed bool        // the status has been sent
}

// decide puts who answers into the headers. The last call before the status is sent counts.
func (o *reply) decide(provider, model, rule string) {
	o.mu.Lock()
	defer o.mu.Unlock()
	if o.committed {
		return
	}
	o.decided = true
	h := o.w.Header()
	h.Set("X-Runner-Provider", provider)
	h.Set("X-Runner-Model", model)
	h.Set("X-Runner-Rule", rule)
}

func (o *reply) decideFor(a *route.Attempt) {
	o.decide(a.Target.Provider, a.Target.Model, a.Decision.Rule)
}

// keepAlive writes a comment, or what else the client takes for a sign of life, whenever nothing has come for a while; see Config.KeepAlive.
func (o *reply) keepAlive(every time.Duration) {
	if every <= 0 || o.tongue.alive == "" {
		return
	}
	o.mu.Lock()
	defer o.mu.Unlock()
	o.timer = time.AfterFunc(every, func() {
		o.mu.Lock()
		defer o.mu.Unlock()
		if o.quiet {
			return
		}
		o.hurry()
		o.commitStream()
		if o.write([]byte(o.tongue.alive)) == nil && o.flush() == nil {
			o.timer.Reset(every)
		}
	})
}

// silence ends the comments. When it returns, none is being written and none will be.
func (o *reply) silence() {
	if o.timer == nil {
		return
	}
	o.timer.Stop()
	o.mu.Lock()
	o.quiet = true
	o.mu.Unlock()
}

// commitStream sends status 200 and the headers of a stream, once.
func (o *reply) commitStream() {
	if o.committed {
		return
	}
	o.committed = true
	h := o.w.Header()
	h.Set("Content-Type", o.tongue.kind)
	h.Set("Cache-Control", "no-cache")
	h.Set("X-Accel-Buffering", "no") // nginx would collect tokens
	o.w.WriteHeader(http.StatusOK)
}

// beginStream commits the response as a stream, with what the upstream's headers tell, and begins a's answer.
func (o *reply) beginStream(a *route.Attempt, upstream http.Header) error {
	o.silence()
	if o.committed {
		o.hurry()
		return o.name(a)
	}
	passHeader(o.w.Header(), upstream)
	o.commitStream()
	return nil
}

// begin commits the response as a whole body of length bytes; negative: not known.
func (o *reply) begin(upstream http.Header, length int64) {
	o.silence()
	h := o.w.Header()
	passHeader(h, upstream)
	h.Set("Content-Type", "application/json")
	if length >= 0 {
		h.Set("Content-Length", strconv.FormatInt(length, 10))
	}
	o.committed = true
	o.w.WriteHeader(http.StatusOK)
}

// write writes without flushing. A client that has gone, or does not read for too long, is an error of kind Cancelled.
func (o *reply) write(b []byte) error {
	if _, err := o.w.Write(b); err != nil {
		return &llm.Error{Kind: llm.Cancelled, Message: "the client went away", Err: err}
	}
	return nil
}

// flush sends what was written. It returns once the kernel has taken it: a slow client slows the upstream down.
func (o *reply) flush() error {
	if err := o.control.Flush(); err != nil {
		return &llm.Error{Kind: llm.Cancelled, Message: "the client went away", Err: err}
	}
	return nil
}

// hurry bounds how long writes from now on may take, to patience or little less, until the next hurry; relax lifts the
// bound, which would otherwise outlive the request.
func (o *reply) hurry() {
	if now := time.Now(); now.Sub(o.hurried) > o.patience/8 { // not for every token: a deadline is a timer
		o.hurried = now
		_ = o.control.SetWriteDeadline(now.Add(o.patience))
	}
}

func (o *reply) relax() {
	if !o.hurried.IsZero() {
		_ = o.control.SetWriteDeadline(time.Time{})
	}
}

// fail tells the client of a failure: as a response of its own, or, where the status has been sent, as an event. In the
// latter case it does not return: the connection is cut, so that the stream has no proper end.
func (o *reply) fail(p *problem) {
	o.silence()
	p.tongue = o.tongue
	if !o.committed {
		p.write(o.w)
		return
	}
	if !o.cut {
		p.body = nil // the words of an upstream are for its own status and headers
		o.hurry()    // what silenced the upstream may have lasted longer than the last bound
		_ = o.write(o.tongue.last(p))
		_ = o.flush()
	}
	panic(http.ErrAbortHandler)
}
