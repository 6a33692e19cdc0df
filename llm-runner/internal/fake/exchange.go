package fake

import (
	"bytes"
	"cmp"
	"compress/gzip"
	"io"
	"net/http"
	"strconv"
	"strings"
	"time"

	"home.arpa/lab/llm-runner/internal/embed"
	"home.arpa/lab/llm-runner/internal/fake/script"
)

// An exchange is one request being answered.
type exchange struct {
	server *Server
	w      http.ResponseWriter
	r      *http.Request
	entry  *Seen
	ask    ask
	status int
	whole  bool // everything that was meant to be sent has been, or the connection was cut on purpose
}

func (x *exchange) close() {
	s := x.server
	gone := !x.whole && x.r.Context().Err() != nil
	s.log.update(x.entry, func(e *Seen) {
		e.Status, e.Done = x.status, s.now()
		if gone {
			e.Cancelled = e.Done
		}
	})
}

// answer gives a chat or an embedding, unless a fault or a limit is in the way.
func (x *exchange) answer(now time.Time) {
	s, a := x.server, x.ask
	rule, r := s.script.Answer(a.model, a.input)
	fault, shapes := s.script.FaultsOf(s.next(), r)

	c := cost{input: script.Tokens(a.prompt)}
	if a.op == opChat {
		u := r.Told(a.prompt)
		c = cost{input: u.Input.Or(c.input), output: u.Output.Or(script.Tokens(r.Text))}
	}
	levels, full := s.limits.admit(now, a.model, c)
	if full != nil || fault == nil || fault.Kind.Status() != http.StatusTooManyRequests { // else the headers would contradict the refusal
		s.dialect.tell(x.w.Header(), levels)
	}
	if full != nil {
		x.refuse(refusal{kind: script.RateLimited, wait: full.wait, level: full, tokens: c.input + c.output})
		return
	}
	if fault != nil {
		if x.breakEarly(*fault) {
			return
		}
		if a.op == opEmbed {
			x.refuse(refusal{kind: script.Internal, message: fault.Message}) // embeddings do not stream: nothing to break
			return
		}
	}
	if !x.pause(r.Delay) {
		return
	}
	if n := x.tooLong(); n > 0 {
		x.refuse(refusal{kind: script.BadRequest, message: s.dialect.tooLong(n, s.script.Context)})
		return
	}
	var late time.Duration
	if fault != nil && fault.Kind == script.SlowFirstToken {
		fault, late = nil, fault.Wait
	}
	switch {
	case a.op == opEmbed:
		x.send("application/json", s.dialect.embeddings(a, x.vectors()))
	case !a.stream || shapes[script.JSON200]:
		x.sendWhole(s.renders.answer(s.dialect, rule, a, r), fault, late)
	default:
		x.sendStream(s.renders.stream(s.dialect, rule, a, r), r, fault, shapes, late)
	}
}

// breakEarly does the faults that need no answer, and says whether it did.
func (x *exchange) breakEarly(f script.Fault) bool {
	switch {
	case f.Kind.Refuses():
		x.refuse(refusal{kind: f.Kind, message: f.Message, wait: f.Wait})
	case f.Kind == script.ResetBeforeHeaders:
		x.cut()
	case f.Kind == script.StallBeforeHeaders:
		x.stall()
	case f.Kind == script.HTML200:
		x.send("text/html; charset=utf-8", []byte("<!doctype html><html><head><title>Maintenance</title></head><body>Back soon.</body></html>\n"))
	case f.Kind == script.Error200:
		_, body := x.server.dialect.refuse(x.ask, refusal{kind: script.Internal, message: f.Message}, http.Header{})
		x.send("application/json", body)
	case f.Kind == script.Verbatim:
		x.verbatim(f)
	default:
		return false
	}
	return true
}

// verbatim sends what the script says, to the byte.
func (x *exchange) verbatim(f script.Fault) {
	h := x.w.Header()
	h["Content-Type"] = []string{"application/json"}
	for k, v := range f.Headers {
		h.Set(k, v)
	}
	x.begin(cmp.Or(f.Status, http.StatusOK))
	_, err := io.WriteString(x.w, f.Body)
	x.whole = err == nil
}

