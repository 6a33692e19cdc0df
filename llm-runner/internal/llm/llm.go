// Package llm holds the words that every other package speaks: what is asked of a model, what comes back, and what
// can go wrong. It imports the standard library only and does nothing by itself.
package llm

import (
	"context"
	"encoding/json"
	"iter"
	"net/http"
	"strings"
)

// A Provider answers requests: a machine with Ollama, a cloud API, the router (a Provider made of Providers), the
// owner's notes. Stream does nothing until ranged over, and stops when the loop breaks or ctx ends; the upstream call
// is then cancelled. After a non-nil error nothing more is yielded. It is safe for concurrent use.
//
// A stream that ended well has yielded exactly one Event with a Finish; a stream that ends without one and without an
// error is a bug of the Provider (providertest checks it). A *BusyError means: nobody started; ask again at Until.
type Provider interface {
	Stream(ctx context.Context, req Request) iter.Seq2[Event, error]
}

// An Embedder turns texts into vectors: len(Vectors) == len(req.Texts), in the same order.
type Embedder interface {
	Embed(ctx context.Context, req EmbedRequest) (Embeddings, error)
}

// A Lister knows which models its upstream offers. It is also the cheapest question that proves a key is good.
type Lister interface {
	Models(ctx context.Context) ([]ModelInfo, error)
}

// A Forwarder passes a request body through to an upstream that speaks Dialect itself, byte for byte. The response is
// returned as it came for statuses below 300 (the caller closes its body); any other status becomes an *Error that
// still carries the upstream's status, headers and body.
type Forwarder interface {
	Dialect() Dialect
	Forward(ctx context.Context, path string, header http.Header, body []byte) (*http.Response, error)
	// Limits reads the rate limits that the headers of one response tell; nil where they tell none.
	Limits(h http.Header) []Limit
}

// A Dialect names a wire format.
type Dialect string

const (
	OpenAI    Dialect = "openai"
	Anthropic Dialect = "anthropic"
	Gemini    Dialect = "gemini"
	Ollama    Dialect = "ollama"
	None      Dialect = "" // answers from inside this process
)

// A Role says who speaks.
type Role string

const (
	System    Role = "system"
	User      Role = "user"
	Assistant Role = "assistant"
	Tool      Role = "tool" // results of tool calls
)

// A Message is one turn of a conversation. Its parts are in the order in which they were written.
type Message struct {
	Role  Role
	Parts []Part
}

// Says returns a Message of one text.
func Says(role Role, text string) Message {
	return Message{Role: role, Parts: []Part{{Text: text}}}
}

// Text joins the texts of m's parts; thinking, images and tool calls are left out.
func (m Message) Text() string {
	if len(m.Parts) == 1 {
		return m.Parts[0].Text
	}
	var s string
	for _, p := range m.Parts {
		s += p.Text
	}
	return s
}

// A Part is one piece of a message: exactly one field is set (Text where all pointers are nil).
type Part struct {
	// Private says that the part rests on notes which no cloud provider may see. The router leaves it out of what it sends to one.
	Private  bool
	Text     string
	Thinking *Thinking
	Image    *Image
	Call     *ToolCall
	Result   *ToolResult
}

// Thinking is a model's reasoning. Signature (Anthropic, Gemini) and Redacted (Anthropic's encrypted form) must go
// back to the provider unchanged in the next request, or it refuses the conversation.
type Thinking struct {
	Text      string
	Signature string
	Redacted  string
}

// An Image is either Data with its MIME type, or a URL for the provider to fetch; one of the two is set.
type Image struct {
	MIME string
	Data []byte
	URL  string
}

// A ToolCall is a model's wish to have a tool run. Arguments is JSON text as the model wrote it, possibly invalid.
// Signature is Gemini's thoughtSignature, which must come back with the call.
type ToolCall struct {
	ID        string
	Name      string
	Arguments string
	Signature string
}

// Object returns the arguments as the object that some APIs demand. Text that is not one is wrapped the way that Anthropic's documentation of
// fine-grained tool streaming advises, so that the model sees its mistake.
func (c ToolCall) Object() json.RawMessage {
	raw := json.RawMessage(strings.TrimSpace(c.Arguments))
	switch {
	case len(raw) == 0 || string(raw) == "null":
		return json.RawMessage(`{}`)
	case raw[0] == '{' && json.Valid(raw):
		return raw
	}
	wrapped, _ := json.Marshal(map[string]string{"INVALID_JSON": c.Arguments}) // strings always can be
	return wrapped
}

