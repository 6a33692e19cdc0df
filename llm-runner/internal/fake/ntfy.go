package fake

import (
	"encoding/json"
	"fmt"
	"io"
	"net/http"
	"regexp"
	"strings"
	"time"

	"home.arpa/lab/llm-runner/internal/fake/script"
)

// Ntfy imitates an ntfy server (docs.ntfy.sh/publish/#publish-as-json): POST / takes a message for a topic as JSON, sixty at once and one more
// each five seconds, of at most 4096 bytes. A script's key is the access token that must be shown; its faults apply to posts. It is an
// http.Handler and safe for concurrent use.
//
// GET /_fake/messages shows the last messages as JSON.
type Ntfy struct {
	// Now is the clock; nil means time.Now. It is set before the first request.
	Now func() time.Time

	posts
	used float64   // of the limit
	at   time.Time // when used was right
}

// What a visitor may do, as it was in 2026 (docs.ntfy.sh/config/#rate-limiting): server.yml's visitor-request-limit-burst and -replenish.
const (
	ntfyBurst     = 60
	ntfyReplenish = 5 * time.Second
	ntfyBytes     = 4096
)

// NewNtfy returns a server that keeps to the script's key and faults.
func NewNtfy(s script.Script) (*Ntfy, error) {
	if err := s.Check(); err != nil {
		return nil, err
	}
	return &Ntfy{posts: posts{script: s, changed: make(chan struct{})}}, nil
}

var ntfyTopic = regexp.MustCompile(`^[-_A-Za-z0-9]{1,64}$`)

func (n *Ntfy) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	switch {
	case strings.HasPrefix(r.URL.Path, "/_fake/"):
		n.show(w)
	case r.URL.Path == "/v1/health" && r.Method == http.MethodGet:
		writeJSON(w, http.StatusOK, map[string]bool{"healthy": true})
	case r.URL.Path != "/" || r.Method != http.MethodPost && r.Method != http.MethodPut:
		ntfyError(w, 40401, http.StatusNotFound, "page not found")
	case n.script.Key != "" && r.Header.Get("Authorization") != "Bearer "+n.script.Key:
		if r.Header.Get("Authorization") == "" {
			ntfyError(w, 40301, http.StatusForbidden, "forbidden")
			return
		}
		ntfyError(w, 40101, http.StatusUnauthorized, "unauthorized")
	default:
		n.publish(w, r)
	}
}

func (n *Ntfy) publish(w http.ResponseWriter, r *http.Request) {
	body, err := io.ReadAll(io.LimitReader(r.Body, 1<<20))
	if err != nil {
		return // the caller went away
	}
	fault := n.fault()
	if n.breaks(w, r, fault, func(status int) { ntfyError(w, status*100+1, status, strings.ToLower(http.StatusText(status))) }) {
		return
	}
	if !n.take() {
		ntfyError(w, 42901, http.StatusTooManyRequests, "limit reached: too many requests")
		return
	}
	var sent struct {
		Topic, Message, Title, Click string
		Priority                     int
		Tags                         []string
	}
	switch err := json.Unmarshal(body, &sent); {
	case err != nil:
		ntfyError(w, 40024, http.StatusBadRequest, "invalid request: request body must be valid JSON")
		return
	case !ntfyTopic.MatchString(sent.Topic):
		ntfyError(w, 40009, http.StatusBadRequest, "invalid request: topic invalid")
		return
	case sent.Priority < 0 || sent.Priority > 5:
		ntfyError(w, 40007, http.StatusBadRequest, "invalid request: priority invalid")
		return
	case len(sent.Message) > ntfyBytes: // the real one makes a file of it, where it may
		ntfyError(w, 41301, http.StatusRequestEntityTooLarge, "attachment too large, or bandwidth limit reached")
		return
	case sent.Message == "":
		sent.Message = "triggered"
	}
	m := n.keep(Message{Content: sent.Message, Topic: sent.Topic, Title: sent.Title, Click: sent.Click, Tags: sent.Tags, Priority: sent.Priority})
	if fault != nil && fault.Kind == script.ResetAfterFinish { // kept, but the caller does not hear of it
		hangUp(w)
		return
	}
	writeJSON(w, http.StatusOK, map[string]any{"id": "fake" + m.ID, "time": m.Time.Unix(), "expires": m.Time.Add(12 * time.Hour).Unix(), "event": "message", "topic": sent.Topic, "message": sent.Message})
}

// take counts a message against the limit, and says whether there was room.
func (n *Ntfy) take() bool {
	now := time.Now()
	if n.Now != nil {
		now = n.Now()
	}
	n.mu.Lock()
	defer n.mu.Unlock()
	n.used = max(0, n.used-now.Sub(n.at).Seconds()/ntfyReplenish.Seconds())
	if n.at = now; n.used+1 > ntfyBurst {
		return false
	}
	n.used++
	return true
}

func ntfyError(w http.ResponseWriter, code, status int, says string) {
	writeJSON(w, status, map[string]any{"code": code, "http": status, "error": says, "link": fmt.Sprintf("https://ntfy.sh/docs/?code=%d", code)})
}