// tooLong returns the tokens of a text to embed that is longer than the model reads, 0 where there is none or it is cut.
func (x *exchange) tooLong() int64 {
	limit := x.server.script.Context
	for i, t := range x.ask.texts {
		switch n := script.Tokens(t); {
		case limit <= 0 || n <= limit:
		case x.ask.cuts:
			x.ask.texts[i] = strings.Join(strings.Fields(t)[:limit], " ")
			x.ask.prompt = strings.Join(x.ask.texts, "\n") // what was read is what is counted
		default:
			return n
		}
	}
	return 0
}

func (x *exchange) vectors() [][]float32 {
	dims := x.ask.dims
	if dims <= 0 {
		dims = x.server.script.Dimensions
	}
	if dims <= 0 {
		dims = embed.CardOf(x.ask.model).Dimensions
	}
	if dims <= 0 {
		dims = 64
	}
	out := make([][]float32, len(x.ask.texts))
	for i, t := range x.ask.texts {
		out[i] = script.Vector(t, dims)
	}
	return out
}

// refuse sends an error response.
func (x *exchange) refuse(f refusal) {
	status, body := x.server.dialect.refuse(x.ask, f, x.w.Header())
	x.w.Header().Set("Content-Type", "application/json")
	x.begin(status)
	_, _ = x.w.Write(body)
	x.whole = true
}

// send sends a whole response.
func (x *exchange) send(contentType string, body []byte) {
	x.w.Header().Set("Content-Type", contentType)
	x.w.Header().Set("Content-Length", strconv.Itoa(len(body)))
	x.begin(http.StatusOK)
	_, err := x.w.Write(body)
	x.whole = err == nil
}

// sendWhole sends an answer that is not streamed, or the part of it that a fault lets through.
func (x *exchange) sendWhole(body []byte, fault *script.Fault, late time.Duration) {
	if late > 0 {
		x.w.Header().Set("Content-Type", "application/json")
		x.begin(http.StatusOK)
		x.flush()
		if x.pause(late) {
			_, err := x.w.Write(body)
			x.whole = err == nil
		}
		return
	}
	if fault == nil || fault.Kind == script.ResetAfterFinish {
		x.send("application/json", body)
		return
	}
	switch fault.Kind {
	case script.MalformedChunk:
		x.send("application/json", body[:len(body)-3])
	case script.ErrorMidStream:
		x.refuse(refusal{kind: script.Internal, message: fault.Message})
	default: // a reset, a stall, an early end
		x.w.Header().Set("Content-Type", "application/json")
		x.w.Header().Set("Content-Length", strconv.Itoa(len(body)))
		x.begin(http.StatusOK)
		_, _ = x.w.Write(body[:len(body)/2])
		x.flush()
		switch fault.Kind {
		case script.StallMidStream:
			x.stall()
		case script.CloseMidStream:
			x.hangUp(false)
		default:
			x.cut()
		}
	}
}

// sendStream sends the frames of a stream as fault and shapes have it.
func (x *exchange) sendStream(st stream, r script.Rule, fault *script.Fault, shapes map[script.FaultKind]bool, late time.Duration) {
	x.w.Header().Set("Content-Type", x.server.dialect.streamType(x.ask))
	x.w.Header().Set("Cache-Control", "no-cache")
	if fault == nil && shapes == nil && r.ChunkDelay == 0 && late == 0 { // as fast as it goes
		x.begin(http.StatusOK)
		_, err := x.w.Write(st.joined)
		x.flush()
		x.whole = err == nil
		return
	}
	out := x.shaped(shapes)
	if x.flush(); !x.pause(late) {
		return
	}
	half := (len(st.frames) + 1) / 2
	for i, f := range st.frames {
		if i > 0 && !x.pause(r.ChunkDelay) {
			return
		}
		if fault != nil {
			if i == half && x.breakMid(out, *fault, f) {
				return
			}
			if f.part >= partFinish && fault.Kind == script.Truncate {
				break
			}
			if f.part > partFinish && fault.Kind == script.ResetAfterFinish {
				x.cut()
				return
			}
		}
		if f.part == partDone && shapes[script.NoDone] {
			break
		}
		data := f.data
		if shapes[script.HugeEvent] && i == 1 {
			data = bytes.Replace(data, []byte("{"), append([]byte("{"), bytes.Repeat([]byte(" "), 1<<20+1<<10)...), 1)
		}
		if shapes[script.Comments] {
			data = append(x.idle(), data...)
		}
		if !x.emit(out, data) {
			return
		}
	}
	if shapes[script.BytesAfterDone] && !x.emit(out, []byte("data: {\"after\":\"the end\"}\n\nrubbish")) {
		return
	}
	x.whole = true
	_ = out.finish()
}

