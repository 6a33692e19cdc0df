// Package mcpserver offers the toolbox to other programs by the Model Context Protocol (modelcontextprotocol.io), over stdin and
// stdout or as an HTTP endpoint. Policies hold there as everywhere: a tool that is denied is not offered, and a call of one that is
// asked about waits for a person.
package mcpserver

import (
	"cmp"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"log/slog"
	"net/http"
	"sync"
	"time"

	"github.com/modelcontextprotocol/go-sdk/mcp"

	"home.arpa/lab/llm-runner/internal/toolbox"
)

// Config is what a Server is made of. Box is required.
type Config struct {
	Box     *toolbox.Box
	Version string // of this program
	// Wait is how long a call waits for a person before it gives up; 0 means 55 seconds: most clients give up after a minute.
	Wait time.Duration
	Log  *slog.Logger // nil: slog.Default()
}

// A Server offers the tools of a box.
type Server struct {
	c   Config
	mcp *mcp.Server

	first   sync.Once // somebody came
	mu      sync.Mutex
	offered map[string]bool
}

// New returns a Server, which follows the box: tools that come, go or are denied are told to clients.
func New(c Config) *Server {
	c.Wait = cmp.Or(c.Wait, 55*time.Second)
	if c.Log == nil {
		c.Log = slog.Default()
	}
	s := &Server{c: c, offered: map[string]bool{}}
	s.mcp = mcp.NewServer(&mcp.Implementation{Name: "llm-runner", Title: "llm-runner", Version: c.Version}, &mcp.ServerOptions{
		Instructions: "Tools of one household: its notes, the web, and a sandbox for Python. Some calls wait until a person has said yes.",
		Capabilities: &mcp.ServerCapabilities{Tools: &mcp.ToolCapabilities{ListChanged: true}},
	})
	return s
}

// awake returns the server with its tools, and has it follow the box, once somebody comes: to look whether a tool can be used may take a
// moment, and may be for nobody.
func (s *Server) awake() *mcp.Server {
	s.first.Do(func() {
		s.offer()
		s.c.Box.OnList(func() { go s.offer() })
	})
	return s.mcp
}

// offer brings what is offered up to date.
func (s *Server) offer() {
	s.mu.Lock()
	defer s.mu.Unlock()
	ctx, cancel := context.WithTimeout(context.Background(), 10*time.Second)
	defer cancel()
	all, err := s.c.Box.Entries(ctx, 0)
	if err != nil {
		s.c.Log.Warn("read tools to offer", "error", err)
		return
	}
	now := map[string]bool{}
	for _, e := range all {
		if e.Policy == toolbox.Deny || e.Missing != "" || e.Named {
			continue
		}
		now[e.Name] = true
		no := false
		destroys := e.Effects
		s.mcp.AddTool(&mcp.Tool{Name: e.Name, Description: e.Description, InputSchema: object(e.Schema),
			Annotations: &mcp.ToolAnnotations{ReadOnlyHint: !e.Effects, DestructiveHint: &destroys, OpenWorldHint: openWorld(e.Outside, &no)}}, s.call)
	}
	for name := range s.offered {
		if !now[name] {
			s.mcp.RemoveTools(name)
		}
	}
	s.offered = now
}

func openWorld(outside bool, no *bool) *bool {
	if outside {
		return nil // that is the default
	}
	return no
}

// object is a schema as the protocol wants it: with type "object".
func object(schema json.RawMessage) json.RawMessage {
	var fields map[string]json.RawMessage
	if json.Unmarshal(schema, &fields) != nil || fields == nil {
		return json.RawMessage(`{"type":"object"}`)
	}
	if _, ok := fields["type"]; !ok {
		fields["type"] = json.RawMessage(`"object"`)
		if b, err := json.Marshal(fields); err == nil {
			return b
		}
	}
	return schema
}

// call runs a tool for a client.
func (s *Server) call(ctx context.Context, req *mcp.CallToolRequest) (*mcp.CallToolResult, error) {
	waiting, cancel := context.WithTimeoutCause(ctx, s.c.Wait+10*time.Minute, errWaited)
	defer cancel()
	w := toolbox.Wish{Scope: toolbox.Scope{Source: "mcp"}, Tool: req.Params.Name, Arguments: string(req.Params.Arguments)}
	c, err := s.c.Box.CallWithin(waiting, w, s.c.Wait)
	switch {
	case errors.Is(err, toolbox.ErrWaited):
		return said(fmt.Sprintf("%s waits for the person's word on the Tools page, and nobody decided within %s. Ask them, then call again.", c.Tool, s.c.Wait), true), nil
	case err != nil:
		return nil, err
	}
	return said(c.Result, c.IsError), nil
}

var errWaited = errors.New("the call took too long")

func said(text string, isError bool) *mcp.CallToolResult {
	return &mcp.CallToolResult{Content: []mcp.Content{&mcp.TextContent{Text: text}}, IsError: isError}
}

// Serve speaks to one client over a transport until it leaves or ctx ends.
func (s *Server) Serve(ctx context.Context, t mcp.Transport) error { return s.awake().Run(ctx, t) }

// Handlers are the HTTP endpoint.
func (s *Server) Handlers() (sessions, alone http.Handler) { return Handlers(s.awake, s.c.Log) }
