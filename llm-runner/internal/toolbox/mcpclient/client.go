// Package mcpclient uses the tools of other programs by the Model Context Protocol: it keeps a connection to each configured server,
// makes it again when it breaks, and puts the server's tools into the toolbox, where they stand under the same policies and in the
// same log as our own.
package mcpclient

import (
	"cmp"
	"context"
	"crypto"
	"encoding/json"
	"errors"
	"fmt"
	"log/slog"
	"math/rand/v2"
	"net/http"
	"os/exec"
	"slices"
	"strings"
	"sync"
	"time"

	"github.com/modelcontextprotocol/go-sdk/auth"
	"github.com/modelcontextprotocol/go-sdk/mcp"

	"home.arpa/lab/llm-runner/internal/toolbox"
)

// ServerConfig is one server: a program, or a URL.
type ServerConfig struct {
	Name    string
	Command []string          // the program and its arguments
	Env     map[string]string // for the program, beside PATH, HOME, LANG and TMPDIR
	URL     string
	Headers map[string]string // sent with every request
	OAuth   bool              // a person logs in once, or Grant says how it goes without
	Grant   string            // GrantCode, GrantClient, GrantWorkload, GrantEnterprise
	// Issuer is who gives the tokens, as a URL: nobody else is shown what proves who we are, and its host may be at home; "" whoever the server names.
	Issuer string
	// ClientID and ClientSecret are how the server knows this program, where it was registered there by hand; "" it registers itself.
	ClientID, ClientSecret string
	ClientKey              crypto.Signer // instead of a secret, without a person; nil there is none
	TokenFile              string        // path of the JWT that says who we are, for GrantWorkload and GrantEnterprise; read anew each time
	IDP                    IDP           // for GrantEnterprise
	DPoP                   bool          // tokens are bound to a key of ours, and others are refused
	// Metadata is the https URL of a client ID metadata document that describes this program; "" there is none.
	Metadata string
}

// Config is what a Client is made of. Box is required.
type Config struct {
	Box     *toolbox.Box
	Servers []ServerConfig
	Tokens  string // folder in which the tokens of logins are kept
	Public  string // URL under which a browser reaches this program, for logins
	Version string
	Log     *slog.Logger // nil: slog.Default()
}

const (
	connectTime = 30 * time.Second
	loginTime   = 15 * time.Minute // for a person to log in
	checkEvery  = time.Minute
	checkTime   = 15 * time.Second
	firstRetry  = time.Second
	lastRetry   = 2 * time.Minute
	mostTools   = 128       // of one server
	mostMessage = 4 << 10   // of a handshake, in bytes as shown
	mostResult  = 256 << 10 // of a result, in bytes; the toolbox cuts it further
)

// A Client keeps the connections. It is safe for concurrent use.
type Client struct {
	c               Config
	log             *slog.Logger
	all             []*server
	every, patience time.Duration // how often a server is asked whether it is there, and for how long
}

// New returns a Client, which connects to nothing before Run.
func New(c Config) *Client {
	x := &Client{c: c, log: c.Log, every: checkEvery, patience: checkTime}
	if x.log == nil {
		x.log = slog.Default()
	}
	for _, s := range c.Servers {
		x.all = append(x.all, newServer(x, s))
	}
	return x
}

// Run keeps the connections until ctx ends.
func (x *Client) Run(ctx context.Context) error {
	var wg sync.WaitGroup
	for _, s := range x.all {
		wg.Go(func() { s.run(ctx) })
	}
	wg.Wait()
	return nil
}

// Servers says how each server is, from memory.
func (x *Client) Servers() []toolbox.Server {
	out := make([]toolbox.Server, len(x.all))
	for i, s := range x.all {
		out[i] = s.report()
	}
	return out
}

// A server is one connection.
type server struct {
	x     *Client
	c     ServerConfig
	retry chan struct{}                 // capacity 1: try again now
	fetch auth.AuthorizationCodeFetcher // nil: a person logs in
	// outward reaches those who give tokens.
	outward http.RoundTripper

	mu      sync.Mutex
	state   toolbox.Server
	session *mcp.ClientSession // nil: there is none
	waiting *login             // a person has to log in
	words   *tail              // what the program wrote to stderr; nil: there is none
}

func newServer(x *Client, c ServerConfig) *server {
	return &server{x: x, c: c, retry: make(chan struct{}, 1), outward: outward(c),
		state: toolbox.Server{Name: c.Name, Address: cmp.Or(c.URL, strings.Join(c.Command, " ")), State: "connecting", Since: time.Now()}}
}

