// Package gitlab speaks with GitLab's REST API (docs.gitlab.com/api/rest): one note in a merge request that is kept up to date, and the
// artifacts of a commit's pipeline. No token is ever part of an error.
package gitlab

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net/http"
	"net/url"
	"strconv"
	"strings"
	"time"
)

// A Client speaks for one project.
type Client struct {
	URL     string // of the API: https://gitlab.com/api/v4, a job's CI_API_V4_URL
	Project string // number or path, a job's CI_PROJECT_ID
	// Token is a project access token. A job's own token does not do: it may read notes and not write them, and may read artifacts in
	// paid tiers only (docs.gitlab.com/ci/jobs/ci_job_token and /api/job_artifacts).
	Token string
	HTTP  *http.Client // nil: one with a time limit
	// Pause is how long is waited before a refused or broken request is sent again; 0 means two seconds.
	Pause time.Duration
}

// tries is how often a request is sent that GitLab did not take because of itself.
const tries = 3

// longest is as much of an answer as is read: GitLab's own limit of an artifact archive is 100 MB (max_artifacts_size).
const longest = 128 << 20

// An Error is an answer that is not the one that was asked for.
type Error struct {
	Verb, Path string
	Status     int
	Says       string // GitLab's own words
}

func (e *Error) Error() string {
	text := fmt.Sprintf("%s %s: GitLab answers %d %s", e.Verb, e.Path, e.Status, http.StatusText(e.Status))
	if e.Says != "" {
		text += " (" + e.Says + ")"
	}
	switch e.Status {
	case http.StatusUnauthorized:
		text += ": the token has ended or is a job's own; make a new project access token and put it into the project's CI variables"
	case http.StatusForbidden:
		text += ": the token's role or scope does not reach so far; docs/ci.md says which each one needs"
	case http.StatusNotFound:
		text += ": it is not there, or the token may not see it"
	}
	return text
}

// words reads {"message": ...} or {"error": ...}, whatever is in them.
func words(body []byte) string {
	var told struct {
		Message json.RawMessage `json:"message"`
		Error   json.RawMessage `json:"error"`
	}
	if json.Unmarshal(body, &told) != nil {
		return ""
	}
	text := string(told.Message)
	if text == "" {
		text = string(told.Error)
	}
	if len(text) > 300 {
		text = text[:300]
	}
	return strings.Trim(strings.ToValidUTF8(text, ""), `"`)
}

// path joins the parts of an address below the project, each escaped.
func (c Client) path(parts ...string) string {
	all := append([]string{"projects", c.Project}, parts...)
	for i, p := range all {
		all[i] = url.PathEscape(p)
	}
	return "/" + strings.Join(all, "/")
}

// do sends a request and returns the answer's body and headers. What was not taken because GitLab is busy or broken is sent again, but a
// request that makes something only when it is certain that nothing was made.
func (c Client) do(ctx context.Context, verb, path string, send any) (body []byte, h http.Header, err error) {
	if c.URL == "" || c.Project == "" || c.Token == "" {
		return nil, nil, errors.New("ask GitLab: its address, the project or the token is missing: in a job CI_API_V4_URL and CI_PROJECT_ID are there, the token is a CI variable of the project")
	}
	var text []byte
	if send != nil {
		if text, err = json.Marshal(send); err != nil {
			return nil, nil, err
		}
	}
	for try := 1; ; try++ {
		var status int
		status, h, body, err = c.once(ctx, verb, path, text)
		wait := c.Pause
		if wait == 0 {
			wait = 2 * time.Second
		}
		switch {
		case err == nil && status < 300:
			return body, h, nil
		case err == nil && status == http.StatusTooManyRequests:
			if s, bad := strconv.Atoi(h.Get("Retry-After")); bad == nil && s > 0 && c.Pause == 0 {
				wait = time.Duration(min(s, 60)) * time.Second
			}
		case err == nil && status < 500, err == nil && verb == http.MethodPost, err != nil && verb == http.MethodPost:
			try = tries
		}
		if err == nil {
			err = &Error{verb, path, status, words(body)}
		}
		if try >= tries {
			return nil, nil, err
		}
		select {
		case <-time.After(wait):
		case <-ctx.Done():
			return nil, nil, errors.Join(err, ctx.Err())
		}
	}
}

func (c Client) once(ctx context.Context, verb, path string, text []byte) (int, http.Header, []byte, error) {
	req, err := http.NewRequestWithContext(ctx, verb, strings.TrimRight(c.URL, "/")+path, bytes.NewReader(text))
	if err != nil {
		return 0, nil, nil, fmt.Errorf("ask GitLab: its address %q is none", c.URL)
	}
	req.Header.Set("PRIVATE-TOKEN", c.Token)
	if text != nil {
		req.Header.Set("Content-Type", "application/json")
	}
	client := c.HTTP
	if client == nil {
		client = &http.Client{Timeout: time.Minute}
	}
	resp, err := client.Do(req)
	if err != nil {
		var u *url.Error
		if errors.As(err, &u) {
			err = u.Err // the address is in our own words
		}
		return 0, nil, nil, fmt.Errorf("%s %s: GitLab cannot be reached: %w", verb, path, err)
	}
	defer resp.Body.Close()
	body, err := io.ReadAll(io.LimitReader(resp.Body, longest+1))
	if err == nil && len(body) > longest {
		err = fmt.Errorf("it is longer than %d MiB", longest>>20)
	}
	if err != nil {
		return 0, nil, nil, fmt.Errorf("%s %s: read the answer: %w", verb, path, err)
	}
	return resp.StatusCode, resp.Header, body, nil
}

// get asks for JSON.
func (c Client) get(ctx context.Context, path string, into any) (http.Header, error) {
	body, h, err := c.do(ctx, http.MethodGet, path, nil)
	if err != nil {
		return nil, err
	}
	if err := json.Unmarshal(body, into); err != nil {
		return nil, fmt.Errorf("GET %s: what answers is not GitLab: %w", path, err)
	}
	return h, nil
}

// pages asks for a list, page by page, until more says that it has what it wants.
func pages[T any](ctx context.Context, c Client, path string, query url.Values, more func([]T) bool) error {
	query.Set("per_page", "100")
	for page := "1"; page != ""; {
		query.Set("page", page)
		var list []T
		h, err := c.get(ctx, path+"?"+query.Encode(), &list)
		if err != nil {
			return err
		}
		if !more(list) {
			return nil
		}
		page = h.Get("X-Next-Page")
	}
	return nil
}
