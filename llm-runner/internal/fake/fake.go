// Package fake imitates the HTTP interfaces of OpenAI, Groq, Gemini, Anthropic and Ollama faithfully enough that clients
// cannot tell: the same paths, bodies, headers, rate limits and failures, from a script (package script) instead of a
// model. The tests run every provider against it, and `llm-runner fake` serves it to anyone who wants to see what happens
// when a limit runs out at three in the morning.
//
// GET /_fake/requests shows the last requests as JSON.
package fake

import (
	"encoding/json"
	"fmt"
	"io"
	"maps"
	"net/http"
	"slices"
	"strings"
	"sync"
	"time"

	"home.arpa/lab/llm-runner/internal/fake/script"
)

// Kinds are the upstreams that can be imitated.
func Kinds() []string { return slices.Sorted(maps.Keys(dialects)) }

// A Server imitates one upstream. It is an http.Handler and safe for concurrent use.
type Server struct {
	// Now is the clock; nil means time.Now. It is set before the first request.
	Now func() time.Time

	dialect dialect
	script  script.Script
	limits  limits
	log     journal
	renders renders

	mu    sync.Mutex
	count int // of chat and embedding requests
}

// New returns a Server that imitates the upstream called kind, one of Kinds.
func New(kind string, s script.Script) (*Server, error) {
	if err := s.Check(); err != nil {
		return nil, err
	}
	d, ok := dialects[kind]
	if !ok {
		return nil, fmt.Errorf("fake %q: is not one of %s", kind, strings.Join(Kinds(), ", "))
	}
	return &Server{dialect: d, script: s, limits: newLimits(s.Limits, d.window), log: newJournal()}, nil
}

var dialects = map[string]dialect{
	"anthropic": anthropic{},
	"gemini":    gemini{},
	"ollama":    ollama{},
	"openai":    openai{},
	"groq":      openai{groq: true},
}

// A dialect reads and renders one provider's wire format. It holds no state: everything is a function of its arguments.
type dialect interface {
	// key returns the key that a request carries; "" none.
	key(r *http.Request) string
	// read understands a request. What it cannot understand it answers with a *refusal.
	read(r *http.Request, body []byte) (ask, *refusal)

	// answer renders a whole answer, stream the same answer in frames.
	answer(a ask, r script.Rule) []byte
	stream(a ask, r script.Rule) []frame
	// embeddings renders one vector for each of a.texts.
	embeddings(a ask, vectors [][]float32) []byte
	// tooLong is the message of a refusal of a text to embed that has more tokens than the model reads.
	tooLong(tokens, context int64) string
	// models renders the list of models.
	models(names []string) []byte

	// refuse renders an error response: its status and body, and the headers that go with it into h.
	refuse(a ask, f refusal, h http.Header) (status int, body []byte)
	// inBand renders an error in the middle of a stream.
	inBand(a ask, f refusal) []byte
	// tell writes the rate-limit headers of every response.
	tell(h http.Header, levels []level)
	// window says how a limit is replenished.
	window(l script.Limit) window
	// streamType is the Content-Type of a stream.
	streamType(a ask) string
}

// An ask is what a request wants.
type ask struct {
	op     op
	model  string
	stream bool
	usage  bool     // the stream is to tell usage (OpenAI's stream_options)
	input  string   // the text of the last user message
	prompt string   // all texts of the request, for counting tokens
	texts  []string // to embed
	dims   int      // of embeddings; 0 the script's
	cuts   bool     // texts to embed that are too long are cut silently, not refused
	base64 bool     // embeddings in base64
	json   bool     // structured output is asked for
	array  bool     // the stream is one JSON array (Gemini without alt=sse)
	raw    []byte   // with opRaw: the answer
}

type op int

const (
	opChat op = iota
	opEmbed
	opModels
	opRaw // ask.raw is the answer: version numbers, health and the like
)

// A refusal is an error response to be rendered.
type refusal struct {
	kind    script.FaultKind
	message string        // "" the provider's own words
	wait    time.Duration // of a 429 or an overload; 0 not told
	level   *level        // the limit that is exhausted; nil where a script's fault refuses
	tokens  int64         // that the refused request would have cost
}

// A frame is one piece of a stream, framing included.
type frame struct {
	data []byte
	part part
}

type part int

const (
	partBody   part = iota
	partFinish      // says why the answer ended; truncate drops it and what follows
	partUsage       // follows the finish
	partDone        // the end mark; no_done drops it
)

// ServeHTTP answers as the imitated provider would.
func (s *Server) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	if strings.HasPrefix(r.URL.Path, "/_fake/") {
		s.inspect(w, r)
		return
	}
	body, err := io.ReadAll(io.LimitReader(r.Body, 64<<20))
	if err != nil {
		return // the caller went away
	}
	now := s.now()
	entry := s.log.open(now, r, body)
	x := &exchange{server: s, w: w, r: r, entry: entry}
	defer x.close()

	a, bad := s.dialect.read(r, body)
	x.ask = a
	s.log.update(entry, func(e *Seen) { e.Model, e.Stream = a.model, a.stream })
	switch {
	case s.script.Key != "" && s.dialect.key(r) != s.script.Key:
		x.refuse(refusal{kind: script.BadKey})
	case bad != nil:
		x.refuse(*bad)
	case a.op == opRaw:
		x.send(rawType(a.raw), a.raw)
	case a.op == opModels:
		x.send("application/json", s.dialect.models(s.modelNames()))
	case len(s.script.Models) > 0 && !slices.Contains(s.script.Models, a.model):
		x.refuse(refusal{kind: script.NoModel})
	default:
		x.answer(now)
	}
}

func rawType(b []byte) string {
	if len(b) > 0 && b[0] == '{' {
		return "application/json"
	}
	return "text/plain; charset=utf-8"
}

func (s *Server) now() time.Time {
	if s.Now != nil {
		return s.Now()
	}
	return time.Now()
}

func (s *Server) modelNames() []string {
	if len(s.script.Models) > 0 {
		return s.script.Models
	}
	return []string{"fake-small", "fake-large", "fake-embed"}
}

func (s *Server) next() int {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.count++
	return s.count
}

// inspect serves the server's own pages.
func (s *Server) inspect(w http.ResponseWriter, r *http.Request) {
	if r.URL.Path != "/_fake/requests" {
		http.NotFound(w, r)
		return
	}
	w.Header().Set("Content-Type", "application/json")
	enc := json.NewEncoder(w)
	enc.SetIndent("", "  ")
	_ = enc.Encode(s.Requests())
}
