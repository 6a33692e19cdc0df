package upstream

import (
	"bufio"
	"errors"
	"fmt"
	"net/http"
	"net/url"
	"strings"
	"time"

	"home.arpa/lab/llm-runner/internal/llm"
)

// Check returns all faults of the settings that every provider has: the address must be an http or https one (example is
// shown as the cure), the longest silence not negative.
func Check(base, example string, timeout time.Duration) error {
	var errs []error
	if u, err := url.Parse(base); err != nil || u.Host == "" || u.Scheme != "http" && u.Scheme != "https" {
		errs = append(errs, fmt.Errorf("url: %q is not an http or https address; write one like %s", base, example))
	}
	if timeout < 0 {
		errs = append(errs, fmt.Errorf("timeout: %s is negative", timeout))
	}
	return errors.Join(errs...)
}

// Peek returns the first byte of an answer that is neither white space nor part of a byte order mark, and leaves it unread;
// what came before it is read. '{' or '[' means that the answer is JSON, whatever its Content-Type says.
func Peek(src *bufio.Reader) (byte, error) {
	for {
		b, err := src.Peek(1)
		if err != nil {
			return 0, err
		}
		if strings.IndexByte(" \t\r\n\xef\xbb\xbf", b[0]) < 0 {
			return b[0], nil
		}
		_, _ = src.Discard(1) // it is buffered
	}
}

// ErrPage says that a web page came under a status of 200: a captive portal, a proxy's notice, a wrong address.
var ErrPage = errors.New("a web page came instead of an answer; check the provider's url")

// Broken says that an answer ended before it was finished, because of err.
func Broken(err error) error { return fmt.Errorf("the answer broke off before its end: %w", err) }

// Failed returns err as the error that a provider yields about model: the *llm.Error in its chain, or else one of kind
// Unavailable about an answer that came under status 200 and was none. started says that some of the answer had been yielded.
func (c *Client) Failed(err error, model string, started bool) *llm.Error {
	var e *llm.Error
	if !errors.As(err, &e) {
		e = &llm.Error{Kind: llm.Unavailable, Status: http.StatusOK, Message: err.Error(), Err: err}
	}
	e.Model, e.Started = model, started
	return c.Refused(e)
}
