package ntfy

import (
	"context"
	"errors"
	"time"
)

// Deliver publishes one message and tries again at the times that the server names until it is kept, refused for good, or ctx ends; then the
// last error is returned. It is for programs that run once and do not stay.
func (t *Topic) Deliver(ctx context.Context, text string) error {
	for {
		again, err := t.Send(ctx, text)
		var refused *RefusedError
		if err == nil || errors.As(err, &refused) {
			return err
		}
		wait := time.NewTimer(max(again, 50*time.Millisecond))
		select {
		case <-wait.C:
		case <-ctx.Done():
			wait.Stop()
			return err
		}
	}
}
