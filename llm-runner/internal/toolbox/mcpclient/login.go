package mcpclient

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"net/http"
	"net/url"
	"os"
	"path/filepath"
	"strings"
	"sync"

	"github.com/modelcontextprotocol/go-sdk/auth"
	"github.com/modelcontextprotocol/go-sdk/oauthex"
	"golang.org/x/oauth2"
)

// A login is what waits for a person to come back from where they log in.
type login struct {
	url    string // where they log in
	answer chan *auth.AuthorizationResult
}

// Login begins or ends a login: it returns where to send the person, and "" once they have come back with an answer.
func (x *Client) Login(_ context.Context, name string, answer url.Values) (to string, err error) {
	for _, s := range x.all {
		if s.c.Name == name {
			return s.login(answer)
		}
	}
	return "", fmt.Errorf("there is no MCP server %q", name)
}

func (s *server) login(answer url.Values) (string, error) {
	s.mu.Lock()
	w := s.waiting
	s.mu.Unlock()
	switch {
	case w == nil && len(answer) == 0:
		return "", fmt.Errorf("%s does not wait for a login now: look at it on the Tools page", s.c.Name)
	case w == nil:
		return "", errors.New("the login took too long, or was begun before this program was restarted: begin it again")
	case answer.Get("error") != "":
		return "", fmt.Errorf("%s refused: %s %s", s.c.Name, clip(answer.Get("error"), 100), clip(answer.Get("error_description"), 300))
	case answer.Get("code") == "":
		return w.url, nil
	}
	select { // the state is compared by the one that waits
	case w.answer <- &auth.AuthorizationResult{Code: answer.Get("code"), State: answer.Get("state"), Iss: answer.Get("iss")}:
		return "", nil
	default:
		return "", errors.New("this login has an answer already")
	}
}

// ask waits for a person to log in.
func (s *server) ask(ctx context.Context, args *auth.AuthorizationArgs) (*auth.AuthorizationResult, error) {
	if u, err := url.Parse(args.URL); err != nil || u.Scheme != "https" && u.Scheme != "http" {
		return nil, fmt.Errorf("it wants the login to be at %q, which is no web address", clip(args.URL, 100))
	}
	w := &login{url: args.URL, answer: make(chan *auth.AuthorizationResult, 1)}
	s.mu.Lock()
	s.waiting = w
	s.mu.Unlock()
	s.become("login", "")
	defer func() {
		s.mu.Lock()
		s.waiting = nil
		s.mu.Unlock()
		s.become("connecting", "")
	}()
	select {
	case r := <-w.answer:
		return r, nil
	case <-ctx.Done():
		return nil, fmt.Errorf("nobody logged in: %w", ctx.Err())
	}
}

// kept is a login as it lies in the folder of tokens.
type kept struct {
	Server string         `json:"server"`           // its URL: a token is never sent to another one
	Issuer string         `json:"issuer,omitempty"` // as the configuration named it
	Config *oauth2.Config `json:"config"`
	Token  *oauth2.Token  `json:"token"`
}

