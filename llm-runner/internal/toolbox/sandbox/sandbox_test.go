package sandbox

import (
	"context"
	"errors"
	"os/exec"
	"strings"
	"testing"
	"time"

	"home.arpa/lab/llm-runner/test/needs"
)

// ready returns a sandbox; tests are skipped where there is none, except in make prove.
func ready(t testing.TB, c Config) *Sandbox {
	t.Helper()
	if _, err := exec.LookPath("bwrap"); err != nil {
		needs.Missing(t, "needs bubblewrap: run llm-runner/test/setup.sh once")
	}
	s := New(c)
	if why := s.Missing(); why != "" {
		needs.Missing(t, why)
	}
	return s
}

func run(t testing.TB, s *Sandbox, code string) Outcome {
	t.Helper()
	out, err := s.Run(t.Context(), code, s.c.Timeout)
	if err != nil {
		t.Fatal(err)
	}
	return out
}

func TestAProgramRunsAndSaysWhatItPrinted(t *testing.T) {
	s := ready(t, Config{})
	if out := run(t, s, "import statistics, sys\nprint(statistics.mean([1,2,6]), 'ä')\nprint('no', file=sys.stderr)"); out.Stdout != "3 ä\n" || out.Stderr != "no\n" || out.Code != 0 || out.Killed != "" {
		t.Errorf("got %+v", out)
	}
	if out := run(t, s, "x = 1/0"); out.Code != 1 || !strings.Contains(out.Stderr, `File "program.py", line 1`) || !strings.Contains(out.String(), "[exit status 1]") {
		t.Errorf("got %+v", out)
	}
	if out := run(t, s, "open('a','w').write('x'); print(open('a').read(), input())"); !strings.Contains(out.Stderr, "EOFError") {
		t.Errorf("got %+v", out)
	}
	if out := run(t, s, "import os; print(os.listdir('.'))"); out.Stdout != "[]\n" {
		t.Errorf("something was kept: %+v", out)
	}
}

func TestAProgramIsStoppedWithItsCaller(t *testing.T) {
	s := ready(t, Config{})
	ctx, cancel := context.WithTimeoutCause(t.Context(), 300*time.Millisecond, errors.New("the person stopped it"))
	defer cancel()
	if _, err := s.Run(ctx, "import time; time.sleep(60)", time.Minute); err == nil || !strings.Contains(err.Error(), "the person stopped it") {
		t.Errorf("got %v", err)
	}
}

func TestWithoutASandboxTheToolIsOff(t *testing.T) {
	t.Setenv("PATH", t.TempDir())
	if why := New(Config{}).Missing(); !strings.Contains(why, "apt-get install bubblewrap") || !strings.Contains(why, "container image") {
		t.Errorf("without bubblewrap it says %q", why)
	}
	if why := New(Config{Python: "/opt/python3"}).Missing(); why == "" {
		t.Error("it is on with a Python that the sandbox does not have")
	}
	if _, err := New(Config{}).Run(t.Context(), "print(1)", time.Second); err == nil {
		t.Error("it ran without a sandbox")
	}
}

func TestOutcomesAreTold(t *testing.T) {
	for want, o := range map[string]Outcome{
		"[it printed nothing]\n": {},
		"a\nstderr:\nb\n":        {Stdout: "a\n", Stderr: "b\n"},
		"[killed: too long]\n":   {Killed: "too long", Code: -1},
		"a\n[3 more bytes were printed and not kept]\n[exit status 2]\n": {Stdout: "a", Lost: 3, Code: 2},
	} {
		if got := o.String(); got != want {
			t.Errorf("%+v: %q", o, got)
		}
	}
}
