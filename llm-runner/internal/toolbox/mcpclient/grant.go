package mcpclient

import (
	"cmp"
	"context"
	"crypto"
	"crypto/rand"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/url"
	"os"
	"slices"
	"strings"
	"sync"
	"time"

	"github.com/modelcontextprotocol/go-sdk/auth"
	"github.com/modelcontextprotocol/go-sdk/oauthex"
	"golang.org/x/oauth2"
	"golang.org/x/oauth2/clientcredentials"
)

// How a server's tokens are got. All but the first need no person.
const (
	GrantCode       = ""                   // a person logs in
	GrantClient     = "client_credentials" // RFC 6749, section 4.4, with a secret or a key (SEP-1046)
	GrantWorkload   = "jwt_bearer"         // RFC 7523: a platform says who this program is, in a file (SEP-1933)
	GrantEnterprise = "enterprise"         // an ID token becomes an assertion at the identity provider, and that a token (SEP-990)
)

const (
	jwtBearer     = "urn:ietf:params:oauth:grant-type:jwt-bearer"
	mostMetadata  = 1 << 20     // bytes
	mostTokenFile = 64 << 10    // bytes
	assertionLife = time.Minute // of what our key signs
)

// An IDP is the identity provider that ID tokens come from, and how it knows this program.
type IDP struct {
	Issuer       string // URL
	ClientID     string
	ClientSecret string // "": it wants none
}

// A granter gets tokens without a person. What it got is kept in memory only: it can always be got again.
type granter struct {
	c      ServerConfig
	client *http.Client // for tokens that are for the server; proves, where they are bound
	plain  *http.Client

	mu       sync.Mutex
	token    *oauth2.Token
	from     *issuer // nil: nobody has told yet who gives tokens
	resource string
	scopes   []string
}

// An issuer is what is used of an authorization server's metadata (RFC 8414).
type issuer struct {
	Issuer     string   `json:"issuer"`
	Endpoint   string   `json:"token_endpoint"`
	Methods    []string `json:"token_endpoint_auth_methods_supported"`
	Algorithms []string `json:"token_endpoint_auth_signing_alg_values_supported"`
}

var _ auth.OAuthHandler = (*granter)(nil)

func (g *granter) TokenSource(context.Context) (oauth2.TokenSource, error) {
	g.mu.Lock()
	defer g.mu.Unlock()
	if g.from == nil {
		return nil, nil
	}
	return g, nil
}

// Token is the token that is good now, got anew where the last one has run out.
func (g *granter) Token() (*oauth2.Token, error) {
	g.mu.Lock()
	defer g.mu.Unlock()
	if g.token.Valid() {
		return g.token, nil
	}
	ctx, cancel := context.WithTimeout(context.Background(), connectTime)
	defer cancel()
	err := g.ask(ctx)
	return g.token, err
}

// Authorize gets a token after a refusal of the server, which says who gives them.
func (g *granter) Authorize(ctx context.Context, req *http.Request, resp *http.Response) error {
	defer resp.Body.Close()
	io.Copy(io.Discard, io.LimitReader(resp.Body, mostMetadata)) //nolint:errcheck // so that the connection can be used again
	said, err := oauthex.ParseWWWAuthenticate(resp.Header.Values("WWW-Authenticate"))
	if err != nil {
		return fmt.Errorf("read what it wants: %w", err)
	}
	var scopes []string
	metadata, refusal := "", ""
	for _, c := range said {
		if c.Scheme == "bearer" || c.Scheme == "dpop" {
			metadata, refusal = cmp.Or(metadata, c.Params["resource_metadata"]), cmp.Or(refusal, c.Params["error"])
			scopes = append(scopes, strings.Fields(c.Params["scope"])...)
		}
	}
	if resp.StatusCode == http.StatusForbidden && refusal != "insufficient_scope" {
		return nil // no other token would change it: the answer is shown as it is
	}
	ctx, cancel := context.WithTimeout(ctx, connectTime)
	defer cancel()
	g.mu.Lock()
	defer g.mu.Unlock()
	place, err := g.protected(ctx, metadata, req.URL)
	if err != nil {
		return err
	}
	from, err := g.discover(ctx, cmp.Or(g.c.Issuer, place.AuthorizationServers[0]))
	if err != nil {
		return err
	}
	if len(scopes) == 0 {
		scopes = place.ScopesSupported
	}
	for _, s := range scopes {
		if !slices.Contains(g.scopes, s) {
			g.scopes = append(g.scopes, s)
		}
	}
	g.from, g.resource, g.token = from, place.Resource, nil
	return g.ask(ctx)
}

