// Package gateway is the door for programs that speak OpenAI's API (chat completions, embeddings and the list of models),
// Anthropic's (messages) or Ollama's (chat, generate, embed and its lists), answered by whatever the router decides.
//
// Where the provider speaks the same dialect, bytes pass through untouched in both directions: unknown fields, key order,
// white space and numbers stay as they are. There are three exceptions, each done by splicing bytes:
//
//   - the value of "model" in the request, where the route gives the model another name;
//   - "stream_options":{"include_usage":true} in the request of a stream that does not ask for it, because the ledger
//     wants to know; the chunk that tells usage alone ("choices":[]) is then kept from the client;
//   - the end of a stream: [DONE] is added where the answer is whole but the mark is missing, what comes behind the mark
//     is dropped, and a stream that breaks off gets an error event, no mark, and a closed connection, so that nobody can
//     take half an answer for a whole one.
//
// A stream that is held back goes out in the same bytes, but only when the answer is whole: until then another target may
// still answer.
//
// Everything else (Ollama, Gemini, Anthropic, the notes) is translated by package wire, and so is all that comes in by the doors of
// Anthropic and Ollama: a tongue reads their requests and writes their answers.
package gateway

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net/http"
	"strconv"
	"strings"
	"time"

	"home.arpa/lab/llm-runner/internal/jobs"
	"home.arpa/lab/llm-runner/internal/llm"
	"home.arpa/lab/llm-runner/internal/quota"
	"home.arpa/lab/llm-runner/internal/route"
	"home.arpa/lab/llm-runner/internal/trace"
)

// A Config is what a Gateway is made of. All but Router may be zero.
type Config struct {
	Router *route.Router
	// Jobs takes requests that prefer respond-async; nil: the preference is not heeded.
	Jobs *jobs.Service
	// Wait is how long a request is held until somebody can answer, where the client does not say and it is known when that
	// will be; 0 means not at all.
	Wait time.Duration
	// MaxBody is the largest request body in bytes; 0 means 32 MiB, the limit of Anthropic's and Gemini's APIs.
	MaxBody int64
	// KeepAlive is how long a stream may be silent before its first byte until a comment is sent, and again after each:
	// 0 means 15 s (proxies give up after 60), negative means never. The first comment commits status 200; a failure after
	// it is an error event in the stream.
	KeepAlive time.Duration
	// Patience is how long a client may take to read what was written, or to send its body, before it counts as gone; 0
	// means five minutes.
	Patience time.Duration
	// Traces tells of each request, as a part of its caller's trace where the caller names one; nil: nobody is told.
	Traces *trace.Tracer
}

// A Gateway serves the API. It is safe for concurrent use.
type Gateway struct {
	Config
	mux     *http.ServeMux
	started time.Time
}

// New returns a Gateway.
func New(c Config) *Gateway {
	if c.MaxBody <= 0 {
		c.MaxBody = 32 << 20
	}
	if c.KeepAlive == 0 {
		c.KeepAlive = 15 * time.Second
	}
	if c.Patience <= 0 {
		c.Patience = 5 * time.Minute
	}
	g := &Gateway{Config: c, mux: http.NewServeMux(), started: time.Now()}
	g.Register(g.mux)
	return g
}

// ServeHTTP serves what Register registers.
func (g *Gateway) ServeHTTP(w http.ResponseWriter, r *http.Request) { g.mux.ServeHTTP(w, r) }

