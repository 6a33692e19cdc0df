package upstream_test

import (
	"context"
	"errors"
	"io"
	"net"
	"net/http"
	"net/http/httptest"
	"strings"
	"testing"
	"time"

	"home.arpa/lab/llm-runner/internal/llm"
	"home.arpa/lab/llm-runner/internal/upstream"
)

func TestRetryAfterReadsEveryForm(t *testing.T) {
	now := time.Date(2026, 11, 22, 12, 0, 0, 0, time.UTC)
	for _, tt := range []struct {
		name, value string
		want        time.Duration
	}{
		{"Retry-After", "7", 7 * time.Second},
		{"Retry-After", " 7 ", 7 * time.Second},
		{"Retry-After", "1.5", 1500 * time.Millisecond},
		{"Retry-After", "0", 0},
		{"Retry-After", "", 0},
		{"Retry-After", "soon", 0},
		{"Retry-After", "-3", 0},
		{"Retry-After", "NaN", 0},
		{"Retry-After", "1e99", upstream.MaxWait},
		{"Retry-After", "+Inf", upstream.MaxWait},
		{"Retry-After", "Sun, 22 Nov 2026 12:01:30 GMT", 90 * time.Second},
		{"Retry-After", "Sun, 22 Nov 2026 11:00:00 GMT", 0},
		{"Retry-After-Ms", "250", 250 * time.Millisecond},
	} {
		h := http.Header{}
		h.Set(tt.name, tt.value)
		if got := upstream.RetryAfter(h, now); got != tt.want {
			t.Errorf("%s: %s means %s, want %s", tt.name, tt.value, got, tt.want)
		}
	}
	both := http.Header{"Retry-After": {"2"}, "Retry-After-Ms": {"1250"}}
	if got := upstream.RetryAfter(both, now); got != 1250*time.Millisecond {
		t.Errorf("milliseconds do not win: %s", got)
	}
}

func TestRefusedHidesTheKeyWhereverItIsRepeated(t *testing.T) {
	const key = "sk-very-secret"
	for name, value := range map[string]string{"Authorization": "Bearer " + key, "X-Api-Key": key, "X-Goog-Api-Key": key} {
		c := upstream.New("cloud", "http://127.0.0.1", http.Header{name: {value}}, 0)
		e := c.Refused(&llm.Error{
			Message: "wrong key " + key, Body: []byte(`{"key":"` + key + `"}`), Header: http.Header{"X-Echo": {"is " + key}},
		})
		if strings.Contains(e.Message+string(e.Body)+e.Header.Get("X-Echo"), key) || e.Provider != "cloud" {
			t.Errorf("%s: got %+v", name, e)
		}
	}
}

func serve(t *testing.T, silence time.Duration, h http.HandlerFunc) *upstream.Client {
	srv := httptest.NewServer(h)
	t.Cleanup(srv.Close)
	c := upstream.New("test", srv.URL+"/", http.Header{"Authorization": {"Bearer secret-key"}}, silence)
	t.Cleanup(c.CloseIdle)
	return c
}

func TestDoSendsTheKeyAndNeverFollowsRedirects(t *testing.T) {
	c := serve(t, 0, func(w http.ResponseWriter, r *http.Request) {
		if r.Header.Get("Authorization") != "Bearer secret-key" || r.Header.Get("Content-Type") != "application/json" || r.Method != "POST" {
			t.Errorf("got %s %v", r.Method, r.Header)
		}
		http.Redirect(w, r, "http://127.0.0.1:1/", http.StatusTemporaryRedirect)
	})
	resp, err := c.Do(t.Context(), "/x", nil, []byte("{}"))
	if err != nil || resp.StatusCode != http.StatusTemporaryRedirect {
		t.Fatalf("got %v, %v", resp, err)
	}
	resp.Body.Close()
}

func TestSilenceIsBoundedButASlowReaderIsNotSilence(t *testing.T) {
	release := make(chan struct{})
	c := serve(t, time.Second, func(w http.ResponseWriter, r *http.Request) {
		io.WriteString(w, "first")
		w.(http.Flusher).Flush()
		select {
		case <-release:
			io.WriteString(w, "second")
		case <-r.Context().Done():
		}
		if r.URL.Path == "/silent" {
			<-r.Context().Done()
		}
	})
	resp, err := c.Do(t.Context(), "/slow-reader", nil, nil)
	if err != nil {
		t.Fatal(err)
	}
	<-time.After(3 * time.Second) // the reader takes three times the silence that is borne
	close(release)
	if b, err := io.ReadAll(resp.Body); err != nil || string(b) != "firstsecond" {
		t.Errorf("a slow reader got %q, %v", b, err)
	}
	resp.Body.Close()

	resp, err = c.Do(t.Context(), "/silent", nil, nil)
	if err != nil {
		t.Fatal(err)
	}
	defer resp.Body.Close()
	_, err = io.ReadAll(resp.Body)
	var e *llm.Error
	if !errors.As(err, &e) || e.Kind != llm.Unavailable || !strings.Contains(e.Message, "no answer for 1s") {
		t.Errorf("silence ended with %v", err)
	}
}

func TestFailuresAreTyped(t *testing.T) {
	dead := upstream.New("dead", "http://127.0.0.1:1", nil, 0)
	_, err := dead.Do(t.Context(), "/", nil, nil)
	if llm.KindOf(err) != llm.Unavailable || !strings.Contains(err.Error(), "refused") {
		t.Errorf("nobody listening: %v", err)
	}
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	if _, err := dead.Do(ctx, "/", nil, nil); llm.KindOf(err) != llm.Cancelled {
		t.Errorf("cancelled: %v", err)
	}
	broken := upstream.New("broken", "http://exa mple", nil, 0)
	if _, err := broken.Do(t.Context(), "/", nil, nil); llm.KindOf(err) != llm.BadRequest {
		t.Errorf("a bad address: %v", err)
	}
}

func TestConnectionsCanBeMadeByAnother(t *testing.T) {
	c := serve(t, 0, func(w http.ResponseWriter, r *http.Request) { io.WriteString(w, r.Host) })
	at := strings.TrimPrefix(c.Base, "http://")
	there := upstream.New("there", "http://there.test", nil, 0).Over(func(ctx context.Context, network, address string) (net.Conn, error) {
		if address != "there.test:80" {
			t.Errorf("dialed %s", address)
		}
		return new(net.Dialer).DialContext(ctx, network, at)
	})
	defer there.CloseIdle()
	resp, err := there.Do(t.Context(), "/", nil, nil)
	if err != nil {
		t.Fatal(err)
	}
	defer resp.Body.Close()
	if b, err := io.ReadAll(resp.Body); err != nil || string(b) != "there.test" {
		t.Errorf("%s, %v", b, err)
	}
}
