package upstream

import (
	"bytes"
	"net/http"
	"strconv"
	"strings"
	"time"

	"home.arpa/lab/llm-runner/internal/llm"
)

// MaxWait bounds what RetryAfter believes. No provider's window is longer than a month.
const MaxWait = 31 * 24 * time.Hour

// RetryAfter returns how long a response asks to wait: retry-after-ms (OpenAI, Azure) before Retry-After in seconds,
// fractions included, or as a date (RFC 9110, section 10.2.3). Zero means that it does not say, or nothing sensible; a date
// that has passed is no time to wait either.
func RetryAfter(h http.Header, now time.Time) time.Duration {
	if d, ok := seconds(h.Get("Retry-After-Ms"), time.Millisecond); ok {
		return d
	}
	v := strings.TrimSpace(h.Get("Retry-After"))
	if d, ok := seconds(v, time.Second); ok {
		return d
	}
	if at, err := http.ParseTime(v); err == nil {
		return min(max(0, at.Sub(now)), MaxWait)
	}
	return 0
}

// seconds reads a decimal number of units.
func seconds(s string, unit time.Duration) (time.Duration, bool) {
	n, err := strconv.ParseFloat(strings.TrimSpace(s), 64)
	if err != nil || !(n >= 0) { // NaN too
		return 0, false
	}
	return time.Duration(min(n*float64(unit), float64(MaxWait))), true
}

// KindOf is what the status of a refusal means where nothing in it says more. 499 is a proxy's word for a caller that left (nginx), 529 one for
// a server under load (Anthropic).
func KindOf(status int) llm.Kind {
	switch status {
	case http.StatusUnauthorized, http.StatusForbidden:
		return llm.Auth
	case http.StatusPaymentRequired:
		return llm.Spend
	case http.StatusNotFound:
		return llm.NotFound
	case http.StatusTooManyRequests:
		return llm.Quota
	case http.StatusServiceUnavailable, 529:
		return llm.Overload
	case http.StatusRequestTimeout, 499:
		return llm.Unavailable
	}
	if status >= 400 && status < 500 {
		return llm.BadRequest
	}
	return llm.Unavailable
}

// Hide replaces the client's keys in a text that came from outside: some upstreams repeat the key in their errors.
func (c *Client) Hide(s string) string {
	for _, key := range c.keys() {
		s = strings.ReplaceAll(s, key, "(key)")
	}
	return s
}

// Refused finishes an error that was read from a response: it gets the provider's name, and loses the key wherever the
// upstream repeated it.
func (c *Client) Refused(e *llm.Error) *llm.Error {
	e.Provider = c.Name
	e.Message = c.Hide(e.Message)
	for _, key := range c.keys() {
		if bytes.Contains(e.Body, []byte(key)) {
			e.Body = bytes.ReplaceAll(e.Body, []byte(key), []byte("(key)"))
		}
		for _, values := range e.Header {
			for i, v := range values {
				values[i] = strings.ReplaceAll(v, key, "(key)")
			}
		}
	}
	return e
}

// keyHeaders are where clients keep their keys.
var keyHeaders = []string{"Authorization", "X-Api-Key", "X-Goog-Api-Key", "Api-Key"}

// keys returns the secrets in the client's headers. A key of a few characters is no secret, and replacing it everywhere
// would garble messages.
func (c *Client) keys() []string {
	var keys []string
	for _, name := range keyHeaders {
		for _, v := range c.Header[http.CanonicalHeaderKey(name)] {
			if _, after, ok := strings.Cut(v, " "); ok {
				v = after
			}
			if len(v) >= 6 {
				keys = append(keys, v)
			}
		}
	}
	return keys
}
