package kuma

import (
	"net/http"
	"net/http/httptest"
	"strings"
	"testing"
	"time"
)

func TestTokensAreStableSecretAndDifferent(t *testing.T) {
	a, b, c := Token([]byte("s"), "x"), Token([]byte("s"), "y"), Token([]byte("t"), "x")
	if len(a) != 32 || a == b || a == c || a != Token([]byte("s"), "x") || strings.ContainsAny(a, "=/+") {
		t.Errorf("%s %s %s", a, b, c)
	}
}

func TestAPushSaysWhatHappened(t *testing.T) {
	var got []string
	answers := []func(http.ResponseWriter){
		func(w http.ResponseWriter) { w.WriteHeader(502) },
		func(w http.ResponseWriter) { w.Write([]byte(`{"ok":true}`)) },
	}
	srv := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		got = append(got, r.URL.Path+" "+r.URL.Query().Get("status")+" "+r.URL.Query().Get("msg")+" "+r.URL.Query().Get("ping"))
		answers[min(len(got), len(answers))-1](w)
	}))
	defer srv.Close()
	p := Pusher{URL: srv.URL + "/", Wait: time.Millisecond}
	if err := p.Push(t.Context(), "tok", false, "a & b = ü", 1500*time.Millisecond); err != nil {
		t.Fatal(err)
	}
	if len(got) != 2 || got[1] != "/api/push/tok down a & b = ü 1500" {
		t.Errorf("%q", got)
	}
	if err := p.Push(t.Context(), "tok", true, strings.Repeat("ü", 600), 0); err != nil || !strings.HasSuffix(got[2], "... 0") || !strings.Contains(got[2], " up ") {
		t.Errorf("%q %v", got[2], err)
	}
}

func TestAPushThatFailsKeepsTheTokenToItself(t *testing.T) {
	srv := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		w.WriteHeader(404)
		w.Write([]byte(`{"ok":false,"msg":"Monitor not found or not active."}`))
	}))
	p := Pusher{URL: srv.URL, Wait: time.Millisecond}
	if err := p.Push(t.Context(), "topsecret", true, "", 0); err == nil || !strings.Contains(err.Error(), "homelab kuma sync") || strings.Contains(err.Error(), "topsecret") {
		t.Error(err)
	}
	srv.Close()
	if err := p.Push(t.Context(), "topsecret", true, "", 0); err == nil || strings.Contains(err.Error(), "topsecret") {
		t.Error(err)
	}
}