// protected finds out who gives tokens for the server (RFC 9728), in the places of the protocol's revision 2025-11-25; where it says
// nothing, the server itself does. Where the configuration names an issuer, no other is asked: whoever is asked gets to see what
// proves who we are.
func (g *granter) protected(ctx context.Context, metadata string, at *url.URL) (*oauthex.ProtectedResourceMetadata, error) {
	whole, root := *at, *at
	whole.RawQuery, whole.Fragment = "", ""
	root.Path, root.RawPath, root.RawQuery, root.Fragment = "", "", "", ""
	for _, try := range [][2]string{{metadata, whole.String()},
		{root.String() + "/.well-known/oauth-protected-resource/" + strings.TrimLeft(whole.EscapedPath(), "/"), whole.String()},
		{root.String() + "/.well-known/oauth-protected-resource", root.String()}} {
		if try[0] == "" {
			continue
		}
		m, err := oauthex.GetProtectedResourceMetadata(ctx, try[0], try[1], g.plain)
		if err != nil || m == nil || len(m.AuthorizationServers) == 0 {
			continue
		}
		if g.c.Issuer != "" && !slices.ContainsFunc(m.AuthorizationServers, func(s string) bool { return same(s, g.c.Issuer) }) {
			return nil, fmt.Errorf("it takes tokens of %s, and the configuration names the issuer %s: correct the one that is wrong",
				clip(strings.Join(m.AuthorizationServers, ", "), 300), g.c.Issuer)
		}
		return m, nil
	}
	return &oauthex.ProtectedResourceMetadata{Resource: whole.String(), AuthorizationServers: []string{root.String()}}, nil
}

// same compares two issuers; a slash at the end makes no other one.
func same(a, b string) bool { return strings.TrimSuffix(a, "/") == strings.TrimSuffix(b, "/") }

// discover reads an issuer's metadata. The SDK's own way wants PKCE of it, which is for people's logins.
func (g *granter) discover(ctx context.Context, name string) (*issuer, error) {
	u, err := url.Parse(name)
	if err != nil || !safe(u) {
		return nil, fmt.Errorf("%q, who gives its tokens, is no https address", clip(name, 200))
	}
	root, path := u.Scheme+"://"+u.Host, strings.Trim(u.EscapedPath(), "/")
	places := []string{root + "/.well-known/oauth-authorization-server", root + "/.well-known/openid-configuration"}
	if path != "" {
		places = []string{places[0] + "/" + path, places[1] + "/" + path, root + "/" + path + "/.well-known/openid-configuration"}
	}
	for _, place := range places {
		m, err := g.metadata(ctx, place)
		if err != nil {
			return nil, err
		}
		if m == nil {
			continue
		}
		if !same(m.Issuer, name) {
			return nil, fmt.Errorf("%s describes the issuer %q, not %q", place, clip(m.Issuer, 200), clip(name, 200))
		}
		if e, err := url.Parse(m.Endpoint); err != nil || !safe(e) {
			return nil, fmt.Errorf("%s gives tokens at %q, which is no https address", clip(name, 200), clip(m.Endpoint, 200))
		}
		return m, nil
	}
	return &issuer{Issuer: name, Endpoint: strings.TrimSuffix(name, "/") + "/token"}, nil // as in the protocol's revision 2025-03-26
}

// safe says whether secrets may go there: by https, or to this machine.
func safe(u *url.URL) bool {
	ip := net.ParseIP(u.Hostname())
	return u.Scheme == "https" && u.Host != "" || u.Scheme == "http" && (u.Hostname() == "localhost" || ip != nil && ip.IsLoopback())
}

// metadata is nil where there is none.
func (g *granter) metadata(ctx context.Context, place string) (*issuer, error) {
	req, err := http.NewRequestWithContext(ctx, http.MethodGet, place, nil)
	if err != nil {
		return nil, err
	}
	resp, err := g.plain.Do(req)
	if err != nil {
		return nil, fmt.Errorf("ask who gives tokens: %w", err)
	}
	defer resp.Body.Close()
	if resp.StatusCode >= 300 && resp.StatusCode < 500 {
		return nil, nil
	}
	if resp.StatusCode != http.StatusOK {
		return nil, fmt.Errorf("ask who gives tokens: %s answers %s", place, resp.Status)
	}
	var m issuer
	if err := json.NewDecoder(io.LimitReader(resp.Body, mostMetadata)).Decode(&m); err != nil {
		return nil, fmt.Errorf("ask who gives tokens: %s: %w", place, err)
	}
	return &m, nil
}

// ask gets a token from the issuer that is known. Nothing is tried a second way: what was refused stays refused.
func (g *granter) ask(ctx context.Context) error {
	g.token = nil
	params := url.Values{"resource": {g.resource}}
	switch g.c.Grant {
	case GrantWorkload:
		text, err := g.file()
		if err != nil {
			return err
		}
		params.Set("grant_type", jwtBearer)
		params.Set("assertion", text)
	case GrantEnterprise:
		text, err := g.exchange(ctx)
		if err != nil {
			return err
		}
		params.Set("grant_type", jwtBearer)
		params.Set("assertion", text)
	}
	t, err := request(ctx, g.client, g.from, g.c.ClientID, g.c.ClientSecret, g.c.ClientKey, g.scopes, params)
	if err != nil {
		return fmt.Errorf("ask %s for a token: %w", g.from.Issuer, err)
	}
	if g.c.DPoP {
		if err := bound(t); err != nil {
			return err
		}
	}
	g.token = t
	return nil
}

