package mcpserver

import (
	"context"
	"errors"
	"net/http"
	"net/http/httptest"
	"path/filepath"
	"slices"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"github.com/modelcontextprotocol/go-sdk/mcp"

	"home.arpa/lab/llm-runner/internal/db"
	"home.arpa/lab/llm-runner/internal/toolbox"
)

type greeting struct {
	Name string `json:"name"`
}

// offered is a box with a tool for each policy, and a server that offers it.
func offered(t *testing.T, wait time.Duration) (*toolbox.Box, *Server) {
	t.Helper()
	d, err := db.Open(t.Context(), filepath.Join(t.TempDir(), "runner.db"))
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { d.Close() })
	box, err := toolbox.Open(t.Context(), d, toolbox.Config{})
	if err != nil {
		t.Fatal(err)
	}
	for name, p := range map[string]toolbox.Policy{"free": toolbox.Allow, "asked": toolbox.Ask, "never": toolbox.Deny} {
		if err := box.Add(toolbox.Make(toolbox.Tool{Name: name, Policy: p}, func(_ context.Context, _ toolbox.Call, g greeting) (toolbox.Result, error) {
			return toolbox.Result{Text: "hello " + g.Name}, nil
		})); err != nil {
			t.Fatal(err)
		}
	}
	return box, New(Config{Box: box, Version: "1", Wait: wait})
}

// connect returns a client's session, and what is told whenever the server says that its tools have changed.
func connect(t *testing.T, s *Server) (*mcp.ClientSession, <-chan struct{}) {
	t.Helper()
	changed := make(chan struct{}, 100)
	ours, theirs := mcp.NewInMemoryTransports()
	go s.Serve(t.Context(), ours) //nolint:errcheck // it ends with the test
	session, err := mcp.NewClient(&mcp.Implementation{Name: "test", Version: "1"}, &mcp.ClientOptions{
		ToolListChangedHandler: func(context.Context, *mcp.ToolListChangedRequest) { changed <- struct{}{} }}).Connect(t.Context(), theirs, nil)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { session.Close() })
	return session, changed
}

func names(t *testing.T, session *mcp.ClientSession) (all []string) {
	t.Helper()
	for tool, err := range session.Tools(t.Context(), nil) {
		if err != nil {
			t.Fatal(err)
		}
		all = append(all, tool.Name)
	}
	slices.Sort(all)
	return all
}

func words(r *mcp.CallToolResult) string { return r.Content[0].(*mcp.TextContent).Text }

func TestPoliciesHoldForOtherPrograms(t *testing.T) {
	box, s := offered(t, 50*time.Millisecond)
	session, changed := connect(t, s)
	if got := strings.Join(names(t, session), " "); got != "asked free" {
		t.Errorf("offered %s", got)
	}
	r, err := session.CallTool(t.Context(), &mcp.CallToolParams{Name: "free", Arguments: map[string]any{"name": "Ada"}})
	if err != nil || r.IsError || words(r) != "hello Ada" {
		t.Errorf("%+v, %v", r, err)
	}
	if r, err = session.CallTool(t.Context(), &mcp.CallToolParams{Name: "free", Arguments: map[string]any{"name": 3}}); err != nil || !r.IsError {
		t.Errorf("wrong arguments: %+v, %v", r, err)
	}
	r, err = session.CallTool(t.Context(), &mcp.CallToolParams{Name: "asked", Arguments: map[string]any{"name": "Ada"}})
	if err != nil || !r.IsError || !strings.Contains(words(r), "waits for the person's word") {
		t.Errorf("%+v, %v", r, err)
	}
	log, err := box.Log(t.Context(), "asked", 0, 1)
	if err != nil || len(log) != 1 || log[0].State != toolbox.Withdrawn || log[0].Source != "mcp" {
		t.Errorf("%+v, %v", log, err)
	}
	if err := box.SetPolicy(t.Context(), "free", 0, toolbox.Deny); err != nil {
		t.Fatal(err)
	}
	for limit := time.After(time.Minute); strings.Join(names(t, session), " ") != "asked"; {
		select {
		case <-changed:
		case <-limit:
			t.Fatal("a denied tool is offered still, or nobody is told that it is not")
		}
	}
}

func TestARelayOffersWhatTheServerOffers(t *testing.T) {
	_, s := offered(t, time.Second)
	sessions, _ := s.Handlers()
	web := httptest.NewServer(sessions)
	defer web.Close()
	defer web.CloseClientConnections()
	ours, theirs := mcp.NewInMemoryTransports()
	ctx, cancel := context.WithCancel(t.Context())
	done := make(chan error, 1)
	go func() { done <- Relay(ctx, func() (Place, error) { return Place{web.URL, ""}, nil }, "1", ours) }()
	session, err := mcp.NewClient(&mcp.Implementation{Name: "test", Version: "1"}, nil).Connect(t.Context(), theirs, nil)
	if err != nil {
		t.Fatal(err)
	}
	if got := strings.Join(names(t, session), " "); got != "asked free" {
		t.Errorf("offered %s", got)
	}
	r, err := session.CallTool(t.Context(), &mcp.CallToolParams{Name: "free", Arguments: map[string]any{"name": "Ada"}})
	if err != nil || words(r) != "hello Ada" {
		t.Errorf("%+v, %v", r, err)
	}
	session.Close()
	cancel()
	<-done
}

// A server that is started again has another address and another token, and knows no session of the one before.
func TestARelayOutlivesTheServer(t *testing.T) {
	start := func(token string) *httptest.Server {
		_, s := offered(t, time.Second)
		sessions, _ := s.Handlers()
		web := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
			if r.Header.Get("Authorization") != "Bearer "+token {
				w.WriteHeader(http.StatusUnauthorized)
				return
			}
			sessions.ServeHTTP(w, r)
		}))
		t.Cleanup(func() {
			web.CloseClientConnections()
			web.Close()
		})
		return web
	}
	var now atomic.Pointer[Place]
	first := start("one")
	now.Store(&Place{first.URL, "one"})
	ours, theirs := mcp.NewInMemoryTransports()
	ctx, cancel := context.WithCancel(t.Context())
	done := make(chan error, 1)
	go func() {
		done <- Relay(ctx, func() (Place, error) {
			if p := now.Load(); p != nil {
				return *p, nil
			}
			return Place{}, errors.New("llm-runner serves no more")
		}, "1", ours)
	}()
	session, err := mcp.NewClient(&mcp.Implementation{Name: "test", Version: "1"}, nil).Connect(t.Context(), theirs, nil)
	if err != nil {
		t.Fatal(err)
	}
	greet := func() (string, error) {
		r, err := session.CallTool(t.Context(), &mcp.CallToolParams{Name: "free", Arguments: map[string]any{"name": "Ada"}})
		if err != nil {
			return "", err
		}
		return words(r), nil
	}
	if got, err := greet(); err != nil || got != "hello Ada" {
		t.Fatalf("%q, %v", got, err)
	}
	now.Store(nil)
	first.CloseClientConnections()
	first.Close()
	if got, err := greet(); err == nil || !strings.Contains(err.Error(), "serves no more") {
		t.Errorf("while it is gone: %q, %v", got, err)
	}
	now.Store(&Place{start("two").URL, "two"})
	if got, err := greet(); err != nil || got != "hello Ada" {
		t.Errorf("once it is back: %q, %v", got, err)
	}
	session.Close()
	cancel()
	<-done
}
