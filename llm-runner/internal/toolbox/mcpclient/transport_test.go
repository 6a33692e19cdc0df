package mcpclient

import (
	"errors"
	"io"
	"net/http"
	"net/http/httptest"
	"net/url"
	"strings"
	"sync/atomic"
	"testing"

	"github.com/modelcontextprotocol/go-sdk/mcp"

	"home.arpa/lab/llm-runner/internal/toolbox/browse"
)

// post sends something and says what came of it.
func post(t *testing.T, c *http.Client, to string) (status int, err error) {
	t.Helper()
	resp, err := c.Post(to, "application/json", strings.NewReader("{}"))
	if err != nil {
		return 0, err
	}
	io.Copy(io.Discard, resp.Body) //nolint:errcheck // it is of no interest
	resp.Body.Close()
	return resp.StatusCode, nil
}

// A server could otherwise have this program hand its headers to another one, or have it post to what only this machine reaches: to the
// API that decides about calls.
func TestNoServerSendsUsOnToAnotherOne(t *testing.T) {
	t.Parallel()
	var other, next atomic.Int64
	elsewhere := httptest.NewServer(http.HandlerFunc(func(http.ResponseWriter, *http.Request) { other.Add(1) }))
	defer elsewhere.Close()
	server := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		switch r.URL.Path {
		case "/next":
			if r.Header.Get("X-Key") == "hunter2" && r.Method == http.MethodPost {
				next.Add(1)
			}
		case "/slash":
			http.Redirect(w, r, "/next", http.StatusTemporaryRedirect)
		default:
			http.Redirect(w, r, elsewhere.URL+"/api/tools/calls/1/approve", http.StatusTemporaryRedirect)
		}
	}))
	defer server.Close()
	for _, c := range []ServerConfig{{}, {OAuth: true}, {OAuth: true, DPoP: true}, {OAuth: true, Grant: GrantClient, ClientID: "us"}} {
		c.Name, c.URL, c.Headers = "a", server.URL, map[string]string{"X-Key": "hunter2"}
		s := New(Config{Tokens: t.TempDir(), Public: "http://127.0.0.1:1", Servers: []ServerConfig{c}, Log: quiet()}).all[0]
		made, _, err := s.transport()
		if err != nil {
			t.Fatal(err)
		}
		client := made.(*mcp.StreamableClientTransport).HTTPClient
		if _, err := post(t, client, server.URL+"/away"); err == nil || !strings.Contains(err.Error(), "leads on to "+elsewhere.URL) || other.Load() != 0 {
			t.Errorf("%+v: %v, %d requests elsewhere", c, err, other.Load())
		}
		was := next.Load()
		if status, err := post(t, client, server.URL+"/slash"); err != nil || status != http.StatusOK || next.Load() != was+1 {
			t.Errorf("%+v: within the server: %d, %v", c, status, err)
		}
	}
	asks := &http.Client{Transport: direct(ServerConfig{URL: server.URL}), CheckRedirect: reading}
	if status, err := post(t, asks, server.URL+"/register"); err != nil || status != http.StatusTemporaryRedirect || other.Load() != 0 {
		t.Errorf("what registers us or gets tokens is sent on: %d, %v", status, err)
	}
	if resp, err := asks.Get(server.URL + "/.well-known/x"); err == nil || other.Load() != 0 {
		t.Errorf("what is read leads out of https: %+v", resp)
	}
}

func TestARedirectStaysWithinItsServer(t *testing.T) {
	t.Parallel()
	for pair, want := range map[[2]string]bool{
		{"https://a.example/x", "https://a.example/y"}:         true,
		{"http://a.example/x", "https://a.example/x"}:          true,
		{"http://a.example:8080/x", "https://a.example/x"}:     true,
		{"https://a.example/x", "http://a.example/x"}:          false,
		{"https://a.example/x", "https://a.example:8443/x"}:    false,
		{"https://a.example/x", "https://b.a.example/x"}:       false,
		{"http://127.0.0.1:3000/x", "http://127.0.0.1:8080/x"}: false,
	} {
		from, err := url.Parse(pair[0])
		if err != nil {
			t.Fatal(err)
		}
		to, err := url.Parse(pair[1])
		if err != nil {
			t.Fatal(err)
		}
		if nextDoor(from, to) != want {
			t.Errorf("%v: %t", pair, !want)
		}
	}
}

// The issuer is named by the server: one that is out there has no business with what is in here.
func TestAnIssuerInsideIsNamedByTheConfiguration(t *testing.T) {
	t.Parallel()
	inside := httptest.NewServer(http.HandlerFunc(func(http.ResponseWriter, *http.Request) {}))
	defer inside.Close()
	for _, tt := range []struct {
		name string
		c    ServerConfig
		want bool
	}{
		{"nobody names it", ServerConfig{URL: "https://mcp.example/mcp"}, false},
		{"another issuer is named", ServerConfig{URL: "https://mcp.example/mcp", Issuer: "https://login.example"}, false},
		{"the issuer", ServerConfig{URL: "https://mcp.example/mcp", Issuer: inside.URL}, true},
		{"the identity provider", ServerConfig{URL: "https://mcp.example/mcp", IDP: IDP{Issuer: "http://localhost:1"}}, true},
		{"the server is inside itself", ServerConfig{URL: "http://[::1]:3000/mcp"}, true},
	} {
		_, err := post(t, &http.Client{Transport: direct(tt.c)}, inside.URL+"/register")
		if (err == nil) != tt.want || !tt.want && !errors.Is(err, browse.ErrInside) {
			t.Errorf("%s: %v", tt.name, err)
		}
	}
}
