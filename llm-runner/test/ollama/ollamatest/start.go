package ollamatest

import (
	"context"
	"testing"
	"time"

	"home.arpa/lab/llm-runner/test/needs"
)

// Start gives a test its own Ollama, with the tiny models, until the test ends. Where no Ollama has been built,
// the test is skipped (needs.Missing).
func Start(t testing.TB) *Server {
	t.Helper()
	binary, err := Binary()
	if err != nil {
		needs.Missing(t, err)
	}
	s, err := New(binary, t.TempDir(), "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithTimeout(context.Background(), time.Minute)
	defer cancel()
	if err := s.Up(ctx); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		s.Down()
		if t.Failed() {
			t.Logf("ollama's log ends:\n%s", s.LogTail())
		}
	})
	if err := s.CreateModels(ctx); err != nil {
		t.Fatal(err)
	}
	return s
}
