// Package webhook posts short messages as JSON to one address of the operator's own, signed as Standard Webhooks says
// (github.com/standard-webhooks/standard-webhooks). It keeps nothing: whoever has something to say keeps it until it is said.
package webhook

import (
	"bytes"
	"context"
	"crypto/hmac"
	"crypto/sha256"
	"encoding/base64"
	"encoding/hex"
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

// Config is where messages go.
type Config struct {
	URL    string // a secret where the address is all that protects it
	Secret string // signs each message: "whsec_" and base64, or any text; "": nothing is signed
	Source string // who speaks
}

// Validate names all faults, each with its key; none holds a secret.
func (c Config) Validate() error {
	var faults []error
	if u, err := url.Parse(c.URL); err != nil || u.Host == "" || u.Scheme != "https" && u.Scheme != "http" {
		faults = append(faults, errors.New("url: does not hold an http or https URL"))
	}
	if rest, ok := strings.CutPrefix(c.Secret, prefix); ok {
		if _, err := base64.StdEncoding.DecodeString(rest); err != nil {
			faults = append(faults, errors.New("secret: begins with whsec_ and goes on with something else than base64"))
		}
	}
	return errors.Join(faults...)
}

const prefix = "whsec_"

// key is what the messages are signed with.
func (c Config) key() []byte {
	if rest, ok := strings.CutPrefix(c.Secret, prefix); ok {
		if b, err := base64.StdEncoding.DecodeString(rest); err == nil {
			return b
		}
	}
	return []byte(c.Secret)
}

// A Message is the body of a post.
type Message struct {
	Source string    `json:"source"`
	Text   string    `json:"text"`
	SentAt time.Time `json:"sent_at"`
}

// A Hook posts messages. It is safe for concurrent use.
type Hook struct {
	config Config
	client *http.Client
	now    func() time.Time
}

const (
	timeout     = 10 * time.Second // of one request
	maxText     = 8000             // UTF-16 units: more than anybody reads
	unknownWait = 5 * time.Second  // until the next attempt, where the receiver does not say
)

// New returns the Hook of a valid configuration.
func New(c Config) *Hook {
	return &Hook{config: c, now: time.Now, client: &http.Client{Timeout: timeout,
		// A redirect could carry the message to another host.
		CheckRedirect: func(*http.Request, []*http.Request) error { return http.ErrUseLastResponse }}}
}

// Name is what a person calls it.
func (*Hook) Name() string { return "webhook" }

// Max is how long a message may be, in UTF-16 units.
func (*Hook) Max() int { return maxText }

// A RefusedError says that this message, or whatever is sent to this address, will never be taken.
type RefusedError struct {
	Status int
	text   string
}

func (e *RefusedError) Error() string { return e.text }

// Gone says that it is the address or the signature that is refused, whatever the message.
func (e *RefusedError) Gone() bool {
	switch e.Status {
	case http.StatusBadRequest, http.StatusRequestEntityTooLarge, http.StatusUnprocessableEntity:
		return false
	}
	return true
}

// ID is by what a receiver knows a message that is sent twice. It is made of what the sender knows it by: the same text may be said again of
// something else.
func ID(key string) string {
	sum := sha256.Sum256([]byte(key))
	return "msg_" + hex.EncodeToString(sum[:16])
}

// Sign is the signature of a message, without its version: what a receiver computes and compares.
func (c Config) Sign(id string, at time.Time, body []byte) string {
	mac := hmac.New(sha256.New, c.key())
	fmt.Fprintf(mac, "%s.%d.%s", id, at.Unix(), body)
	return base64.StdEncoding.EncodeToString(mac.Sum(nil))
}

// Send is SendKeyed of a message that is known by its text.
func (h *Hook) Send(ctx context.Context, text string) (again time.Duration, err error) {
	return h.SendKeyed(ctx, text, text)
}

// SendKeyed posts one message, which the sender knows by key, and returns once the receiver has answered 2xx. Where it could not be taken now, again is how long to wait; with a
// *RefusedError it is 0. Headers: Idempotency-Key and Webhook-Id (see ID), Webhook-Timestamp, Webhook-Signature. No error holds the URL.
func (h *Hook) SendKeyed(ctx context.Context, key, text string) (again time.Duration, err error) {
	now := h.now().UTC().Truncate(time.Second)
	body, err := json.Marshal(Message{Source: h.config.Source, Text: text, SentAt: now})
	if err != nil {
		return 0, &RefusedError{http.StatusBadRequest, "post to webhook: " + err.Error()}
	}
	req, err := http.NewRequestWithContext(ctx, http.MethodPost, h.config.URL, bytes.NewReader(body))
	if err != nil {
		return 0, &RefusedError{http.StatusNotFound, "post to webhook: its URL is no URL"}
	}
	id := ID(key)
	req.Header.Set("Content-Type", "application/json")
	req.Header.Set("Idempotency-Key", id)
	req.Header.Set("Webhook-Id", id)
	req.Header.Set("Webhook-Timestamp", strconv.FormatInt(now.Unix(), 10))
	if h.config.Secret != "" {
		req.Header.Set("Webhook-Signature", "v1,"+h.config.Sign(id, now, body))
	}
	resp, err := h.client.Do(req)
	if err != nil {
		var u *url.Error
		if errors.As(err, &u) {
			err = u.Err
		}
		return unknownWait, fmt.Errorf("post to webhook: %w", err)
	}
	defer resp.Body.Close()
	io.Copy(io.Discard, io.LimitReader(resp.Body, 64<<10)) //nolint:errcheck // so that the connection is used again
	status := resp.StatusCode
	says := fmt.Sprintf("post to webhook: %d %s", status, http.StatusText(status))
	switch {
	case status/100 == 2:
		return 0, nil
	case status == http.StatusTooManyRequests || status == http.StatusRequestTimeout || status >= 500:
		again = unknownWait
		if s, err := strconv.Atoi(resp.Header.Get("Retry-After")); err == nil && s > 0 {
			again = time.Duration(min(s, 3600)) * time.Second
		}
		return again, errors.New(says)
	case status/100 == 3:
		return 0, &RefusedError{status, says + ": it leads elsewhere; write the address that it leads to"}
	}
	return 0, &RefusedError{status, says}
}
