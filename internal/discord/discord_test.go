package discord

import (
	"encoding/json"
	"errors"
	"io"
	"net/http"
	"net/http/httptest"
	"strings"
	"testing"
	"time"
)

func answering(t *testing.T, status int, header map[string]string, body string, got chan<- *http.Request) *Webhook {
	t.Helper()
	srv := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		text, _ := io.ReadAll(r.Body)
		r.Body = io.NopCloser(strings.NewReader(string(text)))
		if got != nil {
			got <- r
		}
		for k, v := range header {
			w.Header().Set(k, v)
		}
		w.WriteHeader(status)
		io.WriteString(w, body)
	}))
	t.Cleanup(srv.Close)
	return New(srv.URL + "/api/webhooks/1/secret-token?thread_id=7")
}

func TestAMessageMentionsNobodyAndWaitsUntilItIsKept(t *testing.T) {
	got := make(chan *http.Request, 1)
	w := answering(t, 200, nil, `{"id":"1"}`, got)
	if again, err := w.Send(t.Context(), "@everyone "+strings.Repeat("\U0001F600", 1500)); again != 0 || err != nil {
		t.Fatal(again, err)
	}
	r := <-got
	var m struct {
		Content  string
		Flags    int
		Mentions struct{ Parse []string } `json:"allowed_mentions"`
	}
	if err := json.NewDecoder(r.Body).Decode(&m); err != nil || m.Mentions.Parse == nil || len(m.Mentions.Parse) != 0 || m.Flags != 4 { // no embeds
		t.Errorf("%+v, flags %d, %v", m.Mentions, m.Flags, err)
	}
	if n := Length(m.Content); n > MaxContent || n < MaxContent-2 || !strings.HasSuffix(m.Content, "...") {
		t.Errorf("a long message has %d units", n)
	}
	if q := r.URL.Query(); q.Get("wait") != "true" || q.Get("thread_id") != "7" {
		t.Errorf("the query is %s", r.URL.RawQuery)
	}
}

func TestWhenToComeBack(t *testing.T) {
	for name, tt := range map[string]struct {
		status int
		header map[string]string
		body   string
		want   time.Duration
	}{
		"body":       {429, map[string]string{"Retry-After": "1"}, `{"message":"You are being rate limited.","retry_after":0.65,"global":false}`, 650 * time.Millisecond},
		"header":     {429, map[string]string{"Retry-After": "2"}, "", 2 * time.Second},
		"cloudflare": {429, map[string]string{"Retry-After": "60"}, "<html>", time.Minute},
		"broken":     {502, nil, "<html>", unknownWait},
	} {
		again, err := answering(t, tt.status, tt.header, tt.body, nil).Send(t.Context(), "x")
		if again != tt.want || err == nil || strings.Contains(err.Error(), "secret") {
			t.Errorf("%s: %v, %v", name, again, err)
		}
	}
	closed := New("http://127.0.0.1:1/secret-token")
	if again, err := closed.Send(t.Context(), "x"); again <= 0 || err == nil || strings.Contains(err.Error(), "secret") {
		t.Errorf("nobody there: %v, %v", again, err)
	}
}

func TestNothingIsSentIntoALimitThatIsUsedUp(t *testing.T) {
	got := make(chan *http.Request, 2)
	w := answering(t, 204, map[string]string{"X-RateLimit-Remaining": "0", "X-RateLimit-Reset-After": "30"}, "", got)
	if again, err := w.Send(t.Context(), "x"); again != 0 || err != nil {
		t.Fatal(again, err)
	}
	if again, err := w.Send(t.Context(), "y"); again < 29*time.Second || err == nil || len(got) != 1 {
		t.Errorf("%v, %v, %d requests", again, err, len(got))
	}
}

func TestARefusalForGoodIsToldWithoutTheSecret(t *testing.T) {
	for _, status := range []int{301, 400, 401, 404} {
		again, err := answering(t, status, map[string]string{"Location": "http://127.0.0.1:1/"}, `{"code":10015}`, nil).Send(t.Context(), "x")
		var refused *RefusedError
		if again != 0 || !errors.As(err, &refused) || refused.Gone() != (status != 400) || strings.Contains(err.Error(), "secret") {
			t.Errorf("%d: %v, %v", status, again, err)
		}
	}
	for _, bad := range []string{"secret-token", "http://%zz/secret-token", "://secret-token"} {
		if _, err := New(bad).Send(t.Context(), "x"); err == nil || strings.Contains(err.Error(), "secret") {
			t.Errorf("%v", err)
		}
	}
}

func TestDescribe(t *testing.T) {
	if name, err := answering(t, 200, nil, `{"type":1,"name":"Captain Hook"}`, nil).Describe(t.Context()); name != "Captain Hook" || err != nil {
		t.Error(name, err)
	}
	for _, status := range []int{401, 404, 429, 500} {
		if _, err := answering(t, status, nil, `{}`, nil).Describe(t.Context()); err == nil || strings.Contains(err.Error(), "secret") {
			t.Errorf("%d: %v", status, err)
		}
	}
	if _, err := answering(t, 200, nil, `<html>`, nil).Describe(t.Context()); err == nil {
		t.Error("a web page is taken for a webhook")
	}
}
