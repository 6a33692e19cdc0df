package main

import (
	"context"
	"encoding/json"
	"net/http"
	"net/http/httptest"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"testing"
	"time"

	"home.arpa/lab/homelab-iac/internal/site"
)

// A phone is an ntfy server that writes down what it is sent, while it is not away.
type phone struct {
	mu   sync.Mutex
	away bool
	said []string
}

func (p *phone) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	p.mu.Lock()
	defer p.mu.Unlock()
	var m struct{ Topic, Message, Title string }
	switch err := json.NewDecoder(r.Body).Decode(&m); {
	case p.away:
		w.WriteHeader(http.StatusBadGateway)
	case err != nil || m.Topic != "topic-planted" || r.Header.Get("Authorization") != "Bearer tk_planted" || m.Title != "homelab: prod-services":
		w.WriteHeader(http.StatusForbidden)
	default:
		p.said = append(p.said, m.Message)
		w.Write([]byte(`{"id":"1"}`)) //nolint:errcheck // the caller's trouble
	}
}

func TestAPhoneThatIsAwayDelaysDiscordNotAndIsToldAfterwards(t *testing.T) {
	dir := t.TempDir()
	ref := func(name, text string) string {
		if err := os.WriteFile(filepath.Join(dir, name), []byte(text), 0o600); err != nil {
			t.Fatal(err)
		}
		return "file:" + filepath.Join(dir, name)
	}
	var mu sync.Mutex
	var discord []string
	hook := httptest.NewServer(http.HandlerFunc(func(_ http.ResponseWriter, r *http.Request) {
		var m struct{ Content string }
		json.NewDecoder(r.Body).Decode(&m) //nolint:errcheck // then it is empty
		mu.Lock()
		defer mu.Unlock()
		discord = append(discord, m.Content)
	}))
	defer hook.Close()
	p := &phone{away: true}
	server := httptest.NewServer(p)
	defer server.Close()
	m := &machine{Config: site.Config{Host: "prod-services", State: filepath.Join(dir, "state"), Discord: ref("hook", hook.URL+"/api/webhooks/1/x"),
		Ntfy: site.Ntfy{URL: server.URL, Topic: ref("topic", "topic-planted"), Token: ref("token", "tk_planted")}}, patience: patience{Tell: 3 * time.Second}}
	err := m.note(context.Background(), map[string]string{"fresh gitea fast": "the newest is too old"})
	if err == nil || !strings.Contains(err.Error(), "502") || strings.Contains(err.Error(), "planted") || len(discord) != 1 {
		t.Fatalf("%v, Discord heard %q", err, discord)
	}
	p.away = false
	for range 2 {
		if err := m.note(context.Background(), map[string]string{"fresh gitea fast": "the newest is too old"}); err != nil {
			t.Fatal(err)
		}
	}
	if err := m.note(context.Background(), map[string]string{"fresh gitea fast": ""}); err != nil {
		t.Fatal(err)
	}
	if len(discord) != 2 || len(p.said) != 2 || !strings.Contains(p.said[0], "the newest is too old") || !strings.Contains(p.said[1], "is well again") {
		t.Errorf("Discord heard %q, the phone %q", discord, p.said)
	}
}
