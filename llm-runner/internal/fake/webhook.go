package fake

import (
	"encoding/json"
	"io"
	"net/http"
	"slices"
	"strconv"
	"strings"
	"time"

	"home.arpa/lab/internal/webhook"
	"home.arpa/lab/llm-runner/internal/fake/script"
)

// Webhook imitates a receiver of signed posts on any path, as one would write it: it knows a message that is sent twice by its Idempotency-Key and
// keeps it once. A script's key is the secret that messages must be signed with; its faults apply to posts. It is an http.Handler and
// safe for concurrent use.
//
// GET /_fake/messages shows the last messages as JSON.
type Webhook struct{ posts }

// NewWebhook returns a receiver that keeps to the script's key and faults.
func NewWebhook(s script.Script) (*Webhook, error) {
	if err := s.Check(); err != nil {
		return nil, err
	}
	return &Webhook{posts{script: s, changed: make(chan struct{})}}, nil
}

func (h *Webhook) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	if strings.HasPrefix(r.URL.Path, "/_fake/") {
		h.show(w)
		return
	}
	if r.Method != http.MethodPost {
		http.Error(w, "Method Not Allowed", http.StatusMethodNotAllowed)
		return
	}
	body, err := io.ReadAll(io.LimitReader(r.Body, 1<<20))
	if err != nil {
		return // the caller went away
	}
	fault := h.fault()
	if h.breaks(w, r, fault, func(status int) { http.Error(w, http.StatusText(status), status) }) {
		return
	}
	id := r.Header.Get("Webhook-Id")
	seconds, err := strconv.ParseInt(r.Header.Get("Webhook-Timestamp"), 10, 64)
	at := time.Unix(seconds, 0)
	if h.script.Key != "" {
		want := "v1," + webhook.Config{Secret: h.script.Key}.Sign(id, at, body)
		if err != nil || time.Since(at).Abs() > 5*time.Minute || !slices.Contains(strings.Fields(r.Header.Get("Webhook-Signature")), want) {
			http.Error(w, "the signature is wrong", http.StatusUnauthorized)
			return
		}
	}
	var m webhook.Message
	if json.Unmarshal(body, &m) != nil || m.Text == "" || id == "" {
		http.Error(w, "it is no message", http.StatusBadRequest)
		return
	}
	known := slices.ContainsFunc(h.Messages(), func(x Message) bool { return x.Key == r.Header.Get("Idempotency-Key") })
	if !known {
		h.keep(Message{Content: m.Text, Title: m.Source, Key: r.Header.Get("Idempotency-Key")})
	}
	if fault != nil && fault.Kind == script.ResetAfterFinish { // kept, but the caller does not hear of it
		hangUp(w)
		return
	}
	w.WriteHeader(http.StatusNoContent)
}
