//go:build prove

package kuma

import (
	"encoding/json"
	"fmt"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"

	"home.arpa/lab/internal/port"
)

const (
	testUser     = "admin"
	testPassword = "Str0ng-passw0rd!"
)

// start runs the real Uptime Kuma that homelab-iac/test/tools/setup.sh installed, with a user.
func start(t *testing.T) string {
	t.Helper()
	url, _ := startIn(t, t.TempDir())
	s, err := dial(t.Context(), url)
	if err != nil {
		t.Fatal(err)
	}
	defer s.close()
	if _, err := s.call(t.Context(), "setup", testUser, testPassword); err != nil {
		t.Fatal(err)
	}
	return url
}

// startIn runs it on a folder; stop ends it.
func startIn(t *testing.T, data string) (url string, stop func()) {
	t.Helper()
	cache, err := os.UserCacheDir()
	if err != nil {
		t.Fatal(err)
	}
	dir := filepath.Join(cache, "homelab", "kuma", "node_modules", "uptime-kuma")
	if _, err := os.Stat(filepath.Join(dir, "server", "server.js")); err != nil {
		t.Fatalf("Uptime Kuma is missing: run homelab-iac/test/tools/setup.sh: %v", err)
	}
	free, err := port.Free()
	if err != nil {
		t.Fatal(err)
	}
	cmd := exec.Command("node", "server/server.js")
	cmd.Dir = dir
	cmd.Env = append(os.Environ(), "DATA_DIR="+data+"/", "UPTIME_KUMA_HOST=127.0.0.1", fmt.Sprint("UPTIME_KUMA_PORT=", free), "UPTIME_KUMA_DB_TYPE=sqlite", "NODE_ENV=production")
	cmd.SysProcAttr = &syscall.SysProcAttr{Pdeathsig: syscall.SIGKILL}
	said, err := os.Create(filepath.Join(t.TempDir(), "kuma.log"))
	if err != nil {
		t.Fatal(err)
	}
	cmd.Stdout, cmd.Stderr = said, said
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	stop = sync.OnceFunc(func() { cmd.Process.Kill(); cmd.Wait() })
	t.Cleanup(stop)
	url = fmt.Sprintf("http://127.0.0.1:%d", free)
	for end := time.Now().Add(90 * time.Second); ; time.Sleep(200 * time.Millisecond) {
		if resp, err := http.Get(url + "/"); err == nil {
			resp.Body.Close()
			break
		}
		if time.Now().After(end) {
			text, _ := os.ReadFile(said.Name())
			t.Fatalf("kuma did not start in 90 s:\n%s", text)
		}
	}
	return url, stop
}

// TestSilenceIsNoticedAlthoughKumaRestarts shows why monitors have short intervals: after a start Kuma waits for one interval before it
// looks at a push monitor at all (server/model/monitor.js, "Delay Push Type"). The shortest that it takes is 20 seconds; ours is 15
// minutes, and one of a day would never be looked at where Kuma restarts every day.
func TestSilenceIsNoticedAlthoughKumaRestarts(t *testing.T) {
	t.Parallel()
	data := t.TempDir()
	url, stop := startIn(t, data)
	s, err := dial(t.Context(), url)
	if err != nil {
		t.Fatal(err)
	}
	_, err = s.call(t.Context(), "setup", testUser, testPassword)
	s.close()
	if err != nil {
		t.Fatal(err)
	}
	often, daily := Monitor{"fresh vault fast", Token([]byte("s"), "a"), 20 * time.Second}, Monitor{"by the day", Token([]byte("s"), "b"), 24 * time.Hour}
	if _, err := Sync(t.Context(), url, testUser, testPassword, []Monitor{often, daily}); err != nil {
		t.Fatal(err)
	}
	for _, m := range []Monitor{often, daily} {
		if err := (Pusher{URL: url}).Push(t.Context(), m.Token, true, "well", 0); err != nil {
			t.Fatal(err)
		}
	}
	stop()
	url, _ = startIn(t, data) // and nobody pushes any more
	if s, err = dial(t.Context(), url); err != nil {
		t.Fatal(err)
	}
	defer s.close()
	if _, err := s.call(t.Context(), "login", map[string]string{"username": testUser, "password": testPassword, "token": ""}); err != nil {
		t.Fatal(err)
	}
	var beat struct {
		Status int    `json:"status"`
		Msg    string `json:"msg"`
	}
	for range 3 { // 30 s each
		text, err := s.event(t.Context(), "heartbeat")
		if err != nil {
			continue
		}
		if err := json.Unmarshal(text, &beat); err != nil || beat.Status != 0 || !strings.Contains(beat.Msg, "No heartbeat") {
			t.Errorf("%s %v", text, err)
		}
		return
	}
	t.Error("a monitor of 20 seconds said nothing for a minute and a half of silence")
}

func TestMonitorsAreMadeOnceAndCorrectedInTheRealKuma(t *testing.T) {
	t.Parallel()
	url := start(t)
	want := []Monitor{{"fresh vault fast", Token([]byte("s"), "a"), Often}, {"backup fast on h", Token([]byte("s"), "b"), Rare}}
	sync := func(list []Monitor) Synced {
		t.Helper()
		done, err := Sync(t.Context(), url, testUser, testPassword, list)
		if err != nil {
			t.Fatal(err)
		}
		return done
	}
	if done := sync(want); len(done.Made) != 2 {
		t.Fatalf("%+v", done)
	}
	if done := sync(want); done.Same != 2 {
		t.Fatalf("the second time: %+v", done)
	}
	p := Pusher{URL: url}
	for _, m := range want {
		if err := p.Push(t.Context(), m.Token, true, "well & good", time.Second); err != nil {
			t.Error(err)
		}
	}
	if err := p.Push(t.Context(), want[0].Token, false, "3 of 4 safe", time.Second); err != nil {
		t.Error(err)
	}
	if err := p.Push(t.Context(), Token([]byte("s"), "c"), true, "", 0); err == nil || !strings.Contains(err.Error(), "homelab kuma sync") {
		t.Errorf("a token that nobody knows: %v", err)
	}
	want[0].Token = Token([]byte("other"), "a") // the secret was changed
	if done := sync(want); !slices.Equal(done.Corrected, []string{"fresh vault fast"}) || done.Same != 1 {
		t.Fatalf("after a new secret: %+v", done)
	}
	if err := p.Push(t.Context(), want[0].Token, true, "", 0); err != nil {
		t.Error(err)
	}
	if done := sync(want[:1]); !slices.Equal(done.Paused, []string{"backup fast on h"}) {
		t.Fatalf("after one went: %+v", done)
	}
	if done := sync(want); !slices.Equal(done.Corrected, []string{"backup fast on h"}) || done.Same != 1 {
		t.Fatalf("after it came back: %+v", done)
	}
	if done := sync(want); done.Same != 2 {
		t.Fatalf("in the end: %+v", done)
	}
	if _, err := Sync(t.Context(), url, testUser, "wrong", want); err == nil || !strings.Contains(err.Error(), "kuma.password") || strings.Contains(err.Error(), "wrong\"") {
		t.Errorf("a wrong password: %v", err)
	}
	if _, err := Sync(t.Context(), url+"/nowhere", testUser, testPassword, want); err == nil {
		t.Error("an address without Kuma was taken")
	}
}