func (s *server) report() toolbox.Server {
	s.mu.Lock()
	defer s.mu.Unlock()
	r := s.state
	r.Tools, r.Handshake = slices.Clone(r.Tools), slices.Clone(r.Handshake)
	return r
}

// become says how the server is now.
func (s *server) become(state, says string) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.state.State != state {
		s.state.Since = time.Now()
	}
	s.state.State, s.state.Says, s.state.Login = state, says, ""
	if state == "login" {
		s.state.Login = "/tools/login/" + s.c.Name
	}
}

// off says why the server's tools cannot be called now; "" they can.
func (s *server) off() string {
	s.mu.Lock()
	defer s.mu.Unlock()
	switch s.state.State {
	case "up":
		return ""
	case "login":
		return s.c.Name + " wants you to log in: the Tools page leads there"
	}
	return s.c.Name + " is " + cmp.Or(s.state.Says, s.state.State)
}

// run connects, and connects again, until ctx ends.
func (s *server) run(ctx context.Context) {
	wait := firstRetry
	for ctx.Err() == nil {
		began := time.Now()
		err := s.once(ctx)
		if ctx.Err() != nil {
			return
		}
		if time.Since(began) > 5*time.Minute {
			wait = firstRetry
		}
		says := s.explain(err)
		s.mu.Lock()
		if last := s.words.last(s.c.Env); last != "" {
			says += "; it last wrote: " + last
		}
		s.mu.Unlock()
		s.become("down", says)
		s.x.log.Warn("MCP server", "server", s.c.Name, "error", says)
		again := time.NewTimer(wait/2 + rand.N(wait)) //nolint:gosec // not a secret
		select {
		case <-again.C:
		case <-s.retry:
			again.Stop()
			wait = firstRetry
		case <-ctx.Done():
			again.Stop()
			return
		}
		wait = min(2*wait, lastRetry)
	}
}

// explain is an error for people.
func (s *server) explain(err error) string {
	if err == nil {
		return "it ended the connection"
	}
	text := err.Error()
	var missing *exec.Error
	if errors.As(err, &missing) {
		return fmt.Sprintf("there is no program %s: install it, or correct the command in mcp.servers; the container image has no programs, so there a server needs a url", missing.Name)
	}
	if !s.c.OAuth && (strings.Contains(text, "401") || strings.Contains(text, "Unauthorized")) {
		return text + ": it wants to know who we are: set headers or oauth: true in mcp.servers"
	}
	return text
}

// A tail keeps the end of what a program writes: its complaint. It is safe for concurrent use; nil has none.
type tail struct {
	mu   sync.Mutex
	text []byte
}

const mostComplaint = 2 << 10 // bytes

func (t *tail) Write(p []byte) (int, error) {
	t.mu.Lock()
	defer t.mu.Unlock()
	t.text = append(t.text, p[max(0, len(p)-mostComplaint):]...)
	t.text = slices.Clone(t.text[max(0, len(t.text)-mostComplaint):])
	return len(p), nil
}

// last is the end of what was written, in one line and without the values of env.
func (t *tail) last(env map[string]string) string {
	if t == nil {
		return ""
	}
	t.mu.Lock()
	text := string(t.text)
	t.mu.Unlock()
	for key, value := range env {
		if value != "" {
			text = strings.ReplaceAll(text, value, "$"+key)
		}
	}
	r := []rune(strings.Join(strings.Fields(strings.ToValidUTF8(text, "\uFFFD")), " "))
	return string(r[max(0, len(r)-300):])
}

// once is one connection, from its beginning to its end.
func (s *server) once(ctx context.Context) error {
	ctx, cancel := context.WithCancel(ctx)
	defer cancel()
	s.mu.Lock()
	s.state.Handshake = nil
	s.mu.Unlock()
	session, err := s.dial(ctx, &mcp.ClientOptions{
		Capabilities: &mcp.ClientCapabilities{},
		ToolListChangedHandler: func(_ context.Context, r *mcp.ToolListChangedRequest) {
			go func() {
				if err := s.list(ctx, r.Session); err != nil && ctx.Err() == nil {
					s.x.log.Warn("MCP server has other tools now, and does not tell which", "server", s.c.Name, "error", err)
				}
			}()
		},
	})
	if err != nil {
		return err
	}
	defer session.Close()
	asking, done := context.WithTimeout(ctx, s.x.patience)
	err = s.list(asking, session)
	done()
	if err != nil {
		return fmt.Errorf("ask for its tools: %w", err)
	}
	s.mu.Lock()
	s.session = session
	if r := session.InitializeResult(); r != nil {
		s.state.Protocol = r.ProtocolVersion
		if r.ServerInfo != nil {
			s.state.Product = strings.TrimSpace(clip(r.ServerInfo.Name, 60) + " " + clip(r.ServerInfo.Version, 20))
		}
		s.state.Capabilities = able(r.Capabilities)
	}
	s.mu.Unlock()
	s.become("up", "")
	defer func() {
		s.mu.Lock()
		s.session = nil
		s.mu.Unlock()
	}()
	return s.watch(ctx, session)
}