// A ToolResult answers the ToolCall with the same ID. Name repeats the tool's name (Gemini and Ollama match by it).
type ToolResult struct {
	ID      string
	Name    string
	Text    string
	IsError bool
}

// A ToolSpec tells a model about a tool. Schema is a JSON Schema object; nil means no arguments.
type ToolSpec struct {
	Name        string
	Description string
	Schema      json.RawMessage
	Strict      bool
}

// A ToolChoice says whether tools may, must or must not be called. The zero value is "auto".
type ToolChoice struct {
	Mode string // "", "auto", "none", "required", or "tool"
	Name string // with "tool"
}

// A Format asks for structured output: any JSON object (Schema nil), or one that fits Schema.
type Format struct {
	Name   string
	Schema json.RawMessage
	Strict bool
}

// A Request is one question to a model. Zero values mean "not said": the provider's own default applies.
type Request struct {
	Model      string
	Messages   []Message // system messages included, where the caller put them
	Tools      []ToolSpec
	ToolChoice ToolChoice
	// NoParallelTools forbids several tool calls in one answer.
	NoParallelTools bool
	Format          *Format
	MaxTokens       int // of the answer; 0 not said
	Temperature     *float64
	TopP            *float64
	Seed            *int64
	Stop            []string
	// Effort is how hard to think: "", "none", "minimal", "low", "medium" or "high".
	Effort string

	// What follows is for the router and never sent upstream.

	Purpose  string // for the ledger: "chat", "api", "ask", "job", ...
	Project  bool   // project mode: only the provider named by routes.project will do
	Requires string // a provider's name that must answer; "" any
	// Run names the answer in the making: the same request sent again under the same name goes on where it was left, where a
	// provider keeps its steps. "": it cannot go on.
	Run string

	// Plan says whether a person sees the plan of research first: PlanAsk, PlanAuto, or "" as is set where it is asked.
	Plan string

	// What follows is for whoever runs tools for the model, and never sent upstream.

	// Use names the tools of this program that the model may call, "*" all that there are; nil none.
	Use  []string
	Chat int64 // the conversation, for what is allowed there; 0 none
	// Own is what of the messages the person wrote, where others' text stands among what the user says; nil: all that the user
	// and the system say.
	Own []string
}

// Values of Request.Plan.
const (
	PlanAsk  = "ask"
	PlanAuto = "auto"
)

// An Event is one piece of an answer in the making. Fields are independent: an Event may carry several of them.
type Event struct {
	// Route is on the first Event of a routed stream: who answers, and why.
	Route *Route
	// Limits is what the provider's response headers told of its rate limits, on the first Event that knows.
	Limits []Limit

	Text      string // more of the answer
	Thinking  string // more of the reasoning
	Signature string // seals the reasoning so far; see Thinking.Signature
	Redacted  string // a whole block of encrypted reasoning; see Thinking.Redacted
	Call      *CallDelta
	// Citations are the passages that the answer so far quotes; the vault provider sends them before the Finish.
	Citations []Citation
	// Private says that the answer rests on notes which no cloud provider may see: whoever keeps it marks its Parts so.
	Private bool

	// Tool is news of a tool that runs for the model; what it was called with is not in Call then.
	Tool *ToolNews

	Usage  *Usage // cumulative; the last one counts
	Finish Finish // why the answer ended; "" while it goes on
}

// Says tells whether it carries some of the answer: of its text or its reasoning, also sealed, or of a call. The first that does begins the answer.
func (e Event) Says() bool {
	return e.Text != "" || e.Thinking != "" || e.Redacted != "" || e.Call != nil
}

// A Route says which target of a decision answers.
type Route struct {
	Provider string `json:"provider"`
	Model    string `json:"model"`
	Rule     string `json:"rule"`
	Why      string `json:"why"`
	// Withheld is how many private parts of the request were left out, because this is a cloud provider.
	Withheld int `json:"withheld,omitempty"`
}

// On names a model and where it runs, for people; what has one name for both, as the owner's notes have, is named once.
func On(model, provider string) string {
	if model == provider {
		return model
	}
	return model + " on " + provider
}

