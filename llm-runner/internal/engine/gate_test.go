package engine

import (
	"context"
	"testing"
	"testing/synctest"
	"time"

	"github.com/jackc/pgx/v5"
)

func TestTheGateHoldsLooksBackUntilOneIsDueOrWorthIt(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		const every = 100 * time.Millisecond
		g := newGate(every)
		took := func(ctx context.Context, sql string) time.Duration {
			began := time.Now()
			g.TraceQueryStart(ctx, nil, pgx.TraceQueryStartData{SQL: sql, Args: []any{queueName}})
			return time.Since(began)
		}
		sql := "\n\t\t" + look + "(pk) AS (SELECT 1)"
		if d := took(t.Context(), sql); d != 0 {
			t.Errorf("the first look waits for %s", d)
		}
		if d := took(t.Context(), "SELECT 1"); d != 0 {
			t.Errorf("another query waits for %s", d)
		}
		time.Sleep(30 * time.Millisecond)
		if d := took(t.Context(), sql); d != 70*time.Millisecond {
			t.Errorf("a look at rest waits for %s", d)
		}
		time.AfterFunc(10*time.Millisecond, func() { g.wake("another") })
		time.AfterFunc(20*time.Millisecond, func() { g.wake(queueName) })
		if d := took(t.Context(), sql); d != 20*time.Millisecond {
			t.Errorf("a look that is woken waits for %s", d)
		}
		g.wake(queueName) // while nobody waits
		g.wake("")        // what may have been missed is of any queue
		if d := took(t.Context(), sql); d != 0 {
			t.Errorf("a look that was woken before waits for %s", d)
		}
		if d := took(t.Context(), sql); d != every {
			t.Errorf("woken twice for two tasks that one look finds: waits for %s", d)
		}
		ctx, cancel := context.WithTimeout(t.Context(), 10*time.Millisecond)
		defer cancel()
		if d := took(ctx, sql); d != 10*time.Millisecond {
			t.Errorf("when the engine closes, a look waits for %s", d)
		}
	})
}
