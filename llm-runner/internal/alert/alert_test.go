package alert

import (
	"context"
	"errors"
	"fmt"
	"net/http/httptest"
	"path/filepath"
	"regexp"
	"strings"
	"sync"
	"testing"
	"time"

	"home.arpa/lab/internal/discord"
	"home.arpa/lab/llm-runner/internal/db"
	"home.arpa/lab/llm-runner/internal/fake"
	"home.arpa/lab/llm-runner/internal/fake/script"
)

const quick = 20 * time.Millisecond

func opened(t *testing.T, path string) *db.DB {
	t.Helper()
	d, err := db.Open(t.Context(), path)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { d.Close() })
	return d
}

// sinksOf are those that there are.
func sinksOf(all ...Sink) (some []Sink) {
	for _, s := range all {
		if s != nil {
			some = append(some, s)
		}
	}
	return some
}

func config(sink Sink) Config {
	return Config{Sinks: sinksOf(sink), Gather: quick, Pause: quick, Look: quick, Linger: quick}
}

// running opens the alerts of a database and runs them until stop.
func running(t *testing.T, d *db.DB, c Config) (s *Service, stop func()) {
	t.Helper()
	s, err := Open(t.Context(), d, c)
	if err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithCancel(context.Background())
	done := make(chan struct{})
	go func() {
		defer close(done)
		s.Run(ctx) //nolint:errcheck // it returns nil
	}()
	stop = sync.OnceFunc(func() { cancel(); <-done })
	t.Cleanup(stop)
	return s, stop
}

// discordAt serves a fake Discord and returns its webhook.
func discordAt(t *testing.T, s script.Script) (*fake.Discord, *discord.Webhook) {
	t.Helper()
	d, err := fake.NewDiscord(s)
	if err != nil {
		t.Fatal(err)
	}
	srv := httptest.NewServer(d)
	t.Cleanup(srv.Close)
	return d, discord.New(srv.URL + "/api/webhooks/1/token-secret")
}

// awaitLines waits until Discord has n lines, and returns them.
func awaitLines(t *testing.T, d *fake.Discord, n int) []string {
	t.Helper()
	ctx, cancel := context.WithTimeout(t.Context(), 20*time.Second)
	defer cancel()
	var lines []string
	if !d.Await(ctx, func(all []fake.Message) bool {
		lines = nil
		for _, m := range all {
			lines = append(lines, strings.Split(m.Content, "\n")...)
		}
		return len(lines) >= n
	}) {
		t.Fatalf("Discord has %d lines, not %d: %q", len(lines), n, lines)
	}
	return lines
}

func tx(t *testing.T, d *db.DB, f func(tx *transaction) error) {
	t.Helper()
	if err := d.Tx(t.Context(), f); err != nil {
		t.Fatal(err)
	}
}

func TestAnIncidentIsToldOnceAndItsEndWithTheHeldJobs(t *testing.T) {
	f, hook := discordAt(t, script.Script{})
	d := opened(t, filepath.Join(t.TempDir(), db.Name))
	c := config(hook)
	c.Held = func(context.Context, string, int) (map[int64]time.Time, error) {
		return map[int64]time.Time{7: time.Now().Add(-time.Hour)}, nil // held before anybody knew why
	}
	s, _ := running(t, d, c)
	davas := Incident{Key: "down/davas", Provider: "davas", Text: "davas is down."}
	s.Raise(davas)
	s.Raise(davas)
	awaitLines(t, f, 1)
	s.Raise(davas)
	tx(t, d, func(tx *transaction) error {
		return errors.Join(s.Holds(t.Context(), tx, "davas", 8), s.Holds(t.Context(), tx, "davas", 8), s.Holds(t.Context(), tx, "other", 9))
	})
	s.End("down/davas", "davas is back")
	s.End("down/davas", "davas is back")
	lines := awaitLines(t, f, 2)
	if len(lines) != 2 || lines[0] != "davas is down. Runbook: docs/runbooks/machine-down.md" || !strings.HasPrefix(lines[1], "davas is back after ") ||
		!strings.HasSuffix(lines[1], "; 2 jobs were held for it, up to 1h0m.") {
		t.Errorf("told: %q", lines)
	}
}

func TestWhatIsOverInItsGraceIsNotTold(t *testing.T) {
	f, hook := discordAt(t, script.Script{})
	s, _ := running(t, opened(t, filepath.Join(t.TempDir(), db.Name)), config(hook))
	s.Raise(Incident{Key: "down/davas", Text: "davas is down.", Grace: time.Hour})
	if n := len(s.Open()); n != 0 {
		t.Errorf("%d incidents are shown", n)
	}
	s.End("down/davas", "davas is back")
	s.Raise(Incident{Key: "disk", Text: "The disk is full."})
	if lines := awaitLines(t, f, 1); lines[0] != "The disk is full. Runbook: docs/runbooks/database-cannot-be-written.md" || len(s.Open()) != 1 {
		t.Errorf("told: %q; open: %v", lines, s.Open())
	}
}

