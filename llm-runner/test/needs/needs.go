// Package needs says what becomes of a test where something is missing that llm-runner/test/setup.sh installs.
package needs

import (
	"os"
	"testing"
)

// Missing skips the test; under `make prove`, which has installed everything, a test that is not run is one that failed.
func Missing(t testing.TB, why ...any) {
	t.Helper()
	if os.Getenv("LLM_RUNNER_PROVE") != "" {
		t.Fatal(why...)
	}
	t.Skip(why...)
}
