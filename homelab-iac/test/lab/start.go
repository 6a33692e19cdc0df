package lab

import (
	"context"
	"os"
	"testing"
	"time"
)

// Without is the environment variable that says, set to 1, that a machine is not meant to run labs: tests that need one
// are then skipped with these words. Without it they fail and say what is missing, so that nothing is skipped unseen.
const Without = "HOMELAB_WITHOUT_LAB"

// Start opens a lab for a test and closes it at the test's end.
func Start(t testing.TB, o Options) *Lab {
	t.Helper()
	if os.Getenv(Without) == "1" {
		t.Skip(Without + "=1: this machine is not meant to run labs")
	}
	if o.Log == nil {
		o.Log = func(text string) { t.Log(text) }
	}
	ctx, cancel := context.WithTimeout(t.Context(), 15*time.Minute)
	defer cancel()
	l, err := Open(ctx, o)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := l.Close(); err != nil {
			t.Error(err)
		}
	})
	return l
}
