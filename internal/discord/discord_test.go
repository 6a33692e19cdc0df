package discord

import (
	"context"
	"encoding/json"
	"io"
	"net/http"
	"net/http/httptest"
	"strings"
	"testing"
	"time"
)

func TestMessagesArriveInOrderAndLimitsAreHonoured(t *testing.T) {
	got := make(chan string, 10)
	refuse := 1
	srv := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		if refuse > 0 {
			refuse--
			w.WriteHeader(http.StatusTooManyRequests)
			io.WriteString(w, `{"message":"You are being rate limited.","retry_after":0.01,"global":false}`)
			return
		}
		var m struct{ Content string }
		json.NewDecoder(r.Body).Decode(&m)
		got <- m.Content
		w.WriteHeader(http.StatusNoContent)
	}))
	defer srv.Close()
	w := New(srv.URL)
	ctx, cancel := context.WithCancel(t.Context())
	done := make(chan error)
	go func() { done <- w.Run(ctx, func(err error) { t.Error(err) }) }()
	w.Post("first")
	w.Post(strings.Repeat("ä", 3000))
	if m := <-got; m != "first" {
		t.Errorf("got %q", m)
	}
	if m := <-got; len([]rune(m)) != MaxContent || !strings.HasSuffix(m, "...") {
		t.Errorf("a long message has %d characters", len([]rune(m)))
	}
	cancel()
	if err := <-done; err != nil {
		t.Error(err)
	}
}

func TestARefusalForGoodIsToldWithoutTheSecret(t *testing.T) {
	srv := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) { w.WriteHeader(http.StatusNotFound) }))
	defer srv.Close()
	w := New(srv.URL + "/api/webhooks/1/secret-token")
	ctx, cancel := context.WithCancel(t.Context())
	defer cancel()
	lost := make(chan error, 1)
	go w.Run(ctx, func(err error) { lost <- err }) //nolint:errcheck // it returns nil
	w.Post("x")
	if err := <-lost; !strings.Contains(err.Error(), "404") || strings.Contains(err.Error(), "secret") {
		t.Errorf("got %v", err)
	}
}

func TestRetryAfter(t *testing.T) {
	for _, tt := range []struct {
		body, header string
		want         time.Duration
	}{
		{`{"retry_after":0.65}`, "", 650 * time.Millisecond},
		{"", "2", 2 * time.Second},
		{"<html>", "", 0},
	} {
		if got := retryAfter(http.Header{"Retry-After": {tt.header}}, []byte(tt.body)); got != tt.want {
			t.Errorf("%q, %q: got %v", tt.body, tt.header, got)
		}
	}
}

func TestPostNeverBlocks(t *testing.T) {
	w := New("http://127.0.0.1:1")
	for range waiting {
		if !w.Post("x") {
			t.Fatal("refused too early")
		}
	}
	if w.Post("one too many") {
		t.Error("taken although nobody posts")
	}
}
