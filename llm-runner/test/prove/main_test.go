//go:build prove

package prove

import (
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"testing"
)

// binary is the program under test.
var binary = os.Getenv("LLM_RUNNER_BIN")

func TestMain(m *testing.M) {
	code, err := buildAndRun(m)
	if err != nil {
		fmt.Fprintln(os.Stderr, "prove:", err)
		code = 1
	}
	os.Exit(code)
}

func buildAndRun(m *testing.M) (int, error) {
	if binary != "" {
		return m.Run(), nil
	}
	dir, err := os.MkdirTemp("", "prove-")
	if err != nil {
		return 0, err
	}
	defer os.RemoveAll(dir)
	binary = filepath.Join(dir, "llm-runner")
	build := exec.Command("go", "build", "-trimpath", "-ldflags=-s -w", "-o", binary, "home.arpa/lab/llm-runner") // as it is released
	build.Env = append(os.Environ(), "CGO_ENABLED=0")
	if out, err := build.CombinedOutput(); err != nil {
		return 0, fmt.Errorf("build llm-runner: %w\n%s", err, out)
	}
	return m.Run(), nil
}
