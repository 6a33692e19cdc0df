// Package infisical reads secrets from an Infisical server with a machine identity: two calls of its API, and nothing written. No error holds a
// secret.
package infisical

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/url"
	"strings"
	"time"
)

// A Client reads one environment of one project. Its fields are set before the first call; it is safe for concurrent use after Login.
type Client struct {
	URL         string        // of the server, without /api: https://app.infisical.com
	ID, Secret  string        // of the machine identity's universal auth
	Project     string        // the project's id
	Environment string        // its slug: prod
	Pause       time.Duration // before the second try, doubled before the third; 0: a second

	token string
}

// ErrNoFolder means that the server has no folder of that path.
var ErrNoFolder = errors.New("there is no such folder")

// maxAnswer bounds an answer: a folder of a thousand secrets has about one megabyte.
const maxAnswer = 16 << 20

// tries is how often a call is made that a server or the network failed; what the server refuses is not asked again.
const tries = 3

var plain = http.Client{
	Timeout: 30 * time.Second,
	CheckRedirect: func(*http.Request, []*http.Request) error {
		return errors.New("the server leads elsewhere, and secrets are not carried there: set the URL that it leads to")
	},
}

// Check reports everything that a client lacks.
func (c *Client) Check() error {
	var errs []error
	u, err := url.Parse(c.URL)
	switch {
	case err != nil || u.Host == "":
		errs = append(errs, fmt.Errorf("read the URL of Infisical %q: write for example https://app.infisical.com", c.URL))
	case u.Scheme != "https" && !loopback(u.Hostname()):
		errs = append(errs, fmt.Errorf("read the URL of Infisical %q: secrets travel over https only, unless the server is on this machine", c.URL))
	}
	for _, part := range [][2]string{{"the client id", c.ID}, {"the client secret", c.Secret}, {"the project's id", c.Project}, {"the environment", c.Environment}} {
		if part[1] == "" {
			errs = append(errs, fmt.Errorf("log in to Infisical: %s is not set", part[0]))
		}
	}
	return errors.Join(errs...)
}

func loopback(host string) bool {
	ip := net.ParseIP(host)
	return host == "localhost" || ip != nil && ip.IsLoopback()
}

// Login exchanges the identity's secret for a token, which lasts for minutes or days as the identity says.
func (c *Client) Login(ctx context.Context) error {
	body, err := json.Marshal(map[string]string{"clientId": c.ID, "clientSecret": c.Secret})
	if err != nil {
		return err
	}
	var got struct {
		AccessToken string `json:"accessToken"`
	}
	if err := c.call(ctx, http.MethodPost, "/api/v1/auth/universal-auth/login", body, &got); err != nil {
		return fmt.Errorf("log in to Infisical at %s: %w", c.URL, err)
	}
	if got.AccessToken == "" {
		return fmt.Errorf("log in to Infisical at %s: the answer has no token: is it the server's address, without /api?", c.URL)
	}
	c.token = got.AccessToken
	return nil
}

// Secrets returns what a folder holds, imports included and references resolved; its own secrets come before imported ones, and of those the
// later import before the earlier one. The error is ErrNoFolder when the folder is not there.
func (c *Client) Secrets(ctx context.Context, folder string) (map[string]string, error) {
	query := url.Values{"projectId": {c.Project}, "environment": {c.Environment}, "secretPath": {folder}, "viewSecretValue": {"true"}, "expandSecretReferences": {"true"},
		"includeImports": {"true"}, "include_imports": {"true"}} // the second is its name in the versions before 0.159
	type secret struct {
		Key    string `json:"secretKey"`
		Value  string `json:"secretValue"`
		Hidden bool   `json:"secretValueHidden"`
	}
	var got struct {
		Secrets []secret `json:"secrets"`
		Imports []struct {
			Secrets []secret `json:"secrets"`
		} `json:"imports"`
	}
	if err := c.call(ctx, http.MethodGet, "/api/v4/secrets?"+query.Encode(), nil, &got); err != nil {
		return nil, fmt.Errorf("read the secrets of %s in %s: %w", folder, c.Environment, err)
	}
	all := map[string]string{}
	lists := [][]secret{}
	for _, i := range got.Imports {
		lists = append(lists, i.Secrets)
	}
	for _, list := range append(lists, got.Secrets) { // what comes later wins
		for _, s := range list {
			if s.Hidden {
				return nil, fmt.Errorf("read the secrets of %s in %s: the identity may list %s and not read it: give it the right to read values", folder, c.Environment, s.Key)
			}
			all[s.Key] = s.Value
		}
	}
	return all, nil
}

