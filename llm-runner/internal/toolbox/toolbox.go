// Package toolbox holds what a model may do besides answer: named tools, one policy for each, and a log of every call.
//
// A tool is allowed, asked about, or denied. What is asked about waits in the database until a person decides, over restarts
// too. A call is written down before it runs, so that after a crash it is known what may have happened: a call without
// effects is run again, one with effects is never run twice unasked and is told of as unverified.
package toolbox

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"log/slog"
	"maps"
	"regexp"
	"slices"
	"strings"
	"sync"
	"time"

	"home.arpa/lab/llm-runner/internal/db"
	"home.arpa/lab/llm-runner/internal/llm"
	"home.arpa/lab/llm-runner/internal/trace"
)

// A Policy says whether a tool runs.
type Policy string

const (
	Allow Policy = "allow" // at once
	Ask   Policy = "ask"   // once a person has said yes, to each call
	Deny  Policy = "deny"  // never; models are not told of it
)

// Valid says that p is one of the three.
func (p Policy) Valid() bool { return p == Allow || p == Ask || p == Deny }

// A Tool is one thing that can be done. Name, Description, Schema and Run are required; Make fills in Schema and Run.
type Tool struct {
	Name        string
	Description string // for the model
	Schema      json.RawMessage
	// Effects says that a call changes something, so that running it twice is not the same as once.
	Effects bool
	// Outside says that what it returns was written by others than the owner.
	Outside bool
	// Policy is the one that applies where nobody chose; "" is Ask.
	Policy Policy
	// Server is the MCP server that offers the tool; "" it is one of ours.
	Server string
	// Named says that a model is told of the tool only where its name is asked for: "*" does not mean it, and other programs are not offered it.
	Named bool
	// Off says, if it is not nil, why the tool cannot be called here and what to do about it; "" it can.
	Off     func() string
	Timeout time.Duration // of one call; 0 means a minute
	// Preview says what a call would do, for the person who decides, and what must still hold when it runs. nil: the arguments.
	Preview func(ctx context.Context, arguments json.RawMessage) (Preview, error)
	// Doubt says why a person is to be asked about this call although the policy allows the tool; "" no reason.
	Doubt func(s Scope, arguments json.RawMessage) string
	Run   func(ctx context.Context, c Call) (Result, error)
}

// A Preview is a call as a person sees it before it runs.
type Preview struct {
	Text string
	Seal string // handed back to Run in Call.Seal
}

// A Result is what a tool has to say to the model.
type Result struct {
	Text string
	// Links are addresses that the tool vouches for: fetching one of them is not the idea of a page that was read.
	Links []string
}

// A Scope is where a call comes from.
type Scope struct {
	Run    string // names the answer in the making; "" none
	Source string // chat, job, mcp
	Chat   int64  // 0 none
	// Words are what the person and the owner of the program said: an address in there is theirs.
	Words []string
	// Links are what earlier results of the run vouch for.
	Links []string
	// Tainted says that text of others has reached the model: it may no longer be following the person's wishes.
	Tainted bool
}

// A State is where a call stands.
type State string

const (
	Waiting    State = "waiting"    // for a person
	Approved   State = "approved"   // it may run
	Running    State = "running"    // it runs
	Done       State = "done"       // it ran; IsError says how it ended
	Denied     State = "denied"     // by its policy or by a person
	Cut        State = "cut"        // the program ended while it ran; it had no effects and is run again
	Unverified State = "unverified" // the program ended while it ran, and nobody knows what it has done
	Withdrawn  State = "withdrawn"  // nobody wants to know any more
)

// Over says that nothing more happens by itself.
func (s State) Over() bool { return s == Done || s == Denied || s == Unverified || s == Withdrawn }

