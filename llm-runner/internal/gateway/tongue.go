package gateway

import (
	"crypto/rand"
	"encoding/json"
	"net/http"
	"time"

	"home.arpa/lab/llm-runner/internal/llm"
	"home.arpa/lab/llm-runner/internal/provider/openai/wire"
	"home.arpa/lab/llm-runner/internal/route"
)

// A tongue is a dialect as the clients of one door speak it.
type tongue struct {
	// request reads a body that names a's model. usage says that the stream's usage is asked for.
	request func(body []byte, a *route.Attempt) (req llm.Request, usage bool, err error)
	// stream returns who writes an answer to the client as it comes.
	stream func(a *route.Attempt, usage bool) scribe
	// whole writes an answer in one piece.
	whole func(answer llm.Answer, a *route.Attempt) []byte
	// refuse writes a problem as a response's body, last as the end of a stream that has begun.
	refuse, last func(p *problem) []byte
	// overloaded is the status of "come back later", where the dialect has its own; 0: 503.
	overloaded int
	// kind is the content type of streams, alive what keeps one alive until its answer begins; "" nothing can.
	kind, alive string
}

// A scribe turns events into what goes out, framed: an element for each piece. End comes after the last.
type scribe interface {
	Append(dst [][]byte, ev llm.Event) [][]byte
	End(dst [][]byte) [][]byte
}

const eventStream = "text/event-stream; charset=utf-8"

// openAI is the tongue of /v1/chat/completions and /v1/embeddings.
var openAI = &tongue{
	request: func(body []byte, a *route.Attempt) (llm.Request, bool, error) {
		if err := refuseBeyond(body, a); err != nil {
			return llm.Request{}, false, err
		}
		req, opts, err := wire.ParseRequest(body)
		return req, opts.IncludeUsage, err
	},
	stream: func(a *route.Attempt, usage bool) scribe {
		return &chunks{ChunkWriter: wire.NewChunkWriter(meta(a), usage)}
	},
	whole: func(answer llm.Answer, a *route.Attempt) []byte {
		return cite(wire.AppendResponse(nil, answer, meta(a)), answer.Citations)
	},
	refuse: (*problem).json,
	last:   func(p *problem) []byte { return frame(p.json()) },
	kind:   eventStream,
	alive:  ": waiting\n\n",
}

func meta(a *route.Attempt) wire.Meta {
	return wire.Meta{ID: "chatcmpl-" + rand.Text(), Created: time.Now().Unix(), Model: a.Target.Model}
}

// chunks frames OpenAI's chunks. Citations go into the one that says why the answer ended.
type chunks struct {
	*wire.ChunkWriter
	citations []llm.Citation
}

func (c *chunks) Append(dst [][]byte, ev llm.Event) [][]byte {
	c.citations = append(c.citations, ev.Citations...)
	at := len(dst)
	dst = c.ChunkWriter.Append(dst, ev)
	if last := len(dst) - 1; ev.Finish != "" && last >= at {
		dst[last] = cite(dst[last], c.citations)
	}
	for i := at; i < len(dst); i++ {
		dst[i] = frame(dst[i])
	}
	return dst
}

func (c *chunks) End(dst [][]byte) [][]byte {
	at := len(dst)
	dst = append(c.ChunkWriter.End(dst), []byte(wire.Done))
	for i := at; i < len(dst); i++ {
		dst[i] = frame(dst[i])
	}
	return dst
}

// frame makes a server-sent event of data without a newline in it.
func frame(data []byte) []byte {
	framed := make([]byte, 0, len(data)+8)
	return append(append(append(framed, "data: "...), data...), "\n\n"...)
}

// serve answers a request of chat in t's words. open reads what the body has beside its head, and says whether there is still
// something to answer.
func (g *Gateway) serve(w http.ResponseWriter, r *http.Request, t *tongue, open func(*call) bool) {
	c := &call{gateway: g, r: r, path: chatPath, tongue: t}
	defer c.trace(r.Pattern)()
	if !c.open(w) || !open(c) {
		return
	}
	c.wishes = readWishes(r.Header, g.Wait)
	c.wishes.async = false // a job answers in OpenAI's words
	if c.head.stream {
		c.out.keepAlive(g.KeepAlive)
	}
	c.run(c.tryChat)
}

// plain is a response in a client's words, without a question to anybody.
func (c *call) plain(body []byte) {
	c.out.hurry()
	c.out.begin(nil, int64(len(body)))
	_ = c.out.write(body) // a client that has gone needs no answer
	c.out.relax()
}

// refuse tells the client of a problem before anybody was asked.
func (c *call) refuse(p *problem) {
	p.tongue = c.tongue
	p.write(c.out.w)
}

func object(v any) []byte {
	b, _ := json.Marshal(v) // strings and numbers
	return b
}