// call makes one request, again after what may pass, and decodes the answer.
func (c *Client) call(ctx context.Context, method, path string, body []byte, into any) error {
	pause := c.Pause
	if pause == 0 {
		pause = time.Second
	}
	for try := 1; ; try++ {
		again, err := c.once(ctx, method, path, body, into)
		if err == nil || !again || try == tries {
			return err
		}
		select {
		case <-ctx.Done():
			return errors.Join(err, ctx.Err())
		case <-time.After(pause):
			pause *= 2
		}
	}
}

// once makes one request. again tells whether another may do better.
func (c *Client) once(ctx context.Context, method, path string, body []byte, into any) (again bool, err error) {
	req, err := http.NewRequestWithContext(ctx, method, strings.TrimSuffix(c.URL, "/")+path, bytes.NewReader(body))
	if err != nil {
		return false, c.scrub(err)
	}
	req.Header.Set("Content-Type", "application/json")
	req.Header.Set("User-Agent", "homelab")
	if c.token != "" {
		req.Header.Set("Authorization", "Bearer "+c.token)
	}
	resp, err := plain.Do(req)
	if err != nil {
		return true, c.scrub(err)
	}
	defer resp.Body.Close()
	text, err := io.ReadAll(io.LimitReader(resp.Body, maxAnswer+1))
	if err != nil {
		return true, c.scrub(fmt.Errorf("the answer broke off: %w", err))
	}
	if resp.StatusCode != http.StatusOK {
		return resp.StatusCode >= 500 || resp.StatusCode == http.StatusTooManyRequests, c.scrub(refusal(resp.StatusCode, text))
	}
	if len(text) > maxAnswer {
		return false, fmt.Errorf("the answer has more than %d bytes: is it Infisical?", maxAnswer)
	}
	if err := json.Unmarshal(text, into); err != nil {
		return false, errors.New("the answer is not what Infisical says: is it the server's address, without /api?") // err could quote it
	}
	return false, nil
}

// refusal turns an error's answer into words: {"statusCode": 401, "message": "...", "error": "..."}.
func refusal(status int, text []byte) error {
	var said struct {
		Message any `json:"message"`
	}
	_ = json.Unmarshal(text, &said) // a page of a proxy is no JSON; then there is only the status
	why := http.StatusText(status)
	if m, ok := said.Message.(string); ok && m != "" {
		why += ": " + m[:min(len(m), 200)]
	}
	switch status {
	case http.StatusNotFound:
		return fmt.Errorf("%w (%s)", ErrNoFolder, why)
	case http.StatusUnauthorized:
		return fmt.Errorf("%d %s: the client id or secret is wrong, has ended, or this address may not use it: make a new client secret for the machine identity", status, why)
	case http.StatusForbidden:
		return fmt.Errorf("%d %s: give the machine identity a role in the project that may read this folder", status, why)
	}
	return fmt.Errorf("%d %s", status, why)
}

// scrub takes what is secret out of an error.
func (c *Client) scrub(err error) error {
	text := err.Error()
	clean := text
	for _, s := range []string{c.Secret, c.token} {
		if s != "" {
			clean = strings.ReplaceAll(clean, s, "***")
		}
	}
	if clean == text {
		return err
	}
	return errors.New(clean)
}
