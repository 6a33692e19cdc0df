package mcpclient

import (
	"context"
	"crypto/sha256"
	"encoding/hex"
	"encoding/json"
	"errors"
	"fmt"
	"strings"
	"time"

	"github.com/modelcontextprotocol/go-sdk/mcp"

	"home.arpa/lab/llm-runner/internal/toolbox"
)

// list asks a server for its tools and puts them into the box.
func (s *server) list(ctx context.Context, session *mcp.ClientSession) error {
	var tools []toolbox.Tool
	var names []string
	for t, err := range session.Tools(ctx, nil) {
		if err != nil {
			if len(tools) == 0 && strings.Contains(err.Error(), "not found") { // it has none
				break
			}
			return err
		}
		if len(tools) == mostTools {
			s.x.log.Warn("MCP server has more tools than are taken", "server", s.c.Name, "taken", mostTools)
			break
		}
		tool, err := s.tool(t)
		if err != nil {
			s.x.log.Warn("MCP server has a tool that cannot be used", "server", s.c.Name, "tool", clip(t.Name, 80), "error", err)
			continue
		}
		tools, names = append(tools, tool), append(names, tool.Name)
	}
	s.x.c.Box.RemoveServer(s.c.Name, names...)
	s.mu.Lock()
	s.state.Tools = names
	s.mu.Unlock()
	return s.x.c.Box.Add(tools...)
}

// tool makes one of ours of a server's. What the server says of it is text of others, and counts for nothing but to describe it: that
// it only reads, say, changes no policy, and does not have a call run twice.
func (s *server) tool(t *mcp.Tool) (toolbox.Tool, error) {
	schema, err := json.Marshal(t.InputSchema)
	if err != nil || string(schema) == "null" {
		schema = []byte(`{"type":"object"}`)
	}
	if len(schema) > 64<<10 {
		return toolbox.Tool{}, errors.New("its schema is larger than 64 KiB")
	}
	return toolbox.Tool{
		Name: named(s.c.Name, t.Name), Description: clip(strings.Join(strings.Fields(t.Description), " "), 1000), Schema: schema,
		Effects: true, Outside: true, Policy: toolbox.Ask, Server: s.c.Name, Off: s.off, Timeout: 5 * time.Minute,
		Run: func(ctx context.Context, c toolbox.Call) (toolbox.Result, error) {
			return s.call(ctx, t.Name, c.Arguments)
		},
	}, nil
}

// named is the name of a server's tool in the box: SERVER__TOOL. What does not fit into 64 characters ends in a mark of the whole.
func named(server, tool string) string {
	name := strings.Map(func(r rune) rune {
		if r >= 'a' && r <= 'z' || r >= 'A' && r <= 'Z' || r >= '0' && r <= '9' || r == '_' || r == '-' {
			return r
		}
		return '_'
	}, server+"__"+tool)
	if len(name) > 64 || name != server+"__"+tool {
		sum := sha256.Sum256([]byte(server + "\x00" + tool))
		name = name[:min(len(name), 55)] + "_" + hex.EncodeToString(sum[:4])
	}
	return name
}

func (s *server) call(ctx context.Context, tool string, arguments json.RawMessage) (toolbox.Result, error) {
	s.mu.Lock()
	session := s.session
	s.mu.Unlock()
	if session == nil {
		return toolbox.Result{}, errors.New(s.off())
	}
	r, err := session.CallTool(ctx, &mcp.CallToolParams{Name: tool, Arguments: arguments})
	if err != nil {
		return toolbox.Result{}, fmt.Errorf("%s: %w", s.c.Name, err)
	}
	text := words(r)
	if r.IsError {
		return toolbox.Result{}, errors.New(clip(text, 4000))
	}
	return toolbox.Result{Text: text}, nil
}

// words are a result as text. Pictures and sounds are only told of.
func words(r *mcp.CallToolResult) string {
	var b strings.Builder
	line := func(format string, args ...any) {
		if b.Len() < mostResult {
			fmt.Fprintf(&b, format+"\n", args...)
		}
	}
	for _, c := range r.Content {
		switch c := c.(type) {
		case *mcp.TextContent:
			line("%s", clip(c.Text, mostResult))
		case *mcp.ImageContent:
			line("[a picture, %s, %d bytes]", clip(c.MIMEType, 60), len(c.Data))
		case *mcp.AudioContent:
			line("[a sound, %s, %d bytes]", clip(c.MIMEType, 60), len(c.Data))
		case *mcp.ResourceLink:
			line("[resource %s %s]", clip(c.Name, 200), clip(c.URI, 500))
		case *mcp.EmbeddedResource:
			if c.Resource != nil && c.Resource.Text != "" {
				line("[resource %s]\n%s", clip(c.Resource.URI, 500), clip(c.Resource.Text, mostResult))
			} else if c.Resource != nil {
				line("[resource %s, %d bytes]", clip(c.Resource.URI, 500), len(c.Resource.Blob))
			}
		}
	}
	if b.Len() == 0 && r.StructuredContent != nil {
		if text, err := json.MarshalIndent(r.StructuredContent, "", " "); err == nil {
			line("%s", clip(string(text), mostResult))
		}
	}
	if b.Len() == 0 {
		return "It answered nothing."
	}
	return b.String()
}
