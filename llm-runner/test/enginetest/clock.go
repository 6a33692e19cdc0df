package enginetest

import (
	"context"
	"sync"
	"testing"
	"time"

	"home.arpa/lab/llm-runner/internal/db"
)

// A Clock is one that nobody sets, of a program that began days ago, beside the machine's, which a test sets.
type Clock struct {
	mu     sync.Mutex
	asked  bool
	zero   time.Time
	behind time.Duration
}

// Steady is for engine.Config.
func (c *Clock) Steady() time.Duration {
	c.mu.Lock()
	defer c.mu.Unlock()
	if !c.asked {
		c.asked, c.zero = true, time.Now()
		return 0
	}
	return 100*time.Hour + time.Since(c.zero) - c.behind
}

// Set sets the machine's clock forward, or (negative) back. A test cannot; but what was written before then says times that are as much
// earlier, or later, by the new clock: so they are made to, in these columns and in the engine's own.
func (c *Clock) Set(t testing.TB, d *db.DB, by time.Duration, columns map[string][]string) {
	t.Helper()
	columns["workflow_status"] = []string{"delay_until_epoch_ms"}
	c.mu.Lock()
	defer c.mu.Unlock()
	for table, names := range columns {
		for _, name := range names {
			if _, err := d.Writer().ExecContext(context.Background(), `UPDATE `+table+` SET `+name+` = `+name+` - ?`, by.Milliseconds()); err != nil { //nolint:gosec // the tests' own words
				t.Fatal(err)
			}
		}
	}
	c.behind += by
}
