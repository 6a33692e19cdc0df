// Package registry asks container registries which digest a tag has now (the OCI distribution specification, and the token flow of
// Docker's registries, distribution.github.io/distribution/spec/auth/token).
package registry

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net/http"
	"net/url"
	"regexp"
	"strings"
	"time"
)

// A Client asks. The zero value is ready.
type Client struct {
	HTTP *http.Client
	// Scheme is https where it is empty; tests say http.
	Scheme string
	// User and Password are shown to whoever gives tokens, where they are set: needed for writing.
	User, Password string
	// Scope is what a token is asked for; empty: what the registry says.
	Scope string
}

// accept is an index of several platforms before one platform's manifest: pinned is what holds for every machine.
const accept = "application/vnd.oci.image.index.v1+json, application/vnd.docker.distribution.manifest.list.v2+json, application/vnd.oci.image.manifest.v1+json, application/vnd.docker.distribution.manifest.v2+json"

var digestForm = regexp.MustCompile(`^sha256:[0-9a-f]{64}$`)

// Split takes an image's name apart: the registry's host, and the repository there. Names without a host are Docker Hub's.
func Split(name string) (host, repository string) {
	host, rest, ok := strings.Cut(name, "/")
	if ok && (strings.ContainsAny(host, ".:") || host == "localhost") {
		if host == "docker.io" {
			host = "registry-1.docker.io"
		}
		return host, rest
	}
	if !strings.Contains(name, "/") {
		name = "library/" + name
	}
	return "registry-1.docker.io", name
}

// Digest asks for the digest of a tag. Nothing is guessed: what the registry does not say is an error.
func (c Client) Digest(ctx context.Context, name, tag string) (string, error) {
	ctx, cancel := context.WithTimeout(ctx, 30*time.Second)
	defer cancel()
	host, repository := Split(name)
	scheme := c.Scheme
	if scheme == "" {
		scheme = "https"
	}
	address := scheme + "://" + host + "/v2/" + repository + "/manifests/" + url.PathEscape(tag)
	status, header, err := c.ask(ctx, address, "")
	if err == nil && status == http.StatusUnauthorized {
		var token string
		if token, err = c.token(ctx, header.Get("WWW-Authenticate"), repository); err == nil {
			status, header, err = c.ask(ctx, address, token)
		}
	}
	if err != nil {
		return "", fmt.Errorf("ask for %s:%s: %w", name, tag, err)
	}
	digest := header.Get("Docker-Content-Digest")
	switch {
	case status == http.StatusNotFound:
		return "", fmt.Errorf("ask for %s:%s: %s has no such tag: correct the version", name, tag, host)
	case status != http.StatusOK:
		return "", fmt.Errorf("ask for %s:%s: %s answers %d %s", name, tag, host, status, http.StatusText(status))
	case !digestForm.MatchString(digest):
		return "", fmt.Errorf("ask for %s:%s: %s names no digest", name, tag, host)
	}
	return digest, nil
}

// ask asks for the head of a manifest.
func (c Client) ask(ctx context.Context, address, token string) (int, http.Header, error) {
	req, err := http.NewRequestWithContext(ctx, http.MethodHead, address, nil)
	if err != nil {
		return 0, nil, err
	}
	req.Header.Set("Accept", accept)
	if token != "" {
		req.Header.Set("Authorization", "Bearer "+token)
	}
	client := c.HTTP
	if client == nil {
		client = http.DefaultClient
	}
	resp, err := client.Do(req)
	if err != nil {
		return 0, nil, err
	}
	defer resp.Body.Close()
	return resp.StatusCode, resp.Header, nil
}

var challengeWord = regexp.MustCompile(`(realm|service|scope)="([^"]*)"`)

// token gets an anonymous token as the registry's challenge says.
func (c Client) token(ctx context.Context, challenge, repository string) (string, error) {
	words := map[string]string{}
	for _, m := range challengeWord.FindAllStringSubmatch(challenge, -1) {
		words[m[1]] = m[2]
	}
	realm, err := url.Parse(words["realm"])
	if err != nil || realm.Host == "" || !strings.HasPrefix(strings.ToLower(challenge), "bearer ") {
		return "", errors.New("the registry wants a login that is not a token: pin this image by hand")
	}
	if c.Scope != "" {
		words["scope"] = c.Scope
	}
	if words["scope"] == "" {
		words["scope"] = "repository:" + repository + ":pull"
	}
	realm.RawQuery = url.Values{"service": {words["service"]}, "scope": {words["scope"]}}.Encode()
	req, err := http.NewRequestWithContext(ctx, http.MethodGet, realm.String(), nil)
	if err != nil {
		return "", err
	}
	if c.User != "" {
		if realm.Scheme != "https" && c.Scheme != "http" {
			return "", fmt.Errorf("the registry sends the password to %s, without TLS: refused", realm.Host)
		}
		req.SetBasicAuth(c.User, c.Password)
	}
	client := c.HTTP
	if client == nil {
		client = http.DefaultClient
	}
	resp, err := client.Do(req)
	if err != nil {
		return "", err
	}
	defer resp.Body.Close()
	var told struct {
		Token  string `json:"token"`
		Access string `json:"access_token"`
	}
	text, err := io.ReadAll(io.LimitReader(resp.Body, 1<<20))
	if err != nil || resp.StatusCode != http.StatusOK || json.Unmarshal(text, &told) != nil || told.Token+told.Access == "" {
		return "", fmt.Errorf("get a token from %s: %s", realm.Host, resp.Status)
	}
	if told.Token != "" {
		return told.Token, nil
	}
	return told.Access, nil
}