// breakMid does the faults in the middle of a stream, where frame f would have come, and says whether that was its end.
func (x *exchange) breakMid(out shape, fault script.Fault, f frame) bool {
	switch fault.Kind {
	case script.ResetMidStream:
		x.emit(out, f.data[:len(f.data)/2])
		x.cut()
	case script.CloseMidStream:
		x.emit(out, f.data[:len(f.data)/2])
		x.hangUp(false)
	case script.StallMidStream:
		x.stall()
	case script.MalformedChunk:
		text := bytes.TrimRight(f.data, "\r\n")
		x.emit(out, append(bytes.Clone(text[:len(text)-3]), f.data[len(text):]...))
		return false
	case script.ErrorMidStream:
		x.emit(out, x.server.dialect.inBand(x.ask, refusal{kind: script.Internal, message: fault.Message, wait: fault.Wait}))
		x.whole = true
		_ = out.finish()
	default:
		return false
	}
	return true
}

// idle is what a server sends to keep a connection alive.
func (x *exchange) idle() []byte {
	if strings.HasPrefix(x.server.dialect.streamType(x.ask), "text/event-stream") {
		return []byte(": keep-alive\n\n")
	}
	return []byte("\n")
}

func (x *exchange) begin(status int) {
	x.status = status
	x.server.log.update(x.entry, func(e *Seen) { e.Status = status })
	x.w.WriteHeader(status)
}

func (x *exchange) flush() { _ = http.NewResponseController(x.w).Flush() }

// emit writes data and sees to it that it leaves; false when the caller has gone.
func (x *exchange) emit(out shape, data []byte) bool {
	for len(data) > 0 {
		n := len(data)
		if out.atOnce > 0 {
			n = min(n, out.atOnce)
		}
		if err := out.write(data[:n]); err != nil {
			return false
		}
		data = data[n:]
		if !x.pause(out.between) {
			return false
		}
	}
	return true
}

// pause waits; false when the caller has gone meanwhile.
func (x *exchange) pause(d time.Duration) bool {
	if d <= 0 {
		return x.r.Context().Err() == nil
	}
	t := time.NewTimer(d)
	defer t.Stop()
	select {
	case <-t.C:
		return true
	case <-x.r.Context().Done():
		return false
	}
}

// stall is silent until the caller goes away.
func (x *exchange) stall() {
	if x.status == 0 {
		<-x.r.Context().Done()
		return
	}
	x.flush()
	<-x.r.Context().Done()
}

// cut resets the connection.
func (x *exchange) cut() { x.hangUp(true) }

// hangUp ends the connection, with RST or else with FIN.
func (x *exchange) hangUp(reset bool) {
	x.whole = true
	conn, _, err := http.NewResponseController(x.w).Hijack()
	if err != nil {
		panic(http.ErrAbortHandler) // HTTP/2: a stream reset
	}
	if tcp, ok := conn.(interface{ SetLinger(seconds int) error }); ok && reset {
		_ = tcp.SetLinger(0) // RST, not FIN
	}
	_ = conn.Close()
}

// A shape is the way in which the bytes of a stream leave.
type shape struct {
	write   func([]byte) error
	finish  func() error
	atOnce  int           // bytes at most in one write; 0 no limit
	between time.Duration // writes
}

func (x *exchange) shaped(shapes map[script.FaultKind]bool) shape {
	var dst io.Writer = x.w
	sh := shape{finish: func() error { return nil }}
	flush := x.flush
	if shapes[script.Gzip] && strings.Contains(x.r.Header.Get("Accept-Encoding"), "gzip") {
		x.w.Header().Set("Content-Encoding", "gzip")
		z := gzip.NewWriter(x.w)
		dst, sh.finish = z, z.Close
		flush = func() { _ = z.Flush(); x.flush() }
	}
	if shapes[script.SplitEveryByte] {
		sh.atOnce = 1
	}
	if shapes[script.SlowDrip] {
		sh.atOnce, sh.between = 16, time.Millisecond
	}
	crlf := shapes[script.CRLF]
	sh.write = func(b []byte) error {
		if crlf {
			b = bytes.ReplaceAll(b, []byte("\n"), []byte("\r\n"))
		}
		_, err := dst.Write(b)
		flush()
		return err
	}
	x.begin(http.StatusOK)
	return sh
}
