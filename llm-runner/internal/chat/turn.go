package chat

import (
	"context"
	"errors"
	"fmt"
	"runtime/debug"
	"strconv"
	"strings"
	"sync"
	"time"

	"home.arpa/lab/llm-runner/internal/llm"
	"home.arpa/lab/llm-runner/internal/toolbox/loop"
	"home.arpa/lab/llm-runner/internal/trace"
)

// flushEvery is how long what has come may wait for the disk.
const flushEvery = 75 * time.Millisecond

// live is a turn under way: its facts, and its whole log since it began.
type live struct {
	id, chat int64
	ctx      context.Context
	cancel   context.CancelCauseFunc
	done     chan struct{} // closed once the end is on disk and in the log

	mu       sync.Mutex
	turn     Turn
	text     []byte
	log      []Event
	changed  chan struct{} // closed at the next change; nil while nobody waits for it
	saved    int           // events of the log that are on disk
	stale    bool          // the turn's facts changed since they were written
	thinking strings.Builder
}

// start runs a recorded turn under the service's context.
func (s *Service) start(t Turn, req llm.Request, leave func()) {
	l := &live{id: t.ID, chat: t.Chat, turn: t, done: make(chan struct{})}
	ctx, span := s.config.Traces.Begin(s.ctx, trace.Turn, "")
	l.ctx, l.cancel = context.WithCancelCause(ctx)
	l.append(Event{Whole: true}, func(t *Turn) {}) // the log begins anew, whatever an earlier attempt had in it
	s.mu.Lock()
	s.live[l.id] = l
	s.mu.Unlock()
	s.changed(l.id)
	go func() {
		defer leave()
		defer l.cancel(nil)
		flushed := make(chan struct{})
		stop := make(chan struct{})
		go func() {
			defer close(flushed)
			s.flush(l, stop)
		}()
		err := s.stream(l, req)
		close(stop)
		<-flushed
		s.finish(l, err)
		l.told(span, err)
	}()
}

// told ends the turn's span with what is known of it.
func (l *live) told(span *trace.Span, err error) {
	if span.On() {
		_, t := l.message()
		span.Set(trace.Conversation, strconv.FormatInt(l.chat, 10))
		span.SetInt(trace.TurnID, l.id)
		span.Set(trace.State, string(t.State))
		span.Set(trace.Asked, t.Asked)
		span.Set(trace.Name, t.Route.Provider)
		span.Set(trace.Answered, t.Route.Model)
		span.Set(trace.Rule, t.Route.Rule)
		span.SetTotal(t.Usage)
		span.SetCost(t.Cost)
	}
	span.Done(err)
}

// stream ranges over the provider's answer. A provider that panics breaks its own turn only.
func (s *Service) stream(l *live, req llm.Request) (err error) {
	defer func() {
		if p := recover(); p != nil {
			s.log.Error("provider panicked", "turn", l.id, "panic", p, "stack", string(debug.Stack()))
			err = fmt.Errorf("internal fault while answering: %v", p)
		}
	}()
	req = s.remind(l, req)
	for ev, err := range s.provider.Stream(l.ctx, req) {
		if err != nil {
			return err
		}
		l.take(ev)
	}
	return nil
}

// take appends one of the provider's events to the log.
func (l *live) take(ev llm.Event) {
	begins := ev.Text != "" || ev.Thinking != "" || ev.Tool != nil
	facts := func(t *Turn) {
		if ev.Route != nil {
			t.Route = *ev.Route
		}
		if begins && t.State == Waiting {
			t.State, t.First = Streaming, max(time.Since(t.Started), 1)
		}
		if ev.Usage != nil {
			t.Usage = *ev.Usage
		}
		if ev.Finish != "" {
			t.Finish = ev.Finish
		}
		t.Citations = append(t.Citations, ev.Citations...)
		t.Private = t.Private || ev.Private
		if ev.Route != nil {
			t.told(ev.Route.Withheld > 0)
		}
	}
	l.mu.Lock()
	news := ev.Route != nil || ev.Tool != nil || begins && l.turn.State == Waiting || ev.Private && !l.turn.Private // that is on disk with the first such words
	l.mu.Unlock()
	if !news {
		// Usage, citations and the finish are told with the end; they need no event of their own.
		l.append(Event{Text: ev.Text, Thinking: ev.Thinking}, facts)
		return
	}
	l.append(Event{Text: ev.Text, Thinking: ev.Thinking, news: true}, facts)
}

// append changes the turn's facts, adds an event that has something to say to the log, and wakes readers.
func (l *live) append(ev Event, facts func(*Turn)) {
	l.mu.Lock()
	defer l.mu.Unlock()
	facts(&l.turn)
	if ev.news || ev.Whole {
		l.stale = true
		ev.Turn = l.snapshot()
	}
	if ev.Turn == nil && ev.Text == "" && ev.Thinking == "" {
		return
	}
	l.turn.Seq++
	ev.Seq = l.turn.Seq
	if ev.Turn != nil {
		ev.Turn.Seq = ev.Seq
	}
	l.text = append(l.text, ev.Text...)
	l.thinking.WriteString(ev.Thinking)
	l.log = append(l.log, ev)
	if l.changed != nil {
		close(l.changed)
		l.changed = nil
	}
}

// snapshot copies the turn's facts; the caller holds mu.
func (l *live) snapshot() *Turn {
	t := l.turn
	t.Thinking = l.thinking.String()
	return &t
}

