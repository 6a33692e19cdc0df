package gateway

import (
	"bytes"
	"errors"
	"fmt"
	"io"
	"mime"
	"net/http"
	"sync"
	"time"

	"home.arpa/lab/llm-runner/internal/llm"
	"home.arpa/lab/llm-runner/internal/provider/openai/wire"
	"home.arpa/lab/llm-runner/internal/route"
	"home.arpa/lab/llm-runner/internal/sse"
)

// maxEarly bounds the comments that are kept until the answer begins.
const maxEarly = 4 << 10

// farewell is how long the upstream may take to end its response after [DONE]: a connection that has ended properly is
// used again, another is closed.
const farewell = 50 * time.Millisecond

// A relay passes the events of one stream on.
type relay struct {
	*call
	reply   *reply
	attempt *route.Attempt
	resp    *http.Response
	*buffers
	store        // events that are held back
	strip bool   // the chunk that tells usage alone is not the client's
	begun bool   // the client has seen a part of this answer
	early []byte // comments from before
}

// passStream passes a stream on, event by event. Until the first event with data the client sees nothing of it and
// another target may still answer.
func (c *call) passStream(a *route.Attempt, resp *http.Response, strip bool) error {
	r := &relay{call: c, reply: &c.out, attempt: a, resp: resp, strip: strip, store: store{back: c.heldBack(a)}}
	if kind, _, _ := mime.ParseMediaType(resp.Header.Get("Content-Type")); kind != "text/event-stream" {
		first, err := peek(resp.Body)
		if err != nil {
			return broken(a, resp, err)
		}
		resp.Body = body{io.MultiReader(bytes.NewReader(first), resp.Body), resp.Body}
		if !looksLikeEvents(first) {
			return r.answerWhole(kind)
		}
	}
	r.buffers = kept.Get().(*buffers)
	r.events.Reset(r)
	defer r.giveBack()
	err := r.run()
	if len(r.pending) > 0 {
		err = errors.Join(err, r.drain()) // what came before the failure is the client's
	}
	a.Used(c.watch.usage)
	return err
}

// buffers are kept between streams. They are large so that a fast stream is read, and sent, in few pieces.
type buffers struct {
	events  *sse.Reader
	pending []byte // events that wait to be written
}

const bufferSize = 32 << 10

var kept = sync.Pool{New: func() any {
	return &buffers{sse.NewReaderSize(nil, bufferSize), make([]byte, 0, bufferSize)}
}}

// giveBack returns the buffers, unless a large event has made them large. Nothing of them is used after this.
func (r *relay) giveBack() {
	b := r.buffers
	r.buffers = nil
	if b.events.Size() <= 2*bufferSize {
		b.events.Reset(nil)
		b.pending = b.pending[:0]
		kept.Put(b)
	}
}

func (r *relay) run() error {
	for {
		ev, err := r.events.Next()
		//nolint:errorlint // Next returns it bare; wrapped in another error it is a connection that broke
		if err == io.ErrUnexpectedEOF && believable(r.events.Partial().Data) {
			ev, err = r.events.Partial(), nil // some servers forget the empty line behind their last event
			ev.Raw = append(bytes.Clone(ev.Raw), "\n\n"...)
		}
		if err != nil {
			return r.ended(err)
		}
		if done, err := r.pass(ev); done || err != nil {
			return err
		}
	}
}

// believable says whether the data of an event whose end never came is complete all the same.
func believable(data []byte) bool {
	c := cursor{text: data}
	c.value()
	c.end()
	return c.fault() == nil || isDone(data)
}

// Read reads from the upstream, and sends first what waits to be sent: reading is the one place where the relay may have
// to wait, and events that come together leave together.
func (r *relay) Read(p []byte) (int, error) {
	if len(r.pending) > 0 {
		if err := r.flush(); err != nil {
			return 0, err
		}
	}
	return r.resp.Body.Read(p)
}

// flush sends what waits.
func (r *relay) flush() error {
	if err := r.drain(); err != nil {
		return err
	}
	return r.reply.flush()
}

// drain writes what waits.
func (r *relay) drain() error {
	r.reply.hurry()
	err := r.reply.write(r.pending)
	r.pending = r.pending[:0]
	return err
}

// pass handles one event and says whether it was the last.
func (r *relay) pass(ev sse.Event) (done bool, err error) {
	data := bytes.TrimSpace(ev.Data)
	switch {
	case len(data) == 0:
		return false, r.comment(ev.Raw)
	case isDone(data):
		return true, r.finish(ev.Raw)
	}
	if err := r.watch.object(data); err != nil {
		return false, r.broken(fmt.Errorf("sent an event that is %w", err))
	}
	switch {
	case r.watch.failed || string(ev.Name) == "error":
		return false, r.refusal(ev, data)
	case r.watch.broken:
		return false, r.broken(errors.New("gave up in the middle of the answer"))
	case r.strip && r.watch.counted && r.watch.choices == 0:
		return false, nil
	}
	return false, r.send(ev.Raw)
}