// Register adds the gateway's paths to mux: all below /v1/, and those of Ollama below /api/.
func (g *Gateway) Register(mux *http.ServeMux) {
	mux.HandleFunc("POST /v1/chat/completions", g.chat)
	mux.HandleFunc("POST /v1/embeddings", g.embed)
	mux.HandleFunc("GET /v1/models", g.models)
	mux.HandleFunc("GET /v1/models/{id...}", g.model)
	mux.HandleFunc("POST /v1/messages", g.messages)
	mux.HandleFunc("POST /v1/messages/count_tokens", g.countTokens)
	mux.HandleFunc("POST /api/chat", g.ollamaChat)
	mux.HandleFunc("POST /api/generate", g.ollamaGenerate)
	mux.HandleFunc("POST /api/embed", g.ollamaEmbed)
	mux.HandleFunc("POST /api/embeddings", g.ollamaEmbed)
	mux.HandleFunc("GET /api/tags", g.ollamaTags)
	mux.HandleFunc("POST /api/show", g.ollamaShow)
	mux.HandleFunc("GET /api/ps", g.ollamaPs)
	mux.HandleFunc("GET /api/version", g.ollamaVersion)
	mux.HandleFunc("/v1/", g.unknown)
}

func (g *Gateway) unknown(w http.ResponseWriter, r *http.Request) {
	p := &problem{status: http.StatusNotFound, Type: "invalid_request_error", Code: "unknown_url",
		Message: fmt.Sprintf("there is no %s %s; there are POST /v1/chat/completions, POST /v1/embeddings, POST /v1/messages and GET /v1/models", r.Method, r.URL.Path)}
	switch r.URL.Path {
	case "/v1/chat/completions", "/v1/embeddings", "/v1/messages", "/v1/messages/count_tokens":
		p.status, p.Code = http.StatusMethodNotAllowed, "method_not_allowed"
		w.Header().Set("Allow", http.MethodPost)
	}
	p.write(w)
}

// chatPath is the path of chat completions at an upstream, behind its base.
const chatPath = "/chat/completions"

// A call is one request being answered, over all attempts.
type call struct {
	gateway *Gateway
	r       *http.Request
	path    string // at the upstream
	tongue  *tongue
	ask     route.Ask
	head    head
	body    []byte
	out     reply
	watch   watch
	wishes  wishes
	pace    string      // of its stream, as the client says: live, whole, or "" as the row has it
	failed  error       // why there was no whole answer
	dialect llm.Dialect // of the last attempt's upstream, where its bytes are passed through
}

func (g *Gateway) chat(w http.ResponseWriter, r *http.Request) {
	c := &call{gateway: g, r: r, path: chatPath, tongue: openAI}
	defer c.trace("POST /v1" + chatPath)()
	if !c.open(w) {
		return
	}
	c.wishes = readWishes(r.Header, g.Wait)
	if c.wishes.async && g.Jobs != nil {
		c.promise(c.wishes)
		return
	}
	if c.head.stream {
		c.out.keepAlive(g.KeepAlive)
	}
	c.run(c.tryChat)
}

func (g *Gateway) embed(w http.ResponseWriter, r *http.Request) {
	c := &call{gateway: g, r: r, path: "/embeddings", tongue: openAI}
	defer c.trace("POST /v1/embeddings")()
	if c.open(w) {
		c.ask.Embeds = true
		c.wishes = readWishes(r.Header, g.Wait)
		c.run(c.tryEmbed)
	}
}

// trace has the request be a span, and what is done for it hang below; what it returns ends that.
func (c *call) trace(route string) (done func()) {
	if c.gateway.Traces == nil {
		return func() {}
	}
	ctx, span := c.gateway.Traces.Begin(c.gateway.Traces.Incoming(c.r.Context(), c.r.Header), trace.Request, route)
	span.Set("http.request.method", c.r.Method)
	span.Set("http.route", c.r.URL.Path)
	c.r = c.r.WithContext(ctx)
	return func() { span.Done(c.failed) }
}

// maxCounted is how much of a body is taken for text when its tokens are estimated: larger ones hold pictures, mostly.
const maxCounted = 128 << 10