func TestWhatComesAndGoesIsToldOnce(t *testing.T) {
	f, hook := discordAt(t, script.Script{})
	d := opened(t, filepath.Join(t.TempDir(), db.Name))
	s, _ := running(t, d, config(hook))
	for range 3 {
		s.Raise(Incident{Key: "refused/groq", Text: "groq refuses its key."})
		awaitLines(t, f, 1)
		s.End("refused/groq", "groq takes requests again")
		awaitLines(t, f, 2)
	}
	s.Raise(Incident{Key: "disk", Text: "The disk is full."})
	if lines := awaitLines(t, f, 3); len(lines) != 3 {
		t.Errorf("told: %q", lines)
	}
}

func TestAnIncidentOfHeldJobsIsOverWhenNoneIsHeld(t *testing.T) {
	f, hook := discordAt(t, script.Script{})
	d := opened(t, filepath.Join(t.TempDir(), db.Name))
	var mu sync.Mutex
	held := map[int64]time.Time{1: time.Now(), 2: time.Now()}
	c := config(hook)
	c.Held = func(context.Context, string, int) (map[int64]time.Time, error) {
		mu.Lock()
		defer mu.Unlock()
		return held, nil
	}
	s, _ := running(t, d, c)
	for id := range int64(2) {
		tx(t, d, func(tx *transaction) error {
			return errors.Join(s.RaiseIn(t.Context(), tx, Incident{Key: "quota/groq/requests/day", Provider: "groq", WhileHeld: true, Text: "groq is used up.",
				Over: "groq takes jobs again"}), s.Holds(t.Context(), tx, "groq", id))
		})
	}
	awaitLines(t, f, 1)
	mu.Lock()
	held = nil
	mu.Unlock()
	over := regexp.MustCompile(`^groq takes jobs again after [0-9ms]+; 2 jobs were held`)
	if lines := awaitLines(t, f, 2); lines[0] != "groq is used up. Runbook: docs/runbooks/rate-limit.md" || !over.MatchString(lines[1]) {
		t.Errorf("told: %q", lines)
	}
}

// Whatever Discord does, each alert arrives, and none twice, also across a restart in the middle.
func TestAnOutageOfDiscordLosesNothing(t *testing.T) {
	path := filepath.Join(t.TempDir(), db.Name)
	down, away := discordAt(t, script.Script{Faults: []script.Fault{{Kind: "503"}}})
	d := opened(t, path)
	s, stop := running(t, d, config(away))
	s.Raise(Incident{Key: "down/davas", Text: "davas is down."})
	s.End("down/davas", "davas is back")
	s.Raise(Incident{Key: "down/contabo", Text: "contabo is down."})
	for i := range 3 {
		tx(t, d, func(tx *transaction) error { return s.News(t.Context(), tx, fmt.Sprintf("Job %d is done.", i)) })
	}
	for {
		if err := s.Faults()["Discord"].Err; err != nil {
			if strings.Contains(err.Error(), "secret") {
				t.Errorf("the fault tells the webhook: %v", err)
			}
			break
		}
		select {
		case <-t.Context().Done():
			t.Fatal("nothing was tried")
		case <-time.After(quick):
		}
	}
	stop()
	d.Close()
	f, hook := discordAt(t, script.Script{Faults: []script.Fault{{Kind: "429", On: []int{1}, Wait: quick}, {Kind: "reset_before_headers", On: []int{2}}}})
	d = opened(t, path)
	s, _ = running(t, d, config(hook))
	s.End("down/contabo", "contabo is back")
	lines := awaitLines(t, f, 5)
	all := strings.Join(lines, "\n")
	for _, want := range []string{"davas is down. It is over: davas is back after 0s.", "contabo is down. It is over: contabo is back after ",
		"Job 0 is done.", "Job 1 is done.", "Job 2 is done."} {
		if strings.Count(all, want) != 1 {
			t.Errorf("%q is told %d times: %q", want, strings.Count(all, want), all)
		}
	}
	if len(lines) != 5 || len(down.Messages()) != 0 {
		t.Errorf("told: %q", lines)
	}
}

func TestWhatWasToldBeforeARestartIsNotToldAgainAndItsEndIs(t *testing.T) {
	path := filepath.Join(t.TempDir(), db.Name)
	f, hook := discordAt(t, script.Script{})
	d := opened(t, path)
	s, stop := running(t, d, config(hook))
	s.Raise(Incident{Key: "down/davas", Text: "davas is down."})
	awaitLines(t, f, 1)
	stop()
	d.Close()
	s, _ = running(t, opened(t, path), config(hook))
	if len(s.Open()) != 1 {
		t.Error("the incident is forgotten")
	}
	s.Raise(Incident{Key: "down/davas", Text: "davas is down, seen again."})
	s.End("down/davas", "davas is back")
	if lines := awaitLines(t, f, 2); len(lines) != 2 || !strings.HasPrefix(lines[1], "davas is back after ") {
		t.Errorf("told: %q", lines)
	}
}

