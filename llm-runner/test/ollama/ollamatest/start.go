package ollamatest

import (
	"context"
	"testing"
	"time"
)

// Start gives a test its own Ollama, with the tiny models, until the test ends. It skips the test where no Ollama has
// been built.
func Start(t testing.TB) *Server {
	t.Helper()
	binary, err := Binary()
	if err != nil {
		t.Skip(err)
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
