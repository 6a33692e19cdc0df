package fake

import (
	"context"
	"encoding/json"
	"fmt"
	"io"
	"net/http"
	"slices"
	"strconv"
	"strings"
	"sync"
	"time"
	"unicode/utf8"

	"home.arpa/lab/llm-runner/internal/fake/script"
)

// Discord imitates Discord's webhooks (docs.discord.com/developers/resources/webhook): any path /api/webhooks/ID/TOKEN takes
// messages, five in two seconds. A script's key is the token that must be shown; its faults apply to posts. It is an
// http.Handler and safe for concurrent use.
//
// GET /_fake/messages shows the last messages as JSON.
type Discord struct {
	// Now is the clock; nil means time.Now. It is set before the first request.
	Now func() time.Time

	script  script.Script
	mu      sync.Mutex
	posts   int
	window  time.Time // since when used counts
	used    int
	kept    []Message
	changed chan struct{} // closed and replaced at every message
}

// A Message is one that a fake of who passes messages on has kept. What is below Content is of ntfy and webhooks.
type Message struct {
	ID       string    `json:"id"`
	Time     time.Time `json:"timestamp"`
	Content  string    `json:"content"`
	Topic    string    `json:"topic,omitempty"`
	Title    string    `json:"title,omitempty"`
	Click    string    `json:"click,omitempty"`
	Tags     []string  `json:"tags,omitempty"`
	Priority int       `json:"priority,omitempty"`
	Key      string    `json:"idempotency_key,omitempty"`
}

// What a webhook may do, as it was in 2026: five messages in two seconds, each of at most 2000 characters.
const (
	discordBurst   = 5
	discordWindow  = 2 * time.Second
	discordContent = 2000
)

// NewDiscord returns a Discord that keeps to the script's key and faults; what a script says of answers is not used.
func NewDiscord(s script.Script) (*Discord, error) {
	if err := s.Check(); err != nil {
		return nil, err
	}
	return &Discord{script: s, changed: make(chan struct{})}, nil
}

// Messages returns what was kept, oldest first; the last MaxSeen of it.
func (d *Discord) Messages() []Message {
	d.mu.Lock()
	defer d.mu.Unlock()
	return slices.Clone(d.kept)
}

// Await waits until is answers true of all messages so far; false when ctx ends first.
func (d *Discord) Await(ctx context.Context, is func([]Message) bool) bool {
	return await(ctx, func() ([]Message, <-chan struct{}) {
		d.mu.Lock()
		defer d.mu.Unlock()
		return slices.Clone(d.kept), d.changed
	}, is)
}

func (d *Discord) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	if strings.HasPrefix(r.URL.Path, "/_fake/") {
		writeDiscord(w, http.StatusOK, append([]Message{}, d.Messages()...))
		return
	}
	id, token, ok := webhookPath(r.URL.Path)
	switch {
	case !ok:
		discordError(w, http.StatusNotFound, 0, "404: Not Found")
	case d.script.Key != "" && token != d.script.Key:
		discordError(w, http.StatusUnauthorized, 50027, "Invalid Webhook Token")
	case r.Method == http.MethodGet:
		writeDiscord(w, http.StatusOK, map[string]any{"application_id": nil, "avatar": nil, "channel_id": "2", "guild_id": "3", "id": id,
			"name": "Captain Hook", "type": 1, "token": token})
	case r.Method == http.MethodPost:
		d.post(w, r)
	default:
		discordError(w, http.StatusMethodNotAllowed, 0, "405: Method Not Allowed")
	}
}

// webhookPath splits /api/webhooks/ID/TOKEN; the API's version may stand in it.
func webhookPath(path string) (id, token string, ok bool) {
	parts := strings.Split(strings.TrimPrefix(path, "/"), "/")
	if len(parts) == 5 && strings.HasPrefix(parts[1], "v") {
		parts = slices.Delete(parts, 1, 2)
	}
	if len(parts) != 4 || parts[0] != "api" || parts[1] != "webhooks" || parts[2] == "" || parts[3] == "" {
		return "", "", false
	}
	return parts[2], parts[3], true
}

