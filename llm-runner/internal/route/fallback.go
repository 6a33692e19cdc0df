package route

import (
	"context"
	"errors"
	"io"
	"math/rand/v2"
	"net/http"
	"syscall"
	"time"

	"home.arpa/lab/llm-runner/internal/llm"
)

// An outcome is what became of the targets of one request, none of which has answered.
type outcome struct {
	hold  *llm.BusyError // that ends first; nil: waiting for nobody would help
	fault *llm.BusyError // the first that is no hold: it failed, and may not the next time
	other error          // that is told where there is neither
	last  error
}

func (o *outcome) add(err error) {
	var b *llm.BusyError
	switch o.last = err; {
	case !errors.As(err, &b):
		o.other = err
	case b.Kind == llm.Unavailable && b.Err != nil:
		if o.fault == nil {
			o.fault = b
		}
	case o.hold == nil || !b.Until.IsZero() && (o.hold.Until.IsZero() || b.Until.Before(o.hold.Until)):
		o.hold = b
	}
}

func (o *outcome) err() error {
	switch {
	case o.hold == nil && o.fault == nil:
		return o.other
	case o.hold == nil:
		return o.fault
	}
	h := *o.hold
	h.Broken = o.fault != nil
	switch {
	case o.fault != nil:
		h.Reason += "; " + o.fault.Reason
	case o.other != nil:
		h.Reason += "; " + o.other.Error()
	}
	return &h
}

// replaceable says that another model may do what this one cannot do now, or can never do.
func replaceable(err error) bool {
	switch llm.KindOf(err) {
	case llm.Quota, llm.Overload, llm.Unavailable:
		return true
	}
	var e *llm.Error
	return errors.As(err, &e) && e.TooLong
}

// hiccup says that the provider failed at once, or hung up, before it had begun to answer, and named no time to come back: the
// same request may well succeed a moment later. Silence is no hiccup, for waiting twice as long helps nobody, and neither is a
// 504, which is somebody else's silence. A machine on which nobody listens is down.
func hiccup(err error) bool {
	var e *llm.Error
	if !errors.As(err, &e) || e.Kind != llm.Unavailable || e.Started || !e.Until.IsZero() {
		return false
	}
	switch e.Status {
	case http.StatusInternalServerError, http.StatusBadGateway:
		return true
	case 0:
		return errors.Is(e.Err, io.EOF) || errors.Is(e.Err, syscall.ECONNRESET)
	}
	return false
}

// aMoment waits a little, of which a part is chance lest all who failed together come back together; false when ctx ends.
func aMoment(ctx context.Context) bool {
	t := time.NewTimer(200*time.Millisecond + rand.N(200*time.Millisecond))
	defer t.Stop()
	select {
	case <-t.C:
		return true
	case <-ctx.Done():
		return false
	}
}

// moment is within what time the limit of a row's own target has to have room again, lest its fallback answers at once.
const moment = 3 * time.Second

// roomSoon waits until a limit has room again where that is within a moment and within the caller's wait; false where it is not.
func roomSoon(ctx context.Context, ask Ask, kind llm.Kind, until time.Time) bool {
	wait := time.Until(until)
	if kind != llm.Quota || until.IsZero() || wait > min(ask.Wait, moment) {
		return false
	}
	t := time.NewTimer(wait)
	defer t.Stop()
	select {
	case <-t.C:
		return true
	case <-ctx.Done():
		return false
	}
}

// told is until when a target is busy, where that is known; zero where it is a guess, or it is not busy.
func told(err error) time.Time {
	var b *llm.BusyError
	var e *llm.Error
	if !errors.As(err, &b) || errors.As(b.Err, &e) && e.Until.IsZero() {
		return time.Time{}
	}
	return b.Until
}

func busy(h Hold) *llm.BusyError {
	b := &llm.BusyError{Provider: h.Target.Provider, Model: h.Target.Model, Reason: h.Reason, Kind: h.Kind, Dimension: h.Dimension}
	if h.Until != nil {
		b.Until = *h.Until
	}
	return b
}