// A CallDelta is more of the tool call number Index (0-based, in order of first appearance). ID and Name come with the
// first delta of a call and are empty after it; Arguments are to be concatenated.
type CallDelta struct {
	Index     int
	ID        string
	Name      string
	Arguments string
	Signature string
}

// ToolNews says that a call of a tool has come into another state.
type ToolNews struct {
	Name  string
	State string // "writing" while the model still writes its arguments; then a state of the toolbox
}

// A Citation is a passage of a note, quoted exactly: the bytes [Start, End) of the file at Path (slash-separated,
// relative to the vault) are Quote. Of a document that is not text, such as a PDF, they are bytes of the text that was read out of it.
type Citation struct {
	Path string `json:"path"`
	// Collection is where the document is that is no file of the vault: "uploads", "web", ...; "" it is one.
	Collection string `json:"collection,omitempty"`
	URL        string `json:"url,omitempty"`  // where such a document came from
	Page       int    `json:"page,omitempty"` // of Start, 1-based; 0: the document has no pages

	Heading []string `json:"heading,omitempty"` // the trail of headings above the passage, outermost first
	Start   int      `json:"start"`             // bytes, half-open
	End     int      `json:"end"`
	Line    int      `json:"line"` // of Start, 1-based
	EndLine int      `json:"end_line"`
	Quote   string   `json:"quote"`
}

// A Finish says why an answer ended, in OpenAI's words.
type Finish string

const (
	FinishStop    Finish = "stop"           // the model was done, or met a stop sequence
	FinishLength  Finish = "length"         // the token limit cut it off
	FinishTools   Finish = "tool_calls"     // it waits for tool results
	FinishRefusal Finish = "content_filter" // the provider or the model refused
)

// A Count is a number that a provider may not have told: the zero value is "unknown", which is not zero.
type Count struct {
	n     int64
	known bool
}

// Known returns a Count of n.
func Known(n int64) Count { return Count{n, true} }

// Get returns the number and whether it is known.
func (c Count) Get() (n int64, known bool) { return c.n, c.known }

// Or returns the number, or other where it is unknown.
func (c Count) Or(other int64) int64 {
	if c.known {
		return c.n
	}
	return other
}

// Ptr returns nil for an unknown count (SQL's NULL, JSON's null).
func (c Count) Ptr() *int64 {
	if !c.known {
		return nil
	}
	return &c.n
}

// MarshalJSON writes null for an unknown count.
func (c Count) MarshalJSON() ([]byte, error) { return json.Marshal(c.Ptr()) }

// UnmarshalJSON reads null as unknown.
func (c *Count) UnmarshalJSON(b []byte) error {
	var p *int64
	if err := json.Unmarshal(b, &p); err != nil {
		return err
	}
	*c = Count{}
	if p != nil {
		*c = Known(*p)
	}
	return nil
}

// Usage is what one request cost in tokens. Input includes cached input; Output includes thinking.
type Usage struct {
	Input       Count `json:"input_tokens"`
	Output      Count `json:"output_tokens"`
	CachedInput Count `json:"cached_input_tokens"` // read from the provider's cache, part of Input
	CacheWrite  Count `json:"cache_write_tokens"`  // written to the provider's cache, part of Input
	Thinking    Count `json:"thinking_tokens"`     // part of Output
}

// An EmbedRequest asks for one vector per text. Dimensions 0 means the model's own. A text that is longer than the model reads
// is refused (BadRequest), never cut, where the provider can be told so.
type EmbedRequest struct {
	Model      string
	Texts      []string
	Dimensions int
	Task       string // "document", "query" or "" not said: for models that want to be told (Gemini); others ignore it
	Purpose    string // for the ledger
}

// Embeddings are vectors in the order of the texts.
type Embeddings struct {
	Vectors [][]float32
	Usage   Usage
	Limits  []Limit
}

// A ModelInfo is one model that an upstream offers.
type ModelInfo struct {
	Name    string `json:"name"`
	Context int    `json:"context,omitempty"` // tokens; 0 unknown
	Bytes   int64  `json:"bytes,omitempty"`   // on disk; 0 unknown
	Embeds  bool   `json:"embeds,omitempty"`  // makes vectors, does not chat
}