func (d *Discord) post(w http.ResponseWriter, r *http.Request) {
	body, err := io.ReadAll(io.LimitReader(r.Body, 1<<20))
	if err != nil {
		return // the caller went away
	}
	d.mu.Lock()
	d.posts++
	n := d.posts
	d.mu.Unlock()
	fault, _ := d.script.FaultsOf(n, script.Rule{})
	if fault != nil && d.breaks(w, r, *fault) {
		return
	}
	if wait := d.take(w.Header()); wait > 0 {
		limited(w, wait)
		return
	}
	var sent struct {
		Content string `json:"content"`
	}
	switch err := json.Unmarshal(body, &sent); {
	case err != nil:
		discordError(w, http.StatusBadRequest, 50109, "The request body contains invalid JSON.")
		return
	case strings.TrimSpace(sent.Content) == "":
		discordError(w, http.StatusBadRequest, 50006, "Cannot send an empty message")
		return
	case utf8.RuneCountInString(sent.Content) > discordContent:
		writeDiscord(w, http.StatusBadRequest, map[string]any{"message": "Invalid Form Body", "code": 50035, "errors": map[string]any{"content": map[string]any{
			"_errors": []map[string]string{{"code": "BASE_TYPE_MAX_LENGTH", "message": fmt.Sprintf("Must be %d or fewer in length.", discordContent)}}}}})
		return
	}
	m := d.keep(sent.Content)
	switch {
	case fault != nil && fault.Kind == script.ResetAfterFinish: // kept, but the caller does not hear of it
		hangUp(w)
	case r.URL.Query().Get("wait") == "true":
		writeDiscord(w, http.StatusOK, m)
	default:
		w.WriteHeader(http.StatusNoContent)
	}
}

// breaks does the faults that keep a message from being taken, and says whether it did.
func (d *Discord) breaks(w http.ResponseWriter, r *http.Request, f script.Fault) bool {
	switch {
	case f.Kind == script.ResetBeforeHeaders:
		hangUp(w)
	case f.Kind == script.StallBeforeHeaders:
		<-r.Context().Done()
	case f.Kind == script.HTML200:
		w.Header().Set("Content-Type", "text/html")
		_, _ = io.WriteString(w, "<!doctype html><title>Discord</title>")
	case f.Kind == script.NoModel:
		discordError(w, http.StatusNotFound, 10015, "Unknown Webhook")
	case f.Kind.Refuses() && f.Kind.Status() == http.StatusTooManyRequests:
		wait := f.Wait
		if wait == 0 {
			wait = discordWindow
		}
		limited(w, wait)
	case f.Kind.Refuses():
		discordError(w, f.Kind.Status(), 0, fmt.Sprintf("%d: %s", f.Kind.Status(), http.StatusText(f.Kind.Status())))
	default:
		return false
	}
	return true
}

// take counts a message against the limit, tells the limit's headers, and returns how long to wait where there is no room.
func (d *Discord) take(h http.Header) time.Duration {
	now := time.Now()
	if d.Now != nil {
		now = d.Now()
	}
	d.mu.Lock()
	defer d.mu.Unlock()
	if now.Sub(d.window) >= discordWindow {
		d.window, d.used = now, 0
	}
	left := d.window.Add(discordWindow).Sub(now)
	full := d.used >= discordBurst
	if !full {
		d.used++
	}
	h.Set("X-RateLimit-Limit", strconv.Itoa(discordBurst))
	h.Set("X-RateLimit-Remaining", strconv.Itoa(discordBurst-d.used))
	h.Set("X-RateLimit-Reset", fmt.Sprintf("%.3f", float64(now.Add(left).UnixMilli())/1000))
	h.Set("X-RateLimit-Reset-After", fmt.Sprintf("%.3f", left.Seconds()))
	h.Set("X-RateLimit-Bucket", "fake")
	if full {
		return left
	}
	return 0
}

func (d *Discord) keep(content string) Message {
	d.mu.Lock()
	defer d.mu.Unlock()
	if len(d.kept) >= MaxSeen {
		d.kept = slices.Delete(d.kept, 0, MaxSeen/2)
	}
	m := Message{ID: strconv.Itoa(d.posts), Time: time.Now().UTC(), Content: content}
	d.kept = append(d.kept, m)
	close(d.changed)
	d.changed = make(chan struct{})
	return m
}

func limited(w http.ResponseWriter, wait time.Duration) {
	w.Header().Set("Retry-After", strconv.Itoa(int((wait+time.Second-1)/time.Second)))
	w.Header().Set("X-RateLimit-Scope", "user")
	writeDiscord(w, http.StatusTooManyRequests, map[string]any{"message": "You are being rate limited.", "retry_after": wait.Seconds(), "global": false})
}

func discordError(w http.ResponseWriter, status, code int, message string) {
	writeDiscord(w, status, map[string]any{"message": message, "code": code})
}

func writeDiscord(w http.ResponseWriter, status int, v any) {
	b, _ := json.Marshal(v) // maps, strings and times always have a JSON form
	w.Header().Set("Content-Type", "application/json")
	w.WriteHeader(status)
	_, _ = w.Write(b)
}

// hangUp ends the connection without an answer.
func hangUp(w http.ResponseWriter) {
	conn, _, err := http.NewResponseController(w).Hijack()
	if err != nil {
		panic(http.ErrAbortHandler)
	}
	_ = conn.Close()
}