// A Call is one entry of the log.
type Call struct {
	ID        int64           `json:"id"`
	Run       string          `json:"run,omitempty"`
	Step      int             `json:"step"`
	Place     int             `json:"place"`
	Source    string          `json:"source"`
	Chat      int64           `json:"chat,omitempty"`
	Tool      string          `json:"tool"`
	Arguments json.RawMessage `json:"arguments"`
	Preview   string          `json:"preview,omitempty"`
	Seal      string          `json:"-"`
	Effects   bool            `json:"effects"`
	Policy    Policy          `json:"policy"`
	Why       string          `json:"why,omitempty"`
	State     State           `json:"state"`
	Result    string          `json:"result,omitempty"`
	Links     []string        `json:"-"`
	IsError   bool            `json:"is_error,omitempty"`
	Asked     time.Time       `json:"asked"`
	Decided   time.Time       `json:"decided,omitzero"`
	Started   time.Time       `json:"started,omitzero"`
	Ended     time.Time       `json:"ended,omitzero"`
}

// Took is how long the call ran; 0 until it has ended.
func (c Call) Took() time.Duration {
	if c.Started.IsZero() || c.Ended.IsZero() {
		return 0
	}
	return max(c.Ended.Sub(c.Started), 0)
}

var (
	ErrNotFound = errors.New("there is no such call")
	ErrDecided  = errors.New("this call was decided before, or is over")
	ErrNoTool   = errors.New("there is no such tool")
	ErrPolicy   = errors.New("a policy is allow, ask or deny")
)

// Config is what a Box may be told. The zero value works.
type Config struct {
	// Decided is told of every decision about a call that waited, after it is on disk; nil: nobody is.
	Decided func(c Call)
	// Asked is told of every call that begins to wait, in the transaction that writes it; nil: nobody is.
	Asked func(ctx context.Context, tx *transaction, c Call) error
	// MaxResult bounds a result in bytes; 0 means 32 KiB, about 8,000 tokens.
	MaxResult int
	// Traces tells of each call that runs, below what it is made for where that is traced; nil: nobody is told.
	Traces *trace.Tracer
	Log    *slog.Logger // nil: slog.Default()
}

// A Box is the registry and the log. It is safe for concurrent use.
type Box struct {
	db     *db.DB
	config Config
	log    *slog.Logger

	mu      sync.RWMutex
	tools   map[string]Tool
	changed chan struct{} // closed at the next change of a call
	listed  []func()      // called when tools come and go
}

// Open returns the box of d's calls, without tools. Calls that a dead process left running are marked (in a shared database
// by Adopt).
func Open(ctx context.Context, d *db.DB, c Config) (*Box, error) {
	if c.MaxResult == 0 {
		c.MaxResult = 32 << 10
	}
	if c.Log == nil {
		c.Log = slog.Default()
	}
	b := &Box{db: d, config: c, log: c.Log, tools: map[string]Tool{}, changed: make(chan struct{})}
	if !d.Shared() {
		if err := adopt(ctx, d, ""); err != nil {
			return nil, err
		}
	}
	d.Hear(topic, func(string) { b.wake() })
	return b, nil
}

// Adopt marks the calls that a dead process left running.
func (b *Box) Adopt(ctx context.Context, worker string) error { return adopt(ctx, b.db, worker) }

// Tell sets who is told of what; before anything is called.
func (b *Box) Tell(decided func(c Call), asked func(ctx context.Context, tx *transaction, c Call) error) {
	b.config.Decided, b.config.Asked = decided, asked
}

// name is what all providers take as a tool's name (OpenAI, Anthropic: 64 characters of these; Gemini begins with a letter or _).
var name = regexp.MustCompile(`^[a-zA-Z_][a-zA-Z0-9_-]{0,63}$`)

// Add puts tools into the box, over those of the same name.
func (b *Box) Add(all ...Tool) error {
	for _, t := range all {
		if !name.MatchString(t.Name) {
			return fmt.Errorf("add tool %q: a name has 1 to 64 letters, digits, _ and -, and begins with a letter", t.Name)
		}
		if t.Run == nil || len(t.Schema) == 0 {
			return fmt.Errorf("add tool %q: it has no schema, or does nothing", t.Name)
		}
	}
	b.mu.Lock()
	for _, t := range all {
		if t.Policy == "" {
			t.Policy = Ask
		}
		b.tools[t.Name] = t
	}
	b.mu.Unlock()
	b.tellListed()
	return nil
}

