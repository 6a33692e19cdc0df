package discord

import (
	"context"
	"errors"
	"time"
)

// Deliver posts one message and tries again at the times that Discord names until it is kept, refused for good, or ctx ends; then the
// last error is returned. It is for programs that run once and do not stay.
func (w *Webhook) Deliver(ctx context.Context, text string) error {
	for {
		again, err := w.Send(ctx, text)
		var refused *RefusedError
		if err == nil || errors.As(err, &refused) {
			return err
		}
		t := time.NewTimer(max(again, 50*time.Millisecond))
		select {
		case <-t.C:
		case <-ctx.Done():
			t.Stop()
			return err
		}
	}
}