// bound refuses a token that whoever sees it can use (RFC 9449, section 5).
func bound(t *oauth2.Token) error {
	if !strings.EqualFold(t.TokenType, "DPoP") {
		return errors.New("it gives tokens that are not bound to a key: remove dpop in mcp.servers, or have it bind them")
	}
	return nil
}

// file is the token that says who we are, as it is now: platforms write it anew before it runs out.
func (g *granter) file() (string, error) {
	f, err := os.Open(g.c.TokenFile)
	if err != nil {
		return "", fmt.Errorf("read token_file: %w", err)
	}
	defer f.Close()
	text, err := io.ReadAll(io.LimitReader(f, mostTokenFile+1))
	if err != nil {
		return "", fmt.Errorf("read token_file: %w", err)
	}
	token := strings.TrimSpace(string(text))
	if len(text) > mostTokenFile || strings.Count(token, ".") != 2 || strings.ContainsAny(token, " \n\t") {
		return "", fmt.Errorf("read token_file: %s holds no JWT, which is three parts with dots between them", g.c.TokenFile)
	}
	return token, nil
}

// exchange has the identity provider make an assertion for this server of our ID token (RFC 8693).
func (g *granter) exchange(ctx context.Context) (string, error) {
	text, err := g.file()
	if err != nil {
		return "", err
	}
	at, err := g.discover(ctx, g.c.IDP.Issuer)
	if err != nil {
		return "", err
	}
	t, err := request(ctx, g.plain, at, g.c.IDP.ClientID, g.c.IDP.ClientSecret, nil, g.scopes, url.Values{
		"grant_type": {oauthex.GrantTypeTokenExchange}, "requested_token_type": {oauthex.TokenTypeIDJAG}, "audience": {g.from.Issuer}, "resource": {g.resource},
		"subject_token": {text}, "subject_token_type": {oauthex.TokenTypeIDToken}})
	if err != nil {
		return "", fmt.Errorf("ask the identity provider %s for an assertion: %w", at.Issuer, err)
	}
	if kind, _ := t.Extra("issued_token_type").(string); kind != oauthex.TokenTypeIDJAG {
		return "", fmt.Errorf("the identity provider %s gave a token of the kind %q, not %s", at.Issuer, clip(kind, 100), oauthex.TokenTypeIDJAG)
	}
	return t.AccessToken, nil
}

// request asks an issuer for a token, and says who asks: by a key, by a secret in the way that it supports, or by the name alone.
func request(ctx context.Context, client *http.Client, at *issuer, id, secret string, key crypto.Signer, scopes []string, params url.Values) (*oauth2.Token, error) {
	c := clientcredentials.Config{ClientID: id, ClientSecret: secret, TokenURL: at.Endpoint, Scopes: scopes, EndpointParams: params, AuthStyle: oauth2.AuthStyleInParams}
	switch {
	case key != nil:
		name, _, err := algorithm(key)
		if err != nil {
			return nil, err
		}
		if len(at.Algorithms) > 0 && !slices.Contains(at.Algorithms, name) {
			return nil, fmt.Errorf("client_key signs with %s, and it takes %s", name, clip(strings.Join(at.Algorithms, ", "), 200))
		}
		now := time.Now()
		text, err := sign(key, map[string]any{"typ": "JWT"}, map[string]any{"iss": id, "sub": id, "aud": at.Issuer, "jti": rand.Text(), // RFC 7523, section 3
			"iat": now.Unix(), "exp": now.Add(assertionLife).Unix()})
		if err != nil {
			return nil, err
		}
		params.Set("client_assertion_type", "urn:ietf:params:oauth:client-assertion-type:jwt-bearer")
		params.Set("client_assertion", text)
	case secret != "" && !slices.Contains(at.Methods, "client_secret_post"):
		c.AuthStyle = oauth2.AuthStyleInHeader // the default of RFC 8414 too
	}
	t, err := c.Token(context.WithValue(ctx, oauth2.HTTPClient, client))
	var no *oauth2.RetrieveError
	if errors.As(err, &no) {
		err = &refusal{no}
	}
	return t, err
}

// A refusal is what an issuer answered, without its page.
type refusal struct{ *oauth2.RetrieveError }

func (r *refusal) Unwrap() error { return r.RetrieveError }

func (r *refusal) Error() string {
	if r.ErrorCode == "" {
		return "it answers " + r.Response.Status
	}
	return strings.TrimSuffix("it refuses: "+clip(r.ErrorCode, 100)+" "+clip(r.ErrorDescription, 300), " ")
}
