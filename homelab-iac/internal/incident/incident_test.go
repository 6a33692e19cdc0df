package incident

import (
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"testing"
	"time"
)

func TestPeopleAreToldOnceWhenItBeginsAndOnceWhenItIsOver(t *testing.T) {
	path := filepath.Join(t.TempDir(), "state", "incidents.json")
	at := time.Date(2026, 1, 1, 3, 0, 0, 0, time.UTC)
	var sent []string
	var broken error
	step := func(after time.Duration, trouble string) string {
		t.Helper()
		b, err := Open(t.Context(), path) // every step is another process
		if err != nil {
			t.Fatal(err)
		}
		defer b.Close()
		b.Note("backup fast", trouble, at.Add(after))
		sent = nil
		err = b.Tell(context.Background(), func(_ context.Context, text string) error {
			if broken == nil {
				sent = append(sent, text)
			}
			return broken
		})
		if !errors.Is(err, broken) {
			t.Fatal(err)
		}
		return strings.Join(sent, "\n")
	}
	for i, c := range []struct {
		trouble string
		broken  bool
		want    string
	}{
		{"", false, ""},
		{"disk full", false, "🔴 backup fast: disk full"},
		{"disk full", false, ""},
		{"password wrong", false, ""},
		{"", true, ""},
		{"", false, "🟢 backup fast: is well again after 3h0m0s"}, // it was over at step 4
		{"", false, ""},
		{"gone", true, ""}, // Discord is away the whole time
		{"", true, ""},
		{"", false, "nobody could be told that it was not: gone"},
		{"", false, ""},
	} {
		broken = nil
		if c.broken {
			broken = errors.New("away")
		}
		if got := step(time.Duration(i)*time.Hour, c.trouble); c.want == "" && got != "" || !strings.Contains(got, c.want) {
			t.Errorf("step %d: %q, want %q", i, got, c.want)
		}
	}
	if err := os.WriteFile(path, []byte("{half"), 0o600); err != nil {
		t.Fatal(err)
	}
	if got := step(0, "again"); !strings.Contains(got, "again") {
		t.Errorf("after a broken file: %q", got)
	}
}

func TestWhatTwoNoteAtOnceIsToldByBoth(t *testing.T) {
	path := filepath.Join(t.TempDir(), "incidents.json")
	var wg sync.WaitGroup
	for n := range 16 {
		wg.Go(func() {
			b, err := Open(t.Context(), path)
			if err != nil {
				t.Error(err)
				return
			}
			defer b.Close()
			b.Note(fmt.Sprint("incident ", n), "broken", time.Now())
			if err := b.Tell(t.Context(), func(context.Context, string) error { return nil }); err != nil {
				t.Error(err)
			}
		})
	}
	wg.Wait()
	b, err := Open(t.Context(), path)
	if err != nil {
		t.Fatal(err)
	}
	defer b.Close()
	if len(b.open) != 16 {
		t.Errorf("%d of 16 incidents are remembered", len(b.open))
	}
}