// send puts an event on its way to the client. It leaves before the next read from the upstream.
func (r *relay) send(raw []byte) error {
	if r.keep(raw) {
		return nil
	}
	if err := r.begin(); err != nil {
		return err
	}
	if len(r.pending)+len(raw) > cap(r.pending) {
		if err := r.drain(); err != nil {
			return err
		}
		if len(raw) > cap(r.pending) {
			if err := r.reply.write(raw); err != nil {
				return err
			}
			return r.reply.flush()
		}
	}
	r.pending = append(r.pending, raw...)
	return nil
}

// begin shows the client the answer: from here on no other target may answer.
func (r *relay) begin() error {
	if r.begun {
		return nil
	}
	r.begun = true
	r.attempt.First()
	if err := r.reply.beginStream(r.attempt, r.resp.Header); err != nil {
		return err
	}
	r.pending = append(r.pending, r.early...)
	if held := r.release(); len(held) > 0 {
		return errors.Join(r.drain(), r.reply.write(held)) // drain hurries
	}
	return nil
}

// comment passes a block without data on, once the answer has begun: it must not be the one that commits the status.
func (r *relay) comment(raw []byte) error {
	if r.begun {
		return r.send(raw)
	}
	if len(r.early)+len(raw) <= maxEarly {
		r.early = append(r.early, raw...)
	}
	return nil
}

var doneEvent = []byte("data: [DONE]\n\n")

// finish passes the end mark on, if the answer is whole.
func (r *relay) finish(raw []byte) error {
	if !r.watch.whole() {
		return r.broken(errors.New("ended the stream without a finish_reason"))
	}
	r.back = false
	if err := r.send(raw); err != nil {
		return err
	}
	r.attempt.Finished()
	if err := r.flush(); err != nil {
		return nil //nolint:nilerr // the answer was whole; that the client left at its last byte is its own affair
	}
	late := time.AfterFunc(farewell, func() { _ = r.resp.Body.Close() })
	defer late.Stop()
	var rest [512]byte
	for n := 0; n < 64<<10; {
		m, err := r.resp.Body.Read(rest[:])
		if err != nil {
			break
		}
		n += m
	}
	return nil
}

// ended handles the end of the stream without an end mark.
func (r *relay) ended(err error) error {
	var e *llm.Error
	if errors.As(err, &e) && e.Kind == llm.Cancelled {
		return e
	}
	if r.watch.whole() {
		return r.finish(doneEvent) // nothing of the answer is missing: a reset behind its end hurts nobody
	}
	if e != nil {
		return r.broken(e)
	}
	switch {
	case errors.Is(err, io.EOF) && !r.begun && len(r.kept) == 0:
		err = errors.New("ended the stream before the answer began")
	case errors.Is(err, io.EOF):
		err = errors.New("ended the stream in the middle of the answer")
	case errors.Is(err, io.ErrUnexpectedEOF):
		err = errors.New("ended the stream in the middle of an event")
	}
	return r.broken(err)
}

// refusal handles an error event. In the middle of an answer the client gets it as it came.
func (r *relay) refusal(ev sse.Event, data []byte) error {
	err := refused(r.attempt, r.resp, bytes.Clone(data))
	if r.begun && r.watch.failed {
		if err := r.send(ev.Raw); err != nil {
			return err
		}
		r.reply.cut = true
		if err := r.flush(); err != nil {
			return err
		}
	}
	return err
}

func (r *relay) broken(err error) error {
	err = broken(r.attempt, r.resp, err)
	var e *llm.Error
	if errors.As(err, &e) && e.Kind != llm.Cancelled {
		e.Started = r.begun
	}
	return err
}

// answerWhole makes a stream of an answer that came in one piece: some servers do not stream.
func (r *relay) answerWhole(kind string) error {
	text, err := readAll(r.resp.Body, 4<<10, maxHeld)
	if err != nil {
		return r.broken(err)
	}
	if err := r.watch.object(text); err != nil {
		return r.broken(fmt.Errorf("answered with %s that is no event stream", or(kind, "something")))
	}
	if r.watch.failed {
		return refused(r.attempt, r.resp, text)
	}
	answer, err := wire.ParseResponse(text)
	if err != nil {
		return r.broken(err)
	}
	r.attempt.Used(answer.Usage)
	s := r.newSpeaker(r.attempt, r.head.usage)
	s.header = r.resp.Header
	for _, ev := range events(answer) {
		if err := s.say(ev); err != nil {
			return err
		}
	}
	return s.finish()
}

// A body reads from one place and closes another.
type body struct {
	io.Reader
	io.Closer
}

// peek reads until there is something to judge by, at most 64 bytes.
func peek(r io.Reader) ([]byte, error) {
	var b [64]byte
	for n := 0; ; {
		m, err := r.Read(b[n:])
		n += m
		if text := bytes.TrimLeft(b[:n], "\xef\xbb\xbf \t\r\n"); len(text) >= 6 || err != nil || n == len(b) {
			if errors.Is(err, io.EOF) {
				err = nil
			}
			return b[:n], err
		}
	}
}

// looksLikeEvents says that text begins like an event stream, whatever its label says.
func looksLikeEvents(text []byte) bool {
	text = bytes.TrimLeft(text, "\xef\xbb\xbf \t\r\n")
	for _, begin := range []string{":", "data:", "event:", "id:", "retry:"} {
		if bytes.HasPrefix(text, []byte(begin)) {
			return true
		}
	}
	return false
}
