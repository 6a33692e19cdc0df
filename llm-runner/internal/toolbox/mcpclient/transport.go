package mcpclient

import (
	"maps"
	"net/http"
	"os"
	"os/exec"
	"slices"
	"time"

	"github.com/modelcontextprotocol/go-sdk/auth"
	"github.com/modelcontextprotocol/go-sdk/mcp"
)

// transport is how the server is reached, and how long connecting may take.
func (s *server) transport() (mcp.Transport, time.Duration, error) {
	if len(s.c.Command) > 0 {
		cmd := exec.Command(s.c.Command[0], s.c.Command[1:]...)          //nolint:gosec // the owner configured it
		for _, key := range []string{"PATH", "HOME", "LANG", "TMPDIR"} { // our keys are none of its business
			if v, ok := os.LookupEnv(key); ok {
				cmd.Env = append(cmd.Env, key+"="+v)
			}
		}
		for _, key := range slices.Sorted(maps.Keys(s.c.Env)) {
			cmd.Env = append(cmd.Env, key+"="+s.c.Env[key])
		}
		s.mu.Lock()
		s.words = &tail{}
		cmd.Stderr = s.words
		s.mu.Unlock()
		return &mcp.CommandTransport{Command: cmd, TerminateDuration: 2 * time.Second}, connectTime, nil
	}
	t := &mcp.StreamableClientTransport{Endpoint: s.c.URL, HTTPClient: &http.Client{Transport: headers{s.c.Headers}}, MaxRetries: 2}
	if !s.c.OAuth {
		return t, connectTime, nil
	}
	tokens := &http.Client{Timeout: connectTime}
	if s.c.DPoP {
		key, err := s.bindingKey()
		if err != nil {
			return nil, 0, err
		}
		tokens.Transport = &proving{next: http.DefaultTransport, key: key}
		t.HTTPClient.Transport = &proving{next: t.HTTPClient.Transport, key: key, resource: true}
	}
	if s.c.Grant != GrantCode {
		stay := func(*http.Request, []*http.Request) error { return http.ErrUseLastResponse } // what proves who we are goes nowhere else
		tokens.CheckRedirect = stay
		t.OAuthHandler = &granter{c: s.c, client: tokens, plain: &http.Client{Timeout: connectTime, CheckRedirect: stay}}
		return t, connectTime, nil
	}
	handler, err := s.oauth(tokens)
	if err != nil {
		return nil, 0, err
	}
	t.OAuthHandler = handler
	return t, loginTime, nil
}

var _ auth.OAuthHandler = (*auth.AuthorizationCodeHandler)(nil)

// headers sends the configured headers with every request.
type headers struct{ all map[string]string }

func (h headers) RoundTrip(r *http.Request) (*http.Response, error) {
	if len(h.all) > 0 {
		r = r.Clone(r.Context())
		for key, value := range h.all {
			r.Header.Set(key, value)
		}
	}
	return http.DefaultTransport.RoundTrip(r)
}
