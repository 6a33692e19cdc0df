package mcpclient

import (
	"fmt"
	"maps"
	"net"
	"net/http"
	"net/url"
	"os"
	"os/exec"
	"slices"
	"time"

	"github.com/modelcontextprotocol/go-sdk/auth"
	"github.com/modelcontextprotocol/go-sdk/mcp"

	"home.arpa/lab/llm-runner/internal/toolbox/browse"
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
	t := &mcp.StreamableClientTransport{Endpoint: s.c.URL, HTTPClient: &http.Client{Transport: headers{s.c.Headers}, CheckRedirect: nearby}, MaxRetries: 2}
	if !s.c.OAuth {
		return t, connectTime, nil
	}
	tokens := &http.Client{Timeout: connectTime, Transport: s.outward, CheckRedirect: reading}
	if s.c.DPoP {
		key, err := s.bindingKey()
		if err != nil {
			return nil, 0, err
		}
		tokens.Transport = &proving{next: s.outward, key: key}
		t.HTTPClient.Transport = &proving{next: t.HTTPClient.Transport, key: key, resource: true}
	}
	if s.c.Grant != GrantCode {
		tokens.CheckRedirect = stay
		t.OAuthHandler = &granter{c: s.c, client: tokens, plain: &http.Client{Timeout: connectTime, Transport: s.outward, CheckRedirect: stay}}
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

// stay follows no redirect: what proves who we are goes nowhere else.
func stay(*http.Request, []*http.Request) error { return http.ErrUseLastResponse }

const mostRedirects = 5

// reading follows redirects of what is only read, and none of them out of https.
func reading(r *http.Request, via []*http.Request) error {
	if via[0].Method != http.MethodGet {
		return http.ErrUseLastResponse
	}
	if len(via) > mostRedirects || r.URL.Scheme != "https" && !nextDoor(via[0].URL, r.URL) {
		return fmt.Errorf("it leads on to %s, which is not followed", clip(r.URL.Redacted(), 200))
	}
	return nil
}

// nearby follows redirects within the server only. Another one would get the headers, which are secrets, and the server could have this
// program ask what only this machine reaches: itself, first of all.
func nearby(r *http.Request, via []*http.Request) error {
	if len(via) > mostRedirects || !nextDoor(via[0].URL, r.URL) {
		return fmt.Errorf("it leads on to %s: write that as its url in mcp.servers if it is right", clip(r.URL.Redacted(), 200))
	}
	return nil
}

// nextDoor says that an address is of the same server, by https where the other one is.
func nextDoor(from, to *url.URL) bool {
	return to.Scheme == from.Scheme && to.Host == from.Host || to.Scheme == "https" && from.Scheme == "http" && to.Hostname() == from.Hostname() && to.Port() == ""
}

// outward is how those are reached who give tokens. Where there is a proxy, it is the one that connects.
func outward(c ServerConfig) http.RoundTripper {
	ask := &http.Request{URL: &url.URL{Scheme: "https", Host: "example.org"}}
	if proxy, err := http.ProxyFromEnvironment(ask); err != nil || proxy != nil {
		return http.DefaultTransport
	}
	return direct(c)
}

// direct connects to the open internet, and to the hosts that the configuration names: the server says who gives its tokens.
func direct(c ServerConfig) *http.Transport {
	var allow []string
	for _, named := range []string{c.URL, c.Issuer, c.IDP.Issuer} {
		if u, err := url.Parse(named); err == nil && u.Hostname() != "" {
			allow = append(allow, u.Hostname())
			if u.Hostname() == "localhost" || net.ParseIP(u.Hostname()).IsLoopback() {
				allow = append(allow, "localhost", "127.0.0.1", "::1")
			}
		}
	}
	return &http.Transport{DialContext: browse.Dial(allow, "name who gives the tokens in issuer of mcp.servers if that is right"), ForceAttemptHTTP2: true,
		TLSHandshakeTimeout: 10 * time.Second, MaxIdleConns: 4, IdleConnTimeout: 10 * time.Second}
}

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
