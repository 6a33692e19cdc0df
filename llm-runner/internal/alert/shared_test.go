//go:build prove

package alert

import (
	"errors"
	"fmt"
	"strings"
	"testing"
	"time"

	"home.arpa/lab/llm-runner/internal/db"
	"home.arpa/lab/llm-runner/internal/fake/script"
	"home.arpa/lab/llm-runner/test/postgrestest"
)

// Two processes share a PostgreSQL: what both raise is one incident, and one of them tells it.
func TestProcessesOnPostgresTellOnce(t *testing.T) {
	url := postgrestest.Start(t).New()
	f, hook := discordAt(t, script.Script{})
	var both [2]*Service
	var d *db.DB
	for i := range both {
		var err error
		if d, err = db.OpenPostgres(t.Context(), url); err != nil {
			t.Fatal(err)
		}
		t.Cleanup(func() { d.Close() })
		c := config(hook)
		c.Shared = true
		both[i], _ = running(t, d, c)
	}
	for range 10 {
		for _, s := range both {
			s.Raise(Incident{Key: "down/davas", Provider: "davas", Text: "davas is down."})
		}
	}
	awaitLines(t, f, 1)
	for i := range 5 {
		for _, s := range both {
			tx(t, d, func(tx *transaction) error {
				return errors.Join(s.News(t.Context(), tx, fmt.Sprintf("Job %d is done.", i)), s.Holds(t.Context(), tx, "davas", int64(i)))
			})
		}
	}
	both[1].End("down/davas", "davas is back")
	deadline := time.After(20 * time.Second)
	for {
		all, err := List(t.Context(), d, 100)
		if err != nil {
			t.Fatal(err)
		}
		open := 0
		for _, a := range all {
			if a.Told != All {
				open++
			}
		}
		if len(all) == 11 && open == 0 {
			if last := all[len(all)-1]; last.Jobs != 5 {
				t.Errorf("%+v", last)
			}
			break
		}
		select {
		case <-deadline:
			t.Fatalf("%d alerts, %d not told: %+v", len(all), open, all)
		case <-time.After(quick):
		}
	}
	begins := 0
	for _, line := range awaitLines(t, f, 3) {
		if strings.HasPrefix(line, "davas is down. ") { // and where to read what to do
			begins++
		}
	}
	if begins != 1 {
		t.Errorf("told %d times that davas is down: %q", begins, awaitLines(t, f, 1))
	}
}