// message returns what is known of the answer so far.
func (l *live) message() (text string, t *Turn) {
	l.mu.Lock()
	defer l.mu.Unlock()
	return string(l.text), l.snapshot()
}

// since returns the events after a place in the log. A place that is not in this log (it belongs to an earlier attempt,
// or is 0) means the beginning. Where there is none it returns a channel that is closed when there may be.
func (l *live) since(after int64) ([]Event, <-chan struct{}) {
	l.mu.Lock()
	defer l.mu.Unlock()
	from := after - l.log[0].Seq + 1
	if from < 0 || from > int64(len(l.log)) {
		from = 0
	}
	if from < int64(len(l.log)) {
		return l.log[from:len(l.log):len(l.log)], nil
	}
	if l.changed == nil {
		l.changed = make(chan struct{})
	}
	return nil, l.changed
}

// end cancels the turn and waits until its end is on disk.
func (l *live) end(ctx context.Context, cause error) error {
	l.cancel(cause)
	select {
	case <-l.done:
		return nil
	case <-ctx.Done():
		return ctx.Err()
	}
}

// flush writes what has come to disk, in batches, until stop.
func (s *Service) flush(l *live, stop <-chan struct{}) {
	tick := time.NewTicker(flushEvery)
	defer tick.Stop()
	for {
		select {
		case <-tick.C:
		case <-stop:
			return
		}
		err := s.save(l)
		if errors.Is(err, errLost) {
			l.cancel(errLost)
			return
		}
		if err != nil {
			s.log.Warn("write answer", "turn", l.id, "error", err) // kept in memory, and written with the next batch
		}
	}
}

// save writes the events that are not on disk yet as one piece.
func (s *Service) save(l *live) error {
	l.mu.Lock()
	fresh, stale, t := l.log[l.saved:], l.stale, l.turn
	n := len(l.log)
	l.mu.Unlock()
	if len(fresh) == 0 && !stale {
		return nil
	}
	var text, thinking strings.Builder
	for _, ev := range fresh {
		text.WriteString(ev.Text)
		thinking.WriteString(ev.Thinking)
	}
	if err := s.writePiece(t, stale, text.String(), thinking.String()); err != nil {
		return err
	}
	l.mu.Lock()
	l.saved, l.stale = n, false
	l.mu.Unlock()
	return nil
}

// finish records how the turn ended, then tells its readers: what they are told is on disk. While the disk refuses, the
// turn stays under way and the write is tried again. One that another process took over meanwhile is that one's.
func (s *Service) finish(l *live, err error) {
	text, t := l.message()
	conclude(t, text, err, context.Cause(l.ctx))
	s.markDue(t)
	t.Ended = time.Now()
	if s.config.Cost != nil && t.Route.Provider != "" {
		t.Cost = s.config.Cost(t.Route.Provider, t.Route.Model, t.Usage)
	}
	t.Seq++
	for {
		err := s.writeEnd(*t, text)
		if err == nil {
			break
		}
		if errors.Is(err, errLost) {
			t.State, t.Due = Interrupted, true // its readers go on with what the database has
			s.missed.Store(true)               // what is due there may not have reached the engine
			break
		}
		s.log.Error("write the end of an answer", "turn", l.id, "error", err)
		retry := time.NewTimer(time.Second)
		select {
		case <-retry.C:
			continue
		case <-s.ctx.Done():
			retry.Stop()
		}
		break // the next start finds what was flushed
	}
	if busy := (*llm.BusyError)(nil); s.config.Busy != nil && t.State == Held && errors.As(err, &busy) {
		s.config.Busy(busy)
	}
	if t.Due && t.State == Held {
		ctx, cancel := s.lasting()
		s.schedule(ctx, *t)
		if waits := (*llm.BusyError)(nil); errors.As(err, &waits) && waits.Provider == loop.Approval && s.config.Asks != nil {
			s.lookForWord(ctx, t)
		}
		cancel()
	}
	s.mu.Lock()
	if s.live[l.id] == l { // since its end is on disk it may have been asked again
		delete(s.live, l.id)
	}
	s.mu.Unlock()
	t.Seq--
	l.append(Event{news: true}, func(known *Turn) { *known = *t }) // readers that are told of it must not find l once more
	close(l.done)
}

// conclude says how a turn ended that got this far and then err; cause is why its context ended, if it did.
func conclude(t *Turn, text string, err, cause error) {
	came := text != "" || t.Thinking != ""
	var busy *llm.BusyError
	switch {
	case err == nil && t.Finish != "":
		t.State = Finished
		if text == "" {
			t.State, t.Error = Failed, "the model ended its answer without a word"
		}
	case errors.Is(cause, errStop), errors.Is(cause, errDelete):
		t.State = Stopped
	case errors.Is(cause, errRestart):
		t.State, t.Error = Interrupted, errRestart.Error()
	case errors.As(err, &busy) && (text == "" || t.Tools): // what came of a run with tools is kept by the run, and comes again
		t.State, t.Error, t.RetryAt = Held, busy.Reason, busy.Until
		if t.Route.Provider == "" {
			t.Route.Provider, t.Route.Model = busy.Provider, busy.Model
		}
	case err == nil:
		t.State, t.Error = Broken, "the stream stopped without saying that the answer was complete"
	case came:
		t.State, t.Error = Broken, sentence(err)
	default:
		t.State, t.Error = Failed, sentence(err)
	}
}

// sentence is an error for people.
func sentence(err error) string {
	var busy *llm.BusyError
	if errors.As(err, &busy) {
		return busy.Reason
	}
	return err.Error()
}
