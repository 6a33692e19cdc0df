package precheck

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net/http"
	"net/url"
	"time"

	"home.arpa/lab/homelab-iac/internal/site"
)

// largestAnswer bounds what GitLab and Infisical may answer, in bytes.
const largestAnswer = 64 << 20

var client = &http.Client{Timeout: time.Minute,
	// A redirect could carry a secret to another host.
	CheckRedirect: func(*http.Request, []*http.Request) error { return http.ErrUseLastResponse }}

// ErrNoState means that GitLab has no state yet.
var ErrNoState = errors.New("read terraform's state: GitLab has none yet: terraform apply makes it")

// FetchState reads Terraform's state from GitLab (its http backend: GET of the state's address).
func FetchState(ctx context.Context, address, user, token string) ([]byte, error) {
	req, err := http.NewRequestWithContext(ctx, http.MethodGet, address, nil)
	if err != nil {
		return nil, errors.New("read terraform's state: terraform.state is no address: correct it")
	}
	req.SetBasicAuth(user, token)
	status, text, err := do(req)
	switch {
	case err != nil:
		return nil, fmt.Errorf("read terraform's state: %w", err)
	case status == http.StatusNotFound || status == http.StatusNoContent:
		return nil, ErrNoState
	case status == http.StatusUnauthorized || status == http.StatusForbidden:
		return nil, fmt.Errorf("read terraform's state: GitLab answers %d: the token is wrong or ended: make one that may read the project", status)
	case status != http.StatusOK:
		return nil, fmt.Errorf("read terraform's state: GitLab answers %d", status)
	}
	if _, err := readState(text); err != nil {
		return nil, fmt.Errorf("read terraform's state: %w: is terraform.state the address of a state?", err)
	}
	return text, nil
}

// FetchSecrets reads the secrets of one environment from Infisical, with a machine identity that may read
// (infisical.com/docs/api-reference: universal-auth login, then secrets).
func FetchSecrets(ctx context.Context, at site.Infisical, id, secret string) (map[string]string, error) {
	base, err := url.Parse(at.URL)
	if err != nil || base.Host == "" {
		return nil, errors.New("read infisical: precheck.infisical.url is no address: correct it")
	}
	body, err := json.Marshal(map[string]string{"clientId": id, "clientSecret": secret})
	if err != nil {
		return nil, err
	}
	req, err := http.NewRequestWithContext(ctx, http.MethodPost, base.JoinPath("/api/v1/auth/universal-auth/login").String(), bytes.NewReader(body))
	if err != nil {
		return nil, fmt.Errorf("read infisical: %w", err)
	}
	req.Header.Set("Content-Type", "application/json")
	var login struct {
		Token string `json:"accessToken"`
	}
	if err := ask(req, &login); err != nil {
		return nil, fmt.Errorf("log in to infisical: %w", err)
	}
	list := base.JoinPath("/api/v3/secrets/raw")
	list.RawQuery = url.Values{"workspaceId": {at.Project}, "environment": {at.Environment}, "secretPath": {"/"}, "recursive": {"true"}}.Encode()
	req, err = http.NewRequestWithContext(ctx, http.MethodGet, list.String(), nil)
	if err != nil {
		return nil, fmt.Errorf("read infisical: %w", err)
	}
	req.Header.Set("Authorization", "Bearer "+login.Token)
	var told struct {
		Secrets []struct {
			Key   string `json:"secretKey"`
			Value string `json:"secretValue"`
		} `json:"secrets"`
	}
	if err := ask(req, &told); err != nil {
		return nil, fmt.Errorf("read infisical: %w", err)
	}
	if len(told.Secrets) == 0 {
		return nil, errors.New("read infisical: it has no secret there: check project and environment")
	}
	secrets := map[string]string{}
	for _, s := range told.Secrets {
		secrets[s.Key] = s.Value
	}
	return secrets, nil
}

func ask(req *http.Request, into any) error {
	status, text, err := do(req)
	switch {
	case err != nil:
		return err
	case status != http.StatusOK:
		return fmt.Errorf("it answers %d %s", status, http.StatusText(status))
	case json.Unmarshal(text, into) != nil:
		return errors.New("its answer is not what its documentation says")
	}
	return nil
}

// do sends a request; its error names no address: one may hold a secret.
func do(req *http.Request) (int, []byte, error) {
	resp, err := client.Do(req)
	if err != nil {
		var u *url.Error
		if errors.As(err, &u) {
			err = u.Err
		}
		return 0, nil, err
	}
	defer resp.Body.Close()
	text, err := io.ReadAll(io.LimitReader(resp.Body, largestAnswer+1))
	if err == nil && len(text) > largestAnswer {
		err = errors.New("the answer is too long")
	}
	return resp.StatusCode, text, err
}