// Remove takes a tool out.
func (b *Box) Remove(name string) {
	b.mu.Lock()
	delete(b.tools, name)
	b.mu.Unlock()
	b.tellListed()
}

// RemoveServer takes the tools of an MCP server out, but for those that are named in keep.
func (b *Box) RemoveServer(server string, keep ...string) {
	b.mu.Lock()
	maps.DeleteFunc(b.tools, func(name string, t Tool) bool { return t.Server == server && !slices.Contains(keep, name) })
	b.mu.Unlock()
	b.tellListed()
}

// OnList has f called when tools come and go. f must be quick.
func (b *Box) OnList(f func()) {
	b.mu.Lock()
	defer b.mu.Unlock()
	b.listed = append(b.listed, f)
}

func (b *Box) tellListed() {
	b.mu.RLock()
	all := slices.Clone(b.listed)
	b.mu.RUnlock()
	for _, f := range all {
		f()
	}
}

func (b *Box) tool(name string) (Tool, bool) {
	b.mu.RLock()
	defer b.mu.RUnlock()
	t, ok := b.tools[name]
	return t, ok
}

// An Entry is a tool with the policy that applies to it.
type Entry struct {
	Tool
	Policy  Policy // in the conversation that was asked for
	General Policy // everywhere else
	Chosen  bool   // somebody chose General
	Missing string // why it cannot be called; "" it can
}

// Entries lists all tools by name, with the policies of a conversation (0: of none).
func (b *Box) Entries(ctx context.Context, chat int64) ([]Entry, error) {
	chosen, err := policies(ctx, b.db.Read(), chat)
	if err != nil {
		return nil, err
	}
	b.mu.RLock()
	all := slices.SortedFunc(maps.Values(b.tools), func(x, y Tool) int { return strings.Compare(x.Name, y.Name) })
	b.mu.RUnlock()
	out := make([]Entry, len(all))
	for i, t := range all {
		out[i] = entry(t, chosen)
	}
	return out, nil
}

func entry(t Tool, chosen map[scoped]Policy) Entry {
	e := Entry{Tool: t, General: t.Policy}
	if p, ok := chosen[scoped{t.Name, 0}]; ok {
		e.General, e.Chosen = p, true
	}
	e.Policy = e.General
	for s, p := range chosen {
		if s.tool == t.Name && s.chat != 0 {
			e.Policy = p
		}
	}
	if t.Off != nil {
		e.Missing = t.Off()
	}
	return e
}

// Specs are the tools that a model may be told of, in a conversation: those that are not denied and can be called. only, if not
// empty, names those that are wanted; "*" is all.
func (b *Box) Specs(ctx context.Context, chat int64, only []string) ([]llm.ToolSpec, error) {
	all, err := b.Entries(ctx, chat)
	if err != nil {
		return nil, err
	}
	var specs []llm.ToolSpec
	for _, e := range all {
		if e.Policy == Deny || e.Missing != "" || len(only) > 0 && !slices.Contains(only, "*") && !slices.Contains(only, e.Name) ||
			e.Named && !slices.Contains(only, e.Name) {
			continue
		}
		specs = append(specs, llm.ToolSpec{Name: e.Name, Description: e.Description, Schema: e.Schema})
	}
	return specs, nil
}

// Outside says that a tool returns what others wrote. A tool that is not there counts as one that does.
func (b *Box) Outside(name string) bool {
	t, ok := b.tool(name)
	return !ok || t.Outside
}

// SetPolicy chooses a tool's policy, in one conversation or (0) everywhere. "" takes the choice back.
func (b *Box) SetPolicy(ctx context.Context, tool string, chat int64, p Policy) error {
	if p != "" && !p.Valid() {
		return fmt.Errorf("set policy of %s to %q: %w", tool, p, ErrPolicy)
	}
	if _, ok := b.tool(tool); !ok {
		return fmt.Errorf("set policy of %s: %w", tool, ErrNoTool)
	}
	if err := b.db.Tx(ctx, func(tx *transaction) error { return writePolicy(ctx, tx, tool, chat, p) }); err != nil {
		return err
	}
	b.tellListed()
	return nil
}
