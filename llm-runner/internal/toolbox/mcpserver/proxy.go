package mcpserver

import (
	"context"
	"fmt"
	"net/http"
	"sync"
	"time"

	"github.com/modelcontextprotocol/go-sdk/mcp"
)

// Relay speaks to one client over a transport and has a server that runs elsewhere, at an HTTP endpoint, do the work: there is one
// toolbox with one log, however many programs use it. token, if not "", is sent with every request.
func Relay(ctx context.Context, endpoint, token, version string, t mcp.Transport) error {
	var s *mcp.Server
	var mu sync.Mutex
	offered := map[string]bool{}
	offer := func(ctx context.Context, session *mcp.ClientSession) error {
		mu.Lock()
		defer mu.Unlock()
		now := map[string]bool{}
		for tool, err := range session.Tools(ctx, nil) {
			if err != nil {
				return err
			}
			now[tool.Name] = true
			s.AddTool(tool, func(ctx context.Context, req *mcp.CallToolRequest) (*mcp.CallToolResult, error) {
				return session.CallTool(ctx, &mcp.CallToolParams{Name: req.Params.Name, Arguments: req.Params.Arguments}) // what the client says of its own protocol is not ours
			})
		}
		for name := range offered {
			if !now[name] {
				s.RemoveTools(name)
			}
		}
		offered = now
		return nil
	}
	s = mcp.NewServer(&mcp.Implementation{Name: "llm-runner", Title: "llm-runner", Version: version}, &mcp.ServerOptions{
		Capabilities: &mcp.ServerCapabilities{Tools: &mcp.ToolCapabilities{ListChanged: true}},
	})
	client := mcp.NewClient(&mcp.Implementation{Name: "llm-runner mcp", Version: version}, &mcp.ClientOptions{
		Capabilities: &mcp.ClientCapabilities{},
		ToolListChangedHandler: func(ctx context.Context, req *mcp.ToolListChangedRequest) {
			offer(ctx, req.Session) //nolint:errcheck // what is offered already goes on; a call says what is wrong
		},
	})
	session, err := client.Connect(ctx, &mcp.StreamableClientTransport{Endpoint: endpoint, HTTPClient: &http.Client{Transport: bearer{token}}}, nil)
	if err != nil {
		return fmt.Errorf("reach the server that runs: %w", err)
	}
	defer session.Close()
	listing, cancel := context.WithTimeout(ctx, 10*time.Second)
	defer cancel()
	if err := offer(listing, session); err != nil {
		return fmt.Errorf("ask the server that runs for its tools: %w", err)
	}
	return s.Run(ctx, t)
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
