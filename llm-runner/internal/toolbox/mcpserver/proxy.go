package mcpserver

import (
	"context"
	"fmt"
	"net/http"
	"sync"
	"time"

	"github.com/modelcontextprotocol/go-sdk/mcp"
)

// A Place is where a server runs, and the token that it wants; "" none.
type Place struct{ Endpoint, Token string }

// Relay speaks to one client over a transport and has a server that runs elsewhere do the work: there is one toolbox with one log, however many
// programs use it. place says where it runs now; it is asked again when the server is there no more: a new one has another token.
func Relay(ctx context.Context, place func() (Place, error), version string, t mcp.Transport) error {
	r := &relay{place: place, version: version, offered: map[string]bool{}}
	r.server = mcp.NewServer(&mcp.Implementation{Name: "llm-runner", Title: "llm-runner", Version: version}, &mcp.ServerOptions{
		Capabilities: &mcp.ServerCapabilities{Tools: &mcp.ToolCapabilities{ListChanged: true}},
	})
	if _, err := r.connect(ctx, nil); err != nil {
		return err
	}
	defer func() {
		r.connecting.Lock()
		defer r.connecting.Unlock()
		r.session.Close()
	}()
	return r.server.Run(ctx, t)
}

type relay struct {
	place   func() (Place, error)
	version string
	server  *mcp.Server

	connecting sync.Mutex
	session    *mcp.ClientSession

	mu      sync.Mutex
	offered map[string]bool
}

// patience is how long the server that runs may take to answer what costs it nothing.
const patience = 10 * time.Second

// connect returns a session other than the one that is no good: the one that somebody else has made meanwhile, or a new one.
func (r *relay) connect(ctx context.Context, bad *mcp.ClientSession) (*mcp.ClientSession, error) {
	r.connecting.Lock()
	defer r.connecting.Unlock()
	if r.session != bad {
		return r.session, nil
	}
	p, err := r.place()
	if err != nil {
		return nil, fmt.Errorf("find the server that runs: %w", err)
	}
	client := mcp.NewClient(&mcp.Implementation{Name: "llm-runner mcp", Version: r.version}, &mcp.ClientOptions{
		Capabilities: &mcp.ClientCapabilities{},
		ToolListChangedHandler: func(ctx context.Context, req *mcp.ToolListChangedRequest) {
			r.offer(ctx, req.Session) //nolint:errcheck // what is offered already goes on; a call says what is wrong
		},
	})
	lasting, cut := context.WithCancel(context.WithoutCancel(ctx)) // the session outlives the call for which it is made
	late := time.AfterFunc(patience, cut)
	session, err := client.Connect(lasting, &mcp.StreamableClientTransport{Endpoint: p.Endpoint, HTTPClient: &http.Client{Transport: bearer{p.Token}}}, nil)
	late.Stop()
	if err != nil {
		cut()
		return nil, fmt.Errorf("reach the server that runs: %w", err)
	}
	listing, cancel := context.WithTimeout(ctx, patience)
	defer cancel()
	if err := r.offer(listing, session); err != nil {
		session.Close()
		cut()
		return nil, fmt.Errorf("ask the server that runs for its tools: %w", err)
	}
	if r.session != nil {
		go r.session.Close() // which tries to say goodbye to somebody who is gone
	}
	r.session = session
	return session, nil
}

// offer has the tools of a session offered, and no others.
func (r *relay) offer(ctx context.Context, session *mcp.ClientSession) error {
	r.mu.Lock()
	defer r.mu.Unlock()
	now := map[string]bool{}
	for tool, err := range session.Tools(ctx, nil) {
		if err != nil {
			return err
		}
		now[tool.Name] = true
		r.server.AddTool(tool, r.call)
	}
	for name := range r.offered {
		if !now[name] {
			r.server.RemoveTools(name)
		}
	}
	r.offered = now
	return nil
}

// call passes a call on. It is made once: before it, a server that does not know the session any more is looked for again.
func (r *relay) call(ctx context.Context, req *mcp.CallToolRequest) (*mcp.CallToolResult, error) {
	session, err := r.connect(ctx, nil)
	if err != nil {
		return nil, err
	}
	asking, cancel := context.WithTimeout(ctx, patience)
	err = session.Ping(asking, nil)
	cancel()
	if err != nil {
		if session, err = r.connect(ctx, session); err != nil {
			return nil, err
		}
	}
	return session.CallTool(ctx, &mcp.CallToolParams{Name: req.Params.Name, Arguments: req.Params.Arguments}) // what the client says of its own protocol is not ours
}

// bearer sends a token with every request.
type bearer struct{ token string }

func (b bearer) RoundTrip(r *http.Request) (*http.Response, error) {
	if b.token != "" {
		r = r.Clone(r.Context())
		r.Header.Set("Authorization", "Bearer "+b.token)
	}
	return http.DefaultTransport.RoundTrip(r)
}