// dial makes a connection.
func (s *server) dial(ctx context.Context, o *mcp.ClientOptions) (*mcp.ClientSession, error) {
	client := mcp.NewClient(&mcp.Implementation{Name: "llm-runner", Version: s.x.c.Version}, o)
	client.AddSendingMiddleware(s.record)
	transport, limit, err := s.transport()
	if err != nil {
		return nil, err
	}
	return s.connect(ctx, client, transport, limit)
}

// Dial makes a connection to one server, without taking its tools and without making it again: for tests of the protocol. login, if
// it is not nil, logs in instead of a person.
func (x *Client) Dial(ctx context.Context, name string, o *mcp.ClientOptions, login auth.AuthorizationCodeFetcher) (*mcp.ClientSession, error) {
	for _, s := range x.all {
		if s.c.Name == name {
			s.fetch = login
			return s.dial(ctx, o)
		}
	}
	return nil, fmt.Errorf("there is no MCP server %q", name)
}

// connect is bounded: a server that accepts and says nothing is one that does not answer.
func (s *server) connect(ctx context.Context, client *mcp.Client, t mcp.Transport, limit time.Duration) (*mcp.ClientSession, error) {
	type made struct {
		session *mcp.ClientSession
		err     error
	}
	done := make(chan made, 1)
	connecting, cancel := context.WithCancel(ctx) // it is the session's too, so it must not end with the connecting
	go func() {
		session, err := client.Connect(connecting, t, nil)
		done <- made{session, err}
	}()
	timer := time.NewTimer(limit)
	defer timer.Stop()
	select {
	case m := <-done:
		if m.err != nil {
			cancel()
			return nil, fmt.Errorf("connect: %w", m.err)
		}
		context.AfterFunc(ctx, cancel)
		return m.session, nil
	case <-timer.C:
		cancel()
		return nil, fmt.Errorf("it did not answer within %s", limit)
	case <-ctx.Done():
		cancel()
		return nil, ctx.Err()
	}
}

// watch returns once the connection has ended, or the server does not answer any more.
func (s *server) watch(ctx context.Context, session *mcp.ClientSession) error {
	ended := make(chan error, 1)
	go func() { ended <- session.Wait() }()
	check := time.NewTicker(s.x.every)
	defer check.Stop()
	for {
		select {
		case err := <-ended:
			return err
		case <-ctx.Done():
			return ctx.Err()
		case <-s.retry:
			return errors.New("a new connection was asked for")
		case <-check.C:
			asking, cancel := context.WithTimeout(ctx, s.x.patience)
			err := s.list(asking, session)
			cancel()
			if err != nil {
				return fmt.Errorf("it does not answer any more: %w", err)
			}
		}
	}
}

// record keeps the first messages of a connection, for people to see.
func (s *server) record(next mcp.MethodHandler) mcp.MethodHandler {
	return func(ctx context.Context, method string, req mcp.Request) (mcp.Result, error) {
		s.note(true, method, req.GetParams())
		result, err := next(ctx, method, req)
		if err != nil {
			s.note(false, method+" failed", err.Error())
		} else if result != nil {
			s.note(false, method, result)
		}
		return result, err
	}
}

const mostNotes = 8

func (s *server) note(sent bool, method string, what any) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if len(s.state.Handshake) >= mostNotes || strings.HasPrefix(method, "tools/call") {
		return
	}
	text, err := json.MarshalIndent(what, "", "  ")
	if err != nil {
		return
	}
	s.state.Handshake = append(s.state.Handshake, toolbox.Exchange{At: time.Now(), Sent: sent, Text: clip(method+"\n"+string(text), mostMessage)})
}

func clip(s string, most int) string {
	s = strings.ToValidUTF8(s, "\uFFFD")
	if r := []rune(s); len(r) > most {
		return string(r[:most]) + "\u2026"
	}
	return s
}

func able(c *mcp.ServerCapabilities) (all []string) {
	if c == nil {
		return nil
	}
	for name, has := range map[string]bool{"tools": c.Tools != nil, "prompts": c.Prompts != nil, "resources": c.Resources != nil, "completions": c.Completions != nil} {
		if has {
			all = append(all, name)
		}
	}
	slices.Sort(all)
	return all
}
