package registry

import (
	"bytes"
	"context"
	"encoding/base64"
	"errors"
	"fmt"
	"io"
	"net/http"
	"net/url"
	"strconv"
	"strings"
	"time"
)

// A Piece is a blob or a manifest on its way into a registry.
type Piece struct {
	Type, Digest string
	Data         []byte
}

// A Session writes to one repository.
type Session struct {
	client     Client
	base       string // https://host/v2/repository
	repository string
	auth       string // the header; "" until the registry asks
}

// Open begins a session with the repository of an image's name. User and password are those of the client.
func (c Client) Open(name string) *Session {
	host, repository := Split(name)
	scheme := c.Scheme
	if scheme == "" {
		scheme = "https"
	}
	return &Session{client: c, base: scheme + "://" + host + "/v2/" + repository, repository: repository}
}

// pushTime bounds one request: a program of 60 MB on a slow line.
const pushTime = 10 * time.Minute

// do sends a request, logs in once when it is asked to, and once more sends what failed because of the registry.
func (s *Session) do(ctx context.Context, verb, address, kind string, data []byte) (status int, h http.Header, body []byte, err error) {
	ctx, cancel := context.WithTimeout(ctx, pushTime)
	defer cancel()
	for try := 1; ; try++ {
		status, h, body, err = s.once(ctx, verb, address, kind, data)
		switch {
		case err == nil && status == http.StatusUnauthorized && try < 3:
			if s.auth, err = s.logIn(ctx, h.Get("WWW-Authenticate")); err != nil {
				return 0, nil, nil, err
			}
		case (err != nil || status >= 500) && try < 3 && ctx.Err() == nil:
			select {
			case <-time.After(time.Duration(try) * time.Second):
			case <-ctx.Done():
			}
		default:
			return status, h, body, err
		}
	}
}

func (s *Session) once(ctx context.Context, verb, address, kind string, data []byte) (int, http.Header, []byte, error) {
	req, err := http.NewRequestWithContext(ctx, verb, address, bytes.NewReader(data))
	if err != nil {
		return 0, nil, nil, err
	}
	if kind != "" {
		req.Header.Set("Content-Type", kind)
	}
	req.Header.Set("Accept", accept)
	if s.auth != "" {
		req.Header.Set("Authorization", s.auth)
	}
	client := s.client.HTTP
	if client == nil {
		client = http.DefaultClient
	}
	resp, err := client.Do(req)
	if err != nil {
		return 0, nil, nil, err
	}
	defer resp.Body.Close()
	body, err := io.ReadAll(io.LimitReader(resp.Body, 1<<30))
	return resp.StatusCode, resp.Header, body, err
}

// logIn gets a token for reading and writing, as the registry's challenge says.
func (s *Session) logIn(ctx context.Context, challenge string) (string, error) {
	if strings.HasPrefix(strings.ToLower(challenge), "basic ") && s.client.User != "" {
		return "Basic " + base64.StdEncoding.EncodeToString([]byte(s.client.User+":"+s.client.Password)), nil
	}
	c := s.client
	c.Scope = "repository:" + s.repository + ":pull"
	if c.User != "" {
		c.Scope += ",push"
	}
	token, err := c.token(ctx, challenge, s.repository)
	if err != nil {
		return "", fmt.Errorf("log in: %w", err)
	}
	return "Bearer " + token, nil
}

func (s *Session) refused(what string, status int, body []byte) error {
	text := strings.ToValidUTF8(string(body[:min(len(body), 200)]), "")
	err := fmt.Errorf("%s: the registry answers %d %s %s", what, status, http.StatusText(status), text)
	if status == http.StatusUnauthorized || status == http.StatusForbidden {
		err = fmt.Errorf("%w: user and password may not write there", err)
	}
	return err
}

// Blob uploads a blob, unless it is there already.
func (s *Session) Blob(ctx context.Context, p Piece) error {
	what := "upload " + p.Digest[:min(19, len(p.Digest))]
	status, _, _, err := s.do(ctx, http.MethodHead, s.base+"/blobs/"+p.Digest, "", nil)
	if err != nil {
		return fmt.Errorf("%s: %w", what, err)
	}
	if status == http.StatusOK {
		return nil
	}
	status, h, body, err := s.do(ctx, http.MethodPost, s.base+"/blobs/uploads/", "", nil)
	if err != nil {
		return fmt.Errorf("%s: %w", what, err)
	}
	if status != http.StatusAccepted {
		return s.refused(what, status, body)
	}
	from, err := url.Parse(s.base + "/")
	if err != nil {
		return err
	}
	at, err := from.Parse(h.Get("Location"))
	if err != nil || h.Get("Location") == "" {
		return errors.New(what + ": the registry says not where to")
	}
	q := at.Query()
	q.Set("digest", p.Digest)
	at.RawQuery = q.Encode()
	status, _, body, err = s.do(ctx, http.MethodPut, at.String(), "application/octet-stream", p.Data)
	if err != nil {
		return fmt.Errorf("%s: %w", what, err)
	}
	if status != http.StatusCreated {
		return s.refused(what, status, body)
	}
	return nil
}

// Manifest uploads a manifest or index under a tag or its digest.
func (s *Session) Manifest(ctx context.Context, p Piece, reference string) error {
	what := "upload the manifest " + reference
	status, h, body, err := s.do(ctx, http.MethodPut, s.base+"/manifests/"+url.PathEscape(reference), p.Type, p.Data)
	switch {
	case err != nil:
		return fmt.Errorf("%s: %w", what, err)
	case status != http.StatusCreated:
		return s.refused(what, status, body)
	case h.Get("Docker-Content-Digest") != "" && h.Get("Docker-Content-Digest") != p.Digest:
		return fmt.Errorf("%s: the registry has kept something else", what)
	}
	return nil
}

// Read fetches a manifest or index by tag or digest.
func (s *Session) Read(ctx context.Context, reference string) (Piece, error) {
	status, h, body, err := s.do(ctx, http.MethodGet, s.base+"/manifests/"+url.PathEscape(reference), "", nil)
	if err != nil {
		return Piece{}, fmt.Errorf("read the manifest %s: %w", reference, err)
	}
	if status != http.StatusOK {
		return Piece{}, s.refused("read the manifest "+reference, status, nil)
	}
	if n := h.Get("Content-Length"); n != "" && n != strconv.Itoa(len(body)) {
		return Piece{}, fmt.Errorf("read the manifest %s: it was cut off", reference)
	}
	return Piece{Type: h.Get("Content-Type"), Digest: h.Get("Docker-Content-Digest"), Data: body}, nil
}
