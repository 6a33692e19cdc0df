//go:build prove

package prove

import (
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"syscall"
	"testing"
	"time"
)

// A provider's limit is learned from its headers: the request that would exceed it is refused here, with the time to come
// back, and the provider never sees it.
func TestOfficialOpenAIClientMeetsALimit(t *testing.T) {
	groq := newFake(t, "groq", "limits:\n  - {dimension: requests/day, max: 1}\n")
	r := newRunner(t, fmt.Sprintf(`providers:
  groq: {kind: openai, url: "%s/openai/v1", key: "file:%s"}
routes:
  default: {provider: groq, model: tiny-chat}
`, groq.url, keyFile(t)))
	r.start()
	if g := r.client(t, "chat"); g.Text == "" || g.Finish != "stop" {
		t.Fatalf("within the limit: %+v", g)
	}
	g := r.client(t, "refused")
	if g.Status != 429 || g.Name != "RateLimitError" || g.Type != "rate_limit_exceeded" {
		t.Errorf("beyond the limit: %+v", g)
	}
	if s, err := strconv.Atoi(g.RetryAfter); err != nil || s < 1 || s > 24*60*60 {
		t.Errorf("Retry-After: %q", g.RetryAfter)
	}
	if n := groq.answered(); n != 1 {
		t.Errorf("the provider was asked %d times", n)
	}
}

func keyFile(t *testing.T) string {
	t.Helper()
	path := filepath.Join(t.TempDir(), "key")
	if err := os.WriteFile(path, []byte("any\n"), 0o600); err != nil {
		t.Fatal(err)
	}
	return path
}

// A fake is the program in the role of a provider.
type fake struct{ *runner }

func newFake(t *testing.T, kind, script string) fake {
	t.Helper()
	file := filepath.Join(t.TempDir(), "script.yaml")
	if err := os.WriteFile(file, []byte(script), 0o600); err != nil {
		t.Fatal(err)
	}
	url := nobody(t)
	p := exec.Command(binary, "fake", kind, "--listen", url[len("http://"):], "--script", file)
	p.SysProcAttr = &syscall.SysProcAttr{Pdeathsig: syscall.SIGKILL}
	if err := p.Start(); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		_ = p.Process.Kill() // it may have ended by itself
		_ = p.Wait()         // "signal: killed"
	})
	f := fake{&runner{t: t, url: url}}
	if err := poll(10*time.Second, 10*time.Millisecond, func() error { return f.get("/_fake/requests", nil) }); err != nil {
		t.Fatalf("no fake %s: %v", kind, err)
	}
	return f
}

// answered is how many questions have reached the provider.
func (f fake) answered() (n int) {
	f.t.Helper()
	var seen []struct{ Method string }
	if err := f.get("/_fake/requests", &seen); err != nil {
		f.t.Fatal(err)
	}
	for _, s := range seen {
		if s.Method == "POST" {
			n++
		}
	}
	return n
}
