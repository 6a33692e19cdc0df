// Package ntfy publishes short messages on one topic of an ntfy server, which shows them on phones. It keeps nothing: whoever has something
// to say keeps it until it is said.
package ntfy

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net/http"
	"net/url"
	"regexp"
	"strconv"
	"strings"
	"time"

	"home.arpa/lab/internal/discord"
)

// MaxBytes is how long a message may be; a longer one would become an attached file (docs.ntfy.sh/publish/#message-limits).
const MaxBytes = 4096

// maxUnits is a number of UTF-16 units that is never more than MaxBytes bytes of UTF-8: a unit has three at most.
const maxUnits = MaxBytes / 3

// Config is where messages go.
type Config struct {
	URL      string // of the server, such as https://ntfy.sh
	Topic    string // a secret where the server is open: whoever knows it can read
	Token    string // an access token, "tk_..."; "": none
	Title    string // above each message; "": none
	Priority int    // 1 to 5 (docs.ntfy.sh/publish/#message-priority); 0: the server's own, 3
}

var topic = regexp.MustCompile(`^[-_A-Za-z0-9]{1,64}$`)

// Validate names all faults, each with its key; none holds the topic or the token.
func (c Config) Validate() error {
	var faults []error
	if u, err := url.Parse(c.URL); err != nil || u.Host == "" || u.Scheme != "https" && u.Scheme != "http" || u.User != nil || u.RawQuery != "" {
		faults = append(faults, errors.New("url: is no http or https URL of a server: write for example https://ntfy.sh"))
	}
	if !topic.MatchString(c.Topic) {
		faults = append(faults, errors.New("topic: is not 1 to 64 letters, digits, dashes and underscores: choose one that nobody guesses, such as that of openssl rand -hex 16"))
	}
	if c.Priority < 0 || c.Priority > 5 {
		faults = append(faults, fmt.Errorf("priority: %d is not between 1 (silent) and 5 (urgent)", c.Priority))
	}
	return errors.Join(faults...)
}

// A Topic publishes messages. It is safe for concurrent use.
type Topic struct {
	config Config
	client *http.Client
}

// timeout bounds one request, so that a server that says nothing does not hold up the next attempt.
const timeout = 10 * time.Second

// New returns the Topic of a valid configuration.
func New(c Config) *Topic {
	c.URL = strings.TrimRight(c.URL, "/")
	return &Topic{config: c, client: &http.Client{Timeout: timeout,
		// A redirect could carry the token to another host.
		CheckRedirect: func(*http.Request, []*http.Request) error { return http.ErrUseLastResponse }}}
}

// Name is what a person calls it.
func (*Topic) Name() string { return "ntfy" }

// Max is how long a message may be, in UTF-16 units.
func (*Topic) Max() int { return maxUnits }

// A RefusedError says that this message, or whatever is sent to this topic, will never be taken.
type RefusedError struct {
	Status int
	text   string
}

func (e *RefusedError) Error() string { return e.text }

// Gone says that it is the topic or the token that is refused, whatever the message.
func (e *RefusedError) Gone() bool {
	return e.Status != http.StatusBadRequest && e.Status != http.StatusRequestEntityTooLarge
}

// runbook finds the page that says what to do, which a tap on the notification opens. Other addresses of a message may be anybody's.
var runbook = regexp.MustCompile(`\bRunbook: (https?://\S+)`)

// unknownWait is when to come back where the server does not say: it gives one request back each five seconds
// (docs.ntfy.sh/config/#rate-limiting).
const unknownWait = 5 * time.Second

// Send publishes one message and returns once the server has kept it. Where it could not be taken now, again is how long to wait; with a
// *RefusedError it is 0. It is published as JSON: headers, the other way, hold no UTF-8 that all proxies pass on
// (docs.ntfy.sh/publish/#publish-as-json). The server has no key by which it would know a message that is sent twice.
func (t *Topic) Send(ctx context.Context, text string) (again time.Duration, err error) {
	message := map[string]any{"topic": t.config.Topic, "message": discord.Cut(text, maxUnits)}
	if t.config.Title != "" {
		message["title"] = t.config.Title
	}
	if t.config.Priority != 0 {
		message["priority"] = t.config.Priority
	}
	if page := runbook.FindStringSubmatch(text); page != nil { // it needs somebody
		message["click"] = page[1]
		message["tags"] = []string{"warning"}
	}
	body, err := json.Marshal(message)
	if err != nil {
		return 0, &RefusedError{http.StatusBadRequest, "publish to ntfy: " + err.Error()}
	}
	status, header, reply, err := t.do(ctx, http.MethodPost, "/", body)
	if err != nil {
		return unknownWait, fmt.Errorf("publish to ntfy: %w", err)
	}
	var kept struct {
		ID    string `json:"id"`
		Code  int    `json:"code"`
		Error string `json:"error"`
	}
	broken := json.Unmarshal(reply, &kept)
	switch {
	case status == http.StatusOK && broken == nil && kept.ID != "":
		return 0, nil
	case status == http.StatusOK:
		return 0, &RefusedError{http.StatusNotFound, "publish to ntfy: the URL leads to something else than an ntfy server"}
	case status == http.StatusTooManyRequests || status >= 500:
		again = unknownWait
		if s, err := strconv.Atoi(header.Get("Retry-After")); err == nil && s > 0 {
			again = time.Duration(min(s, 3600)) * time.Second
		}
		return again, fmt.Errorf("publish to ntfy: %d %s", status, http.StatusText(status))
	case status == http.StatusUnauthorized || status == http.StatusForbidden:
		return 0, &RefusedError{status, fmt.Sprintf("publish to ntfy: %d %s: the token may not write to the topic", status, http.StatusText(status))}
	case status == http.StatusBadRequest || status == http.StatusRequestEntityTooLarge:
		return 0, &RefusedError{status, fmt.Sprintf("publish to ntfy: %d %s: the message was refused (code %d)", status, http.StatusText(status), kept.Code)}
	}
	return 0, &RefusedError{status, fmt.Sprintf("publish to ntfy: %d %s: is the URL that of an ntfy server?", status, http.StatusText(status))}
}

// Healthy asks whether the server is well, which publishes nothing. Whether the token may write is seen when it does.
func (t *Topic) Healthy(ctx context.Context) error {
	status, _, reply, err := t.do(ctx, http.MethodGet, "/v1/health", nil)
	var told struct {
		Healthy bool `json:"healthy"`
	}
	switch {
	case err != nil:
		return fmt.Errorf("ask ntfy: %w", err)
	case status != http.StatusOK || json.Unmarshal(reply, &told) != nil || !told.Healthy:
		return fmt.Errorf("ask ntfy: its health answers %d %s, not that of a healthy ntfy server", status, http.StatusText(status))
	}
	return nil
}

func (t *Topic) do(ctx context.Context, method, path string, body []byte) (status int, h http.Header, reply []byte, err error) {
	req, err := http.NewRequestWithContext(ctx, method, t.config.URL+path, bytes.NewReader(body))
	if err != nil {
		return 0, nil, nil, errors.New("its URL is no URL")
	}
	req.Header.Set("Content-Type", "application/json")
	if t.config.Token != "" {
		req.Header.Set("Authorization", "Bearer "+t.config.Token)
	}
	resp, err := t.client.Do(req)
	if err != nil {
		var u *url.Error
		if errors.As(err, &u) {
			err = u.Err
		}
		return 0, nil, nil, err
	}
	defer resp.Body.Close()
	reply, _ = io.ReadAll(io.LimitReader(resp.Body, 64<<10))
	return resp.StatusCode, resp.Header, reply, nil
}