// oauth makes what logs in, with the tokens of the last login. Tokens are asked for by client.
func (s *server) oauth(client *http.Client) (auth.OAuthHandler, error) {
	fetch := s.fetch
	if fetch == nil {
		fetch = s.ask
	}
	redirect := strings.TrimSuffix(s.x.c.Public, "/") + "/tools/login/" + s.c.Name
	c := &auth.AuthorizationCodeHandlerConfig{
		RedirectURL: redirect, AuthorizationCodeFetcher: fetch, RequestRefreshToken: true, Client: client,
		DynamicClientRegistrationConfig: &auth.DynamicClientRegistrationConfig{Metadata: &oauthex.ClientRegistrationMetadata{
			RedirectURIs: []string{redirect}, ClientName: "llm-runner", GrantTypes: []string{"authorization_code", "refresh_token"}}},
		NewTokenSource: func(ctx context.Context, config *oauth2.Config, t *oauth2.Token) (oauth2.TokenSource, error) {
			keep := &keeper{path: s.tokenFile(), server: s.c.URL, issuer: s.c.Issuer, config: config, source: config.TokenSource(ctx, t), bound: s.c.DPoP}
			_, err := keep.Token()
			return keep, err
		},
	}
	if s.c.Metadata != "" && s.c.ClientID == "" { // else the SDK would show that one, to any issuer
		c.ClientIDMetadataDocumentConfig = &auth.ClientIDMetadataDocumentConfig{URL: s.c.Metadata}
	}
	if s.c.ClientID != "" {
		c.PreregisteredClient = &oauthex.ClientCredentials{ClientID: s.c.ClientID, Issuer: s.c.Issuer}
		if s.c.ClientSecret != "" {
			c.PreregisteredClient.ClientSecretAuth = &oauthex.ClientSecretAuth{ClientSecret: s.c.ClientSecret}
		}
	}
	if k, ok := s.kept(); ok {
		asking := context.WithValue(context.Background(), oauth2.HTTPClient, client)
		keep := &keeper{path: s.tokenFile(), server: s.c.URL, issuer: s.c.Issuer, config: k.Config, source: k.Config.TokenSource(asking, k.Token), bound: s.c.DPoP}
		var refused *oauth2.RetrieveError
		switch _, err := keep.Token(); {
		case err == nil:
			c.InitialTokenSource = keep
		case errors.As(err, &refused) && refused.ErrorCode == "invalid_grant": // it was taken back, or is too old: a person logs in again
			os.Remove(s.tokenFile()) //nolint:errcheck // it is written over then
		default: // whoever renews it cannot be reached now, which says nothing about the login
			return nil, fmt.Errorf("renew the login: %w", err)
		}
	}
	h, err := auth.NewAuthorizationCodeHandler(c)
	if err != nil {
		return nil, fmt.Errorf("prepare the login: %w", err)
	}
	return h, nil
}

func (s *server) tokenFile() string { return filepath.Join(s.x.c.Tokens, s.c.Name+".json") }

// kept is the login that the configuration still means, with the secret that it names now.
func (s *server) kept() (k kept, ok bool) {
	b, err := os.ReadFile(s.tokenFile())
	if err != nil || json.Unmarshal(b, &k) != nil || k.Config == nil || k.Token == nil {
		return k, false
	}
	if s.c.ClientID != "" {
		if k.Config.ClientID != s.c.ClientID {
			return k, false
		}
		k.Config.ClientSecret = s.c.ClientSecret
	}
	return k, k.Server == s.c.URL && k.Issuer == s.c.Issuer && (!s.c.DPoP || bound(k.Token) == nil)
}

// A keeper writes tokens down when they are new, readable by this user only.
type keeper struct {
	path, server, issuer string
	config               *oauth2.Config
	source               oauth2.TokenSource
	bound                bool // to a key: others are refused

	mu   sync.Mutex
	last string
}

func (k *keeper) Token() (*oauth2.Token, error) {
	t, err := k.source.Token()
	if err != nil {
		return nil, err
	}
	if k.bound {
		if err := bound(t); err != nil {
			return nil, err
		}
	}
	k.mu.Lock()
	defer k.mu.Unlock()
	if t.AccessToken == k.last {
		return t, nil
	}
	b, err := json.Marshal(kept{k.server, k.issuer, k.config, t})
	if err == nil {
		err = keep(k.path, b)
	}
	if err != nil {
		return nil, fmt.Errorf("keep the login: %w", err)
	}
	k.last = t.AccessToken
	return t, nil
}

// keep writes a file that only this user can read, whole.
func keep(path string, b []byte) error {
	if err := os.MkdirAll(filepath.Dir(path), 0o700); err != nil {
		return err
	}
	if err := os.WriteFile(path+".new", b, 0o600); err != nil {
		return err
	}
	return os.Rename(path+".new", path)
}
