package ntfy

import (
	"bytes"
	"encoding/json"
	"errors"
	"io"
	"net/http"
	"net/http/httptest"
	"strings"
	"testing"
	"time"
)

func answering(t *testing.T, status int, retry, body string, got *http.Request, sent *[]byte) *Topic {
	t.Helper()
	srv := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		text, _ := io.ReadAll(r.Body)
		if sent != nil {
			*got, *sent = *r, text
		}
		if retry != "" {
			w.Header().Set("Retry-After", retry)
		}
		w.WriteHeader(status)
		io.WriteString(w, body)
	}))
	t.Cleanup(srv.Close)
	c := Config{URL: srv.URL + "/", Topic: "topic-planted", Token: "tk_planted", Title: "Haus \u00fcber See", Priority: 4}
	if err := c.Validate(); err != nil {
		t.Fatal(err)
	}
	return New(c)
}

func TestAMessageIsPublishedAsJSONWithinItsLimit(t *testing.T) {
	var r http.Request
	var sent []byte
	topic := answering(t, 200, "", `{"id":"x","event":"message"}`, &r, &sent)
	long := "davas is down. Runbook: https://example.org/runbooks/machine-down.md " + strings.Repeat("\u20ac\U0001F600", 2000)
	if again, err := topic.Send(t.Context(), long); again != 0 || err != nil {
		t.Fatal(again, err)
	}
	var m struct {
		Topic, Message, Title, Click string
		Priority                     int
		Tags                         []string
	}
	if err := json.Unmarshal(sent, &m); err != nil {
		t.Fatal(err)
	}
	if r.URL.Path != "/" || r.Header.Get("Authorization") != "Bearer tk_planted" || m.Topic != "topic-planted" || m.Title != "Haus \u00fcber See" || m.Priority != 4 ||
		m.Click != "https://example.org/runbooks/machine-down.md" || len(m.Tags) != 1 {
		t.Errorf("%s %v %+v", r.URL, r.Header, m)
	}
	if len(m.Message) > MaxBytes || len(m.Message) < MaxBytes/2 || !strings.HasSuffix(m.Message, "...") {
		t.Errorf("the message has %d bytes", len(m.Message))
	}
}

// An address that a page or a feed wrote into a message is not what a tap opens.
func TestATapOpensOnlyThePageOfAnAlert(t *testing.T) {
	var r http.Request
	var sent []byte
	topic := answering(t, 200, "", `{"id":"x","event":"message"}`, &r, &sent)
	if _, err := topic.Send(t.Context(), "News\n- [A new kernel](<https://feed.example/a.html>)"); err != nil {
		t.Fatal(err)
	}
	if bytes.Contains(sent, []byte("click")) || bytes.Contains(sent, []byte("warning")) {
		t.Errorf("%s", sent)
	}
}

func TestWhatAnswersMean(t *testing.T) {
	for name, tt := range map[string]struct {
		status int
		retry  string
		body   string
		again  time.Duration
		gone   bool
	}{
		"limit":      {429, "7", `{"code":42901,"http":429}`, 7 * time.Second, false},
		"no time":    {429, "", `{"code":42901,"http":429}`, unknownWait, false},
		"broken":     {502, "", "<html>", unknownWait, false},
		"forbidden":  {403, "", `{"code":40301,"http":403}`, 0, true},
		"token":      {401, "", `{"code":40101,"http":401}`, 0, true},
		"message":    {400, "", `{"code":40024,"http":400}`, 0, false},
		"too large":  {413, "", `{"code":41301,"http":413}`, 0, false},
		"elsewhere":  {404, "", "<html>", 0, true},
		"no ntfy":    {200, "", "<html>", 0, true},
		"redirected": {301, "", "", 0, true},
	} {
		again, err := answering(t, tt.status, tt.retry, tt.body, nil, nil).Send(t.Context(), "x")
		var refused *RefusedError
		if again != tt.again || err == nil || errors.As(err, &refused) != (tt.again == 0) || refused != nil && refused.Gone() != tt.gone || strings.Contains(err.Error(), "planted") {
			t.Errorf("%s: %v, %v", name, again, err)
		}
	}
}

func TestHealth(t *testing.T) {
	if err := answering(t, 200, "", `{"healthy":true}`, nil, nil).Healthy(t.Context()); err != nil {
		t.Error(err)
	}
	if err := answering(t, 200, "", "<html>", nil, nil).Healthy(t.Context()); err == nil {
		t.Error("a page is healthy")
	}
}

func TestFaultsOfAConfiguration(t *testing.T) {
	err := Config{URL: "ntfy.sh/planted", Topic: "to/planted", Priority: 6}.Validate()
	for _, want := range []string{"url: ", "topic: ", "priority: 6"} {
		if err == nil || !strings.Contains(err.Error(), want) || strings.Contains(err.Error(), "planted") {
			t.Errorf("%v", err)
		}
	}
}
