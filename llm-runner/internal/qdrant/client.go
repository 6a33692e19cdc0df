package qdrant

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net/http"
	"net/url"
	"time"

	"home.arpa/lab/llm-runner/internal/llm"
	"home.arpa/lab/llm-runner/internal/upstream"
)

// client speaks to one Qdrant server over REST (https://api.qdrant.tech, written against 1.19; everything used is there since
// 1.10). Every request may be sent twice: upserts, deletes by filter and switches of aliases have the same end.
type client struct{ up *upstream.Client }

// Tries and the pauses between them: a server that restarts takes a second or two to load a small collection.
var pauses = []time.Duration{100 * time.Millisecond, 500 * time.Millisecond, 2 * time.Second}

// longestHint bounds the Retry-After that is waited for.
const longestHint = 5 * time.Second

// maxAnswer bounds an answer: a page of a thousand documents with long names is below 1 MB.
const maxAnswer = 64 << 20

// call sends in (nil none) as JSON and decodes the result of the answer into out (nil: not wanted). Errors that may pass are
// tried again a few times.
func (c *client) call(ctx context.Context, method, path string, in, out any) error {
	var body []byte
	if in != nil {
		var err error
		if body, err = json.Marshal(in); err != nil {
			return fmt.Errorf("ask qdrant: %w", err)
		}
	}
	for try := 0; ; try++ {
		err := c.once(ctx, method, path, body, out)
		var e *llm.Error
		if err == nil || !errors.As(err, &e) || e.Kind.Permanent() || e.Kind == llm.Cancelled || try == len(pauses) || ctx.Err() != nil {
			return c.explained(ctx, err)
		}
		pause := pauses[try]
		if !e.Until.IsZero() {
			pause = min(time.Until(e.Until), longestHint)
		}
		select {
		case <-time.After(pause):
		case <-ctx.Done():
		}
	}
}

func (c *client) once(ctx context.Context, method, path string, body []byte, out any) error {
	resp, err := c.up.Send(ctx, method, path, nil, body)
	if err != nil {
		return err
	}
	if resp.StatusCode >= 300 {
		return refusal(resp.StatusCode, resp.Header, upstream.ErrorBody(resp))
	}
	defer resp.Body.Close()
	text, err := io.ReadAll(io.LimitReader(resp.Body, maxAnswer))
	if err != nil {
		return err
	}
	answer := struct {
		Result any `json:"result"`
	}{out}
	if err := json.Unmarshal(text, &answer); err != nil {
		return &llm.Error{Kind: llm.Unavailable, Message: "the answer is not Qdrant's; check the address", Err: err}
	}
	return nil
}

// refusal reads an error response: {"status":{"error":"Not found: ..."}}, or a line of text where the key is wrong.
func refusal(status int, h http.Header, body []byte) *llm.Error {
	var in struct {
		Status struct {
			Error string `json:"error"`
		} `json:"status"`
	}
	_ = json.Unmarshal(body, &in) // plain text stays empty
	e := &llm.Error{Kind: llm.Unavailable, Message: in.Status.Error, Status: status, Body: body}
	switch {
	case status == http.StatusUnauthorized || status == http.StatusForbidden:
		e.Kind = llm.Auth
	case status == http.StatusNotFound:
		e.Kind = llm.NotFound
	case status == http.StatusTooManyRequests:
		e.Kind = llm.Quota
		if wait := upstream.RetryAfter(h, time.Now()); wait > 0 {
			e.Until = time.Now().Add(wait)
		}
	case status == http.StatusInsufficientStorage:
		e.Kind = llm.Spend // a person must act
	case status == http.StatusRequestTimeout:
	case status < 500:
		e.Kind = llm.BadRequest
	}
	if e.Message == "" {
		e.Message = "refused: " + string(e.Kind)
	}
	return e
}

// explained adds the cure, and takes the key out.
func (c *client) explained(ctx context.Context, err error) error {
	if err == nil {
		return nil
	}
	if ctx.Err() != nil {
		return errors.Join(err, ctx.Err())
	}
	var e *llm.Error
	if !errors.As(err, &e) {
		e = &llm.Error{Kind: llm.Unavailable, Message: err.Error(), Err: err}
	}
	e = c.up.Refused(e)
	cure := ""
	switch e.Kind {
	case llm.Unavailable:
		cure = "; is Qdrant running at " + c.up.Base + "?"
	case llm.Auth:
		cure = "; set the key that the server was started with (QDRANT__SERVICE__API_KEY)"
	case llm.Spend:
		cure = "; its disk or memory is full: make room, or raise its limits"
	}
	return fmt.Errorf("%w%s", e, cure)
}

// is says whether err is a refusal of this kind.
func is(err error, kind llm.Kind) bool {
	var e *llm.Error
	return errors.As(err, &e) && e.Kind == kind
}

// path joins the parts of a path, each escaped.
func path(parts ...string) string {
	s := ""
	for _, p := range parts {
		s += "/" + url.PathEscape(p)
	}
	return s
}