// While the database refuses, alerts are told from memory, once; what was told is written down afterwards.
func TestAFullDiskIsToldFromMemoryOnce(t *testing.T) {
	path := filepath.Join(t.TempDir(), db.Name)
	f, hook := discordAt(t, script.Script{})
	d := opened(t, path)
	s, stop := running(t, d, config(hook))
	s.Raise(Incident{Key: "down/davas", Text: "davas is down."})
	awaitLines(t, f, 1)
	if _, err := d.Writer().Exec("PRAGMA query_only = 1"); err != nil {
		t.Fatal(err)
	}
	s.Raise(Incident{Key: "disk", Text: "The disk is full."})
	awaitLines(t, f, 2)
	s.Raise(Incident{Key: "disk", Text: "The disk is full."})
	s.End("down/davas", "davas is back")
	if open := s.Open(); len(open) != 1 || open[0].Key != "disk" {
		t.Errorf("open: %+v", open)
	}
	if _, err := d.Writer().Exec("PRAGMA query_only = 0"); err != nil {
		t.Fatal(err)
	}
	s.End("disk", "the disk has room again")
	lines := awaitLines(t, f, 4)
	stop()
	all, err := List(t.Context(), d, 10)
	if err != nil || len(all) != 2 || all[0].Told != All || all[1].Told != All {
		t.Errorf("%+v, %v", all, err)
	}
	if len(lines) != 4 || strings.Count(strings.Join(lines, "\n"), "The disk is full.") != 1 {
		t.Errorf("told: %q", lines)
	}
}

func TestNoSecretIsKeptOrTold(t *testing.T) {
	f, hook := discordAt(t, script.Script{})
	d := opened(t, filepath.Join(t.TempDir(), db.Name))
	c := config(hook)
	c.Hide = []string{"sk-planted", "token-secret", ""}
	s, _ := running(t, d, c)
	tx(t, d, func(tx *transaction) error { return s.News(t.Context(), tx, "Job 1 failed: bad key sk-planted") })
	s.Raise(Incident{Key: "x", Text: "seen\nsk-planted at https://discord.com/api/webhooks/1/token-secret"})
	s.End("x", "sk-planted is gone")
	awaitLines(t, f, 2)
	all, err := List(t.Context(), d, 10)
	if err != nil || len(all) != 2 {
		t.Fatal(all, err)
	}
	for _, text := range []string{fmt.Sprint(all), fmt.Sprint(f.Messages())} {
		if strings.Contains(text, "planted") || strings.Contains(text, "token-secret") || !strings.Contains(text, "(hidden)") {
			t.Errorf("it says %s", text)
		}
	}
}

func TestAWebhookThatIsGoneKeepsWhatWaits(t *testing.T) {
	_, hook := discordAt(t, script.Script{Faults: []script.Fault{{Kind: "404"}}})
	d := opened(t, filepath.Join(t.TempDir(), db.Name))
	s, _ := running(t, d, config(hook))
	s.Raise(Incident{Key: "disk", Text: "The disk is full."})
	deadline := time.After(10 * time.Second)
	for {
		if f := s.Faults()["Discord"]; f.Err != nil && !f.Since.IsZero() {
			break
		}
		select {
		case <-deadline:
			t.Fatal("no fault is shown")
		case <-time.After(quick):
		}
	}
	if all, err := List(t.Context(), d, 10); err != nil || len(all) != 1 || all[0].Told != Untold {
		t.Errorf("%+v, %v", all, err)
	}
}

func TestOfTwoProcessesOnOneDatabaseOneTells(t *testing.T) {
	path := filepath.Join(t.TempDir(), db.Name)
	f, hook := discordAt(t, script.Script{})
	a, b := opened(t, path), opened(t, path)
	c := config(hook)
	c.Shared = true
	s, _ := running(t, a, c)
	running(t, b, c)
	for i := range 20 {
		tx(t, a, func(tx *transaction) error { return s.News(t.Context(), tx, fmt.Sprintf("Job %d is done.", i)) })
	}
	if lines := awaitLines(t, f, 20); len(lines) != 20 {
		t.Errorf("told: %q", lines)
	}
}

func TestANilServiceTakesEverything(t *testing.T) {
	var s *Service
	s.Raise(Incident{Key: "x"})
	s.End("x", "y")
	if err := errors.Join(s.News(t.Context(), nil, "x"), s.RaiseIn(t.Context(), nil, Incident{}), s.Holds(t.Context(), nil, "p", 1)); err != nil || s.Open() != nil {
		t.Error(err)
	}
}
