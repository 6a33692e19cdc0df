package webhook

import (
	"errors"
	"io"
	"net/http"
	"net/http/httptest"
	"strings"
	"testing"
	"time"
)

// The example is that of the specification's libraries (github.com/standard-webhooks/standard-webhooks, the test of each).
func TestTheSignatureIsThatOfStandardWebhooks(t *testing.T) {
	c := Config{Secret: "whsec_MfKQ9r8GKYqrTwjUPD8ILPZIo2LaLaSw"}
	got := c.Sign("msg_p5jXN8AQM9LWM0D4loKWxJek", time.Unix(1614265330, 0), []byte(`{"test": 2432232314}`))
	if want := "g0hM9SsE+OTPJTGt/tmIKtSyZlE3uFJELVlNIOLJ1OE="; got != want {
		t.Errorf("%s, not %s", got, want)
	}
}

func TestAMessageSaysWhoWhatAndWhen(t *testing.T) {
	var r *http.Request
	var body string
	srv := httptest.NewServer(http.HandlerFunc(func(_ http.ResponseWriter, req *http.Request) {
		b, _ := io.ReadAll(req.Body)
		r, body = req, string(b)
	}))
	defer srv.Close()
	h := New(Config{URL: srv.URL + "/in?key=planted", Source: "llm-runner"})
	h.now = func() time.Time { return time.Unix(1764426000, 5) }
	if again, err := h.Send(t.Context(), "davas is down."); again != 0 || err != nil {
		t.Fatal(again, err)
	}
	if body != `{"source":"llm-runner","text":"davas is down.","sent_at":"2025-11-29T14:20:00Z"}` || r.Header.Get("Webhook-Timestamp") != "1764426000" ||
		r.Header.Get("Idempotency-Key") != ID("davas is down.") || r.Header.Get("Webhook-Id") != ID("davas is down.") || r.Header.Get("Webhook-Signature") != "" {
		t.Errorf("%s %v", body, r.Header)
	}
}

func TestWhatAnswersMean(t *testing.T) {
	for status, tt := range map[int]struct {
		again time.Duration
		gone  bool
	}{
		429: {3 * time.Second, false}, 500: {3 * time.Second, false}, 400: {0, false}, 413: {0, false}, 422: {0, false}, 401: {0, true}, 410: {0, true}, 302: {0, true},
	} {
		srv := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) {
			w.Header().Set("Retry-After", "3")
			w.Header().Set("Location", "/elsewhere")
			w.WriteHeader(status)
		}))
		again, err := New(Config{URL: srv.URL + "/planted"}).Send(t.Context(), "x")
		srv.Close()
		var refused *RefusedError
		if again != tt.again || err == nil || errors.As(err, &refused) != (tt.again == 0) || refused != nil && refused.Gone() != tt.gone || strings.Contains(err.Error(), "planted") {
			t.Errorf("%d: %v, %v", status, again, err)
		}
	}
	if again, err := New(Config{URL: "http://127.0.0.1:1/planted"}).Send(t.Context(), "x"); again == 0 || err == nil || strings.Contains(err.Error(), "planted") {
		t.Error(again, err)
	}
}

func TestFaultsOfAConfiguration(t *testing.T) {
	err := Config{URL: "planted", Secret: "whsec_planted!"}.Validate()
	if err == nil || !strings.Contains(err.Error(), "url: ") || !strings.Contains(err.Error(), "secret: ") || strings.Contains(err.Error(), "planted") {
		t.Error(err)
	}
}
