//go:build prove

package prove

import (
	"context"
	"testing"
	"time"
)

// A machine that dies is seen, and so is its return: within five seconds where nobody else wants this machine.
func TestHealthFollowsTheMachine(t *testing.T) {
	h := newHouse(t)
	h.waitStatus("contabo", "up")
	h.waitStatus("davas", "down")
	if got := h.health(); got.Status != "degraded" || got.Version == "" || got.Providers["davas"].Error == "" {
		t.Errorf("with davas off: %+v", got)
	}

	h.ollama.Down()
	down := h.waitStatus("contabo", "down")

	ctx, cancel := context.WithTimeout(context.Background(), time.Minute)
	defer cancel()
	if err := h.ollama.Up(ctx); err != nil {
		t.Fatal(err)
	}
	up := h.waitStatus("contabo", "up")
	t.Logf("down seen after %v, up after %v", down, up)

	if g := h.client(t, "chat"); g.Finish != "stop" {
		t.Errorf("afterwards: %+v", g)
	}
}