// open reads the request and says whether there is something to answer; where there is not, the client has been told.
func (c *call) open(w http.ResponseWriter) bool {
	c.out = reply{w: w, control: http.NewResponseController(w), patience: c.gateway.Patience, tongue: c.tongue}
	body, p := c.read()
	if p == nil {
		var err error
		if c.body = body; len(body) == 0 {
			p = badRequest("the body is empty; a JSON object is expected")
		} else if c.head, err = readHead(body); err != nil {
			p = badRequest(err.Error())
		}
	}
	if p != nil {
		c.refuse(p)
		return false
	}
	c.ask = route.Ask{Model: c.head.model, Requires: c.r.Header.Get("X-Runner-Requires")}
	c.ask.Cost = quota.Cost{Input: quota.Tokens(min(len(c.body), maxCounted)), Output: c.head.maxTokens}
	c.ask.Project, _ = strconv.ParseBool(c.r.Header.Get("X-Runner-Project"))
	switch c.pace = c.r.Header.Get(streamHeader); c.pace {
	case "", streamLive, streamWhole:
		return true
	}
	c.refuse(badRequest(fmt.Sprintf("%s: %q is neither %s (word by word) nor %s (when the answer is whole)", streamHeader, c.pace, streamLive, streamWhole)))
	return false
}

// run has the router answer and tells the client what became of it. The body has been read to its end by now: only then
// does net/http notice that a client goes away, and a handler that answers first can lose its connection under load
// (https://pkg.go.dev/net/http#ResponseController.EnableFullDuplex).
func (c *call) run(try func(context.Context, *route.Attempt) error) {
	defer c.out.relax()
	defer c.out.silence()
	ctx := c.r.Context()
	c.ask.Wait = c.wishes.wait
	err := c.hold(ctx, c.wishes, func() error { return c.gateway.Router.Do(ctx, c.ask, "api", try) })
	if c.failed = err; err == nil {
		return
	}
	var busy *llm.BusyError
	if !c.out.decided && errors.As(err, &busy) && busy.Provider != "" {
		d := c.gateway.Router.Decide(c.ask)
		c.out.decide(busy.Provider, busy.Model, d.Rule)
	}
	c.out.fail(explain(err, c.dialect, time.Now()))
}

// read reads the body to its end.
func (c *call) read() ([]byte, *problem) {
	limit := c.gateway.MaxBody
	tooLarge := &problem{status: http.StatusRequestEntityTooLarge, Type: "invalid_request_error", Code: "request_too_large",
		Message: fmt.Sprintf("the body is larger than %d bytes", limit)}
	if c.r.ContentLength > limit {
		return nil, tooLarge
	}
	if e := c.r.Header.Get("Content-Encoding"); e != "" && !strings.EqualFold(e, "identity") {
		return nil, &problem{status: http.StatusUnsupportedMediaType, Type: "invalid_request_error", Code: "unsupported_encoding",
			Message: fmt.Sprintf("the body is encoded with %q; send it plain", e)}
	}
	_ = c.out.control.SetReadDeadline(time.Now().Add(c.gateway.Patience))
	// A client's word on its length is good for one mebibyte; beyond, memory follows what has come. One byte more than
	// announced lets the last read see the end.
	body, err := readAll(c.r.Body, int(min(max(c.r.ContentLength, 511), 1<<20))+1, limit)
	_ = c.out.control.SetReadDeadline(time.Time{})
	var max *http.MaxBytesError
	switch {
	case errors.Is(err, errTooLarge), errors.As(err, &max):
		return nil, tooLarge
	case err != nil:
		return nil, badRequest("the body cannot be read: " + err.Error())
	}
	return body, nil
}

var errTooLarge = errors.New("too large")

// readAll reads r to its end, into a buffer of size bytes at first. With more than limit bytes it returns errTooLarge and
// what it has, which is then all that has been taken from r.
func readAll(r io.Reader, size int, limit int64) ([]byte, error) {
	b := make([]byte, 0, size)
	for {
		if len(b) == cap(b) {
			b = append(b, 0)[:len(b)]
		}
		n, err := r.Read(b[len(b):cap(b)])
		b = b[:len(b)+n]
		switch {
		case int64(len(b)) > limit:
			return b, errTooLarge
		case err == io.EOF:
			return b, nil
		case err != nil:
			return b, err
		}
	}
}
