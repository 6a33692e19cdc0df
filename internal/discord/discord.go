// Package discord posts short messages to one Discord webhook, within the webhook's limits. It keeps nothing: whoever has
// something to say keeps it until it is said.
package discord

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
	"sync"
	"time"
	"unicode/utf16"
)

// MaxContent is how many characters a message may have (docs.discord.com/developers/resources/webhook#execute-webhook). They
// are counted in UTF-16 units here, which is never less than Discord counts.
const MaxContent = 2000

// A Webhook posts messages. It is safe for concurrent use.
type Webhook struct {
	url    string // a secret: whoever has it can post
	client *http.Client

	mu    sync.Mutex
	until time.Time // Discord has said that nothing more is taken before
}

// timeout bounds one request, so that a Discord that says nothing does not hold up the next attempt.
const timeout = 10 * time.Second

// New returns a Webhook for a webhook URL.
func New(url string) *Webhook {
	return &Webhook{url: url, client: &http.Client{Timeout: timeout,
		// A redirect could carry the secret to another host.
		CheckRedirect: func(*http.Request, []*http.Request) error { return http.ErrUseLastResponse }}}
}

// Name is what a person calls it.
func (w *Webhook) Name() string { return "Discord" }

// Max is how long a message may be, in UTF-16 units.
func (w *Webhook) Max() int { return MaxContent }

// unknownWait is when to come back where Discord cannot take a message and does not say for how long.
const unknownWait = 5 * time.Second

// A RefusedError says that this message, or this webhook, will never be taken.
type RefusedError struct {
	Status int
	text   string
}

func (e *RefusedError) Error() string { return e.text }

// Gone says that it is the webhook that is refused, whatever the message.
func (e *RefusedError) Gone() bool { return e.Status != http.StatusBadRequest }

// Send posts one message and returns once Discord has kept it. Where it could not be taken now, again is how long to wait
// before it is sent again; with a *RefusedError it is 0. No error holds the URL. A message longer than Max is cut. Discord has
// no key by which it would know a message that is sent twice (a webhook takes no nonce): when the answer is lost, the message
// may be there.
func (w *Webhook) Send(ctx context.Context, text string) (again time.Duration, err error) {
	if wait := w.closed(); wait > 0 {
		return wait, fmt.Errorf("post to discord: its rate limit is used up for %s", wait.Round(time.Millisecond))
	}
	// An embed would have Discord fetch every address of the text, which a model may have written (SUPPRESS_EMBEDS,
	// docs.discord.com/developers/resources/message#message-object-message-flags).
	body, err := json.Marshal(map[string]any{"content": Cut(text, MaxContent), "flags": 1 << 2, "allowed_mentions": map[string]any{"parse": []string{}}})
	if err != nil {
		return 0, &RefusedError{http.StatusBadRequest, "post to discord: " + err.Error()}
	}
	// With wait=true Discord answers once the message is kept; without, one that is not kept is no error
	// (docs.discord.com/developers/resources/webhook#execute-webhook-query-string-params).
	status, header, reply, err := w.do(ctx, http.MethodPost, body)
	if err != nil {
		return unknownWait, fmt.Errorf("post to discord: %w", err)
	}
	w.learn(header)
	switch {
	case status < 300:
		return 0, nil
	case status == http.StatusTooManyRequests || status >= 500:
		again = retryAfter(header, reply)
		if again <= 0 {
			again = unknownWait
		}
		return again, fmt.Errorf("post to discord: %d %s", status, http.StatusText(status))
	case status == http.StatusBadRequest:
		return 0, &RefusedError{status, "post to discord: 400 Bad Request: the message was refused"}
	}
	return 0, &RefusedError{status, fmt.Sprintf("post to discord: %d %s: copy the webhook's URL again from the channel's settings", status, http.StatusText(status))}
}

// Describe asks for the webhook's own name, which posts nothing.
func (w *Webhook) Describe(ctx context.Context) (name string, err error) {
	status, _, reply, err := w.do(ctx, http.MethodGet, nil)
	if err != nil {
		return "", fmt.Errorf("ask discord: %w", err)
	}
	var told struct {
		Name string `json:"name"`
	}
	switch {
	case status == http.StatusTooManyRequests || status >= 500:
		return "", fmt.Errorf("ask discord: %d %s", status, http.StatusText(status))
	case status != http.StatusOK:
		return "", &RefusedError{status, fmt.Sprintf("the webhook answered %d %s", status, http.StatusText(status))}
	case json.Unmarshal(reply, &told) != nil:
		return "", &RefusedError{status, "the webhook's URL leads to something else than a webhook"}
	}
	return told.Name, nil
}

// do sends a request; its error names neither the URL nor a part of it.
func (w *Webhook) do(ctx context.Context, method string, body []byte) (status int, h http.Header, reply []byte, err error) {
	at, err := url.Parse(w.url)
	if err != nil || at.Host == "" {
		return 0, nil, nil, errors.New("the webhook's URL is not a URL: copy it again from the channel's settings")
	}
	if method == http.MethodPost {
		q := at.Query() // a thread_id stays
		q.Set("wait", "true")
		at.RawQuery = q.Encode()
	}
	req, err := http.NewRequestWithContext(ctx, method, at.String(), bytes.NewReader(body))
	if err != nil {
		return 0, nil, nil, errors.New("the webhook's URL is not a URL: copy it again from the channel's settings")
	}
	req.Header.Set("Content-Type", "application/json")
	resp, err := w.client.Do(req)
	if err != nil {
		var u *url.Error
		if errors.As(err, &u) {
			err = u.Err // without the URL
		}
		return 0, nil, nil, err
	}
	defer resp.Body.Close()
	reply, _ = io.ReadAll(io.LimitReader(resp.Body, 64<<10))
	return resp.StatusCode, resp.Header, reply, nil
}

// closed is how long nothing more is taken.
func (w *Webhook) closed() time.Duration {
	w.mu.Lock()
	defer w.mu.Unlock()
	return time.Until(w.until)
}

// learn reads the limit's headers: with nothing remaining, the next message waits (docs.discord.com/developers/topics/rate-limits).
func (w *Webhook) learn(h http.Header) {
	if h.Get("X-RateLimit-Remaining") != "0" {
		return
	}
	after := seconds(h.Get("X-RateLimit-Reset-After"))
	w.mu.Lock()
	w.until = time.Now().Add(after)
	w.mu.Unlock()
}

// retryAfter reads the time to wait, from the body ("retry_after": 0.65) or the header, in seconds.
func retryAfter(h http.Header, body []byte) time.Duration {
	var told struct {
		RetryAfter float64 `json:"retry_after"`
	}
	if json.Unmarshal(body, &told) == nil && told.RetryAfter > 0 {
		return time.Duration(told.RetryAfter * float64(time.Second))
	}
	return seconds(h.Get("Retry-After"))
}

// seconds reads a time to wait; 0 where there is none. An hour at most: a limit that long is not one of a webhook.
func seconds(s string) time.Duration {
	f, err := strconv.ParseFloat(s, 64)
	if err != nil || f <= 0 {
		return 0
	}
	return time.Duration(min(f, 3600) * float64(time.Second))
}

// Length is how long a text is, in UTF-16 units.
func Length(text string) (n int) {
	for _, r := range text {
		n += utf16.RuneLen(r)
	}
	return n
}

// Cut shortens a text to most UTF-16 units, three of them dots.
func Cut(text string, most int) string {
	if Length(text) <= most {
		return text
	}
	n := 0
	for i, r := range text {
		if n += utf16.RuneLen(r); n > most-3 {
			return text[:i] + "..."
		}
	}
	return text
}
