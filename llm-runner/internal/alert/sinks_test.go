package alert

import (
	"context"
	"errors"
	"fmt"
	"net/http/httptest"
	"path/filepath"
	"strings"
	"sync"
	"testing"
	"time"

	"home.arpa/lab/internal/ntfy"
	"home.arpa/lab/internal/webhook"
	"home.arpa/lab/llm-runner/internal/db"
	"home.arpa/lab/llm-runner/internal/fake"
	"home.arpa/lab/llm-runner/internal/fake/script"
)

// ntfyAt serves a fake ntfy and returns a topic of it.
func ntfyAt(t *testing.T, s script.Script) (*fake.Ntfy, *ntfy.Topic) {
	t.Helper()
	f, err := fake.NewNtfy(s)
	if err != nil {
		t.Fatal(err)
	}
	srv := httptest.NewServer(f)
	t.Cleanup(srv.Close)
	t.Cleanup(srv.CloseClientConnections)
	return f, ntfy.New(ntfy.Config{URL: srv.URL, Topic: "house"})
}

// A gate is a sink that takes nothing until it is opened, and counts how often it was asked.
type gate struct {
	mu    sync.Mutex
	open  bool
	tries int
	texts []string
}

func (*gate) Name() string { return "gate" }
func (*gate) Max() int     { return 2000 }
func (g *gate) Send(_ context.Context, text string) (time.Duration, error) {
	g.mu.Lock()
	defer g.mu.Unlock()
	if g.tries++; !g.open {
		return quick, errors.New("it is shut")
	}
	g.texts = append(g.texts, text)
	return 0, nil
}

func (g *gate) lines() (all []string) {
	g.mu.Lock()
	defer g.mu.Unlock()
	for _, text := range g.texts {
		all = append(all, strings.Split(text, "\n")...)
	}
	return all
}

// await waits until something holds: the Service has no other way to tell.
func await(t *testing.T, what string, is func() bool) {
	t.Helper()
	deadline := time.After(20 * time.Second)
	for !is() {
		select {
		case <-deadline:
			t.Fatal("it never came to be: " + what)
		case <-time.After(quick):
		}
	}
}

func TestOneThatIsAwayDelaysNobodyAndNobodyIsToldTwice(t *testing.T) {
	f, hook := discordAt(t, script.Script{})
	n, phone := ntfyAt(t, script.Script{Faults: []script.Fault{{Kind: "429", On: []int{1}, Wait: time.Second}}})
	shut := &gate{}
	d := opened(t, filepath.Join(t.TempDir(), db.Name))
	c := config(nil)
	c.Sinks = []Sink{shut, hook, phone}
	s, stop := running(t, d, c)
	s.Raise(Incident{Key: "down/davas", Text: "davas is down."})
	awaitLines(t, f, 1)
	s.End("down/davas", "davas is back")
	awaitLines(t, f, 2)
	await(t, "ntfy has both", func() bool { return len(n.Messages()) >= 1 && s.Undelivered()["ntfy"] == 0 })
	await(t, "the gate was tried", func() bool { shut.mu.Lock(); defer shut.mu.Unlock(); return shut.tries > 1 })
	if s.Faults()["gate"].Err == nil || len(s.Faults()) != 1 {
		t.Errorf("%+v", s.Faults())
	}
	all, err := List(t.Context(), d, 10)
	if err != nil || len(all) != 1 || all[0].Told != Untold || fmt.Sprint(all[0].Missing) != "[gate]" || s.Undelivered()["gate"] != 1 || s.Undelivered()["Discord"] != 0 {
		t.Errorf("%+v, %v, %v", all, s.Undelivered(), err)
	}

	// Another process goes on: what each was told is on disk.
	stop()
	shut.open = true
	s, _ = running(t, d, c)
	await(t, "the gate has it", func() bool { return len(shut.lines()) > 0 })
	if lines := shut.lines(); len(lines) != 1 || !strings.Contains(lines[0], "It is over: davas is back after") {
		t.Errorf("the gate was told %q", lines)
	}
	await(t, "nothing is left", func() bool { return s.Undelivered()["gate"] == 0 })
	all, err = List(t.Context(), d, 10)
	if err != nil || all[0].Told != All || len(all[0].Missing) != 0 {
		t.Errorf("%+v, %v", all, err)
	}
	if lines := awaitLines(t, f, 2); len(lines) != 2 {
		t.Errorf("Discord was told %q", lines)
	}
	for _, m := range n.Messages() {
		if m.Topic != "house" || strings.Count(m.Content, "davas is down") > 1 {
			t.Errorf("ntfy was told %+v", m)
		}
	}
}

func TestOneThatIsNewIsNotToldWhatWasBeforeIt(t *testing.T) {
	f, hook := discordAt(t, script.Script{})
	d := opened(t, filepath.Join(t.TempDir(), db.Name))
	s, stop := running(t, d, config(hook))
	s.Raise(Incident{Key: "down/davas", Text: "davas is down."})
	awaitLines(t, f, 1)
	stop()
	late := &gate{open: true}
	c := config(hook)
	c.Sinks = append(c.Sinks, late)
	s, stop = running(t, d, c)
	s.Raise(Incident{Key: "disk", Text: "The disk is full."})
	s.End("down/davas", "davas is back")
	awaitLines(t, f, 3)
	await(t, "the new one is told", func() bool { return len(late.lines()) == 1 })
	if lines := late.lines(); !strings.HasPrefix(lines[0], "The disk is full.") {
		t.Errorf("told: %q", lines)
	}
	stop()

	// Who is not there any more holds up nothing.
	s, _ = running(t, d, config(hook))
	if got := s.Undelivered(); len(got) != 1 {
		t.Errorf("%v", got)
	}
	if names, err := sinks(t.Context(), d.Read()); err != nil || fmt.Sprint(names) != "[Discord]" {
		t.Errorf("%v, %v", names, err)
	}
}

func TestWhatAllHaveToldIsForgotten(t *testing.T) {
	d := opened(t, filepath.Join(t.TempDir(), db.Name))
	first, second := &gate{open: true}, &other{}
	c := config(nil)
	c.Sinks = []Sink{first, second}
	s, stop := running(t, d, c)
	tx(t, d, func(tx *transaction) error { return s.News(t.Context(), tx, "Job 1 is done.") })
	await(t, "one is told", func() bool { return len(first.lines()) == 1 && s.Undelivered()["gate"] == 0 })
	later := time.Now().Add(time.Hour)
	left := func() int {
		t.Helper()
		if err := forget(t.Context(), d, later, time.Now().Add(-time.Hour)); err != nil {
			t.Fatal(err)
		}
		all, err := List(t.Context(), d, 10)
		if err != nil {
			t.Fatal(err)
		}
		return len(all)
	}
	if left() != 1 {
		t.Error("it is forgotten before all have told it")
	}
	second.open()
	await(t, "the other one is told", func() bool { return s.Undelivered()["other"] == 0 && second.told() })
	stop()
	if left() != 0 {
		t.Error("it is not forgotten")
	}
}

// other is a gate by another name.
type other struct{ gate }

func (*other) Name() string { return "other" }
func (o *other) open()      { o.mu.Lock(); defer o.mu.Unlock(); o.gate.open = true }
func (o *other) told() bool { return len(o.lines()) > 0 }

func TestASignedPostIsKeptOnceThoughItsAnswerIsLost(t *testing.T) {
	f, err := fake.NewWebhook(script.Script{Key: "whsec_c2VjcmV0LXBsYW50ZWQ=", Faults: []script.Fault{{Kind: script.ResetAfterFinish, On: []int{1}}}})
	if err != nil {
		t.Fatal(err)
	}
	srv := httptest.NewServer(f)
	t.Cleanup(srv.Close)
	hook := webhook.New(webhook.Config{URL: srv.URL + "/in", Secret: "whsec_c2VjcmV0LXBsYW50ZWQ=", Source: "llm-runner"})
	again, err := hook.Send(t.Context(), "davas is down.")
	if again == 0 || err == nil {
		t.Fatal(again, err)
	}
	if _, err := hook.Send(t.Context(), "davas is down."); err != nil {
		t.Fatal(err)
	}
	if all := f.Messages(); len(all) != 1 || all[0].Content != "davas is down." || all[0].Key == "" {
		t.Errorf("%+v", all)
	}
	wrong := webhook.New(webhook.Config{URL: srv.URL, Secret: "else"})
	var gone interface{ Gone() bool }
	if again, err := wrong.Send(t.Context(), "x"); again != 0 || !errors.As(err, &gone) || !gone.Gone() {
		t.Errorf("%v, %v", again, err)
	}
}

// What happens twice is told twice, in the same words: its receiver takes neither for the other's repetition.
func TestASecondIncidentInTheSameWordsIsAnotherMessage(t *testing.T) {
	f, err := fake.NewWebhook(script.Script{})
	if err != nil {
		t.Fatal(err)
	}
	srv := httptest.NewServer(f)
	t.Cleanup(srv.Close)
	hook := webhook.New(webhook.Config{URL: srv.URL, Source: "llm-runner"})
	began := time.Now()
	first, second := Alert{Key: "down davas", Text: "davas is down.", Began: began}, Alert{Key: "down davas", Text: "davas is down.", Began: began.Add(time.Hour)}
	over := first
	over.Ended, over.Told = began.Add(time.Minute), Beginning
	for _, a := range []Alert{first, over, first, second, second} {
		if _, err := Pass(t.Context(), hook, known([]Alert{a}), "davas is down."); err != nil {
			t.Fatal(err)
		}
	}
	if all := f.Messages(); len(all) != 3 {
		t.Errorf("%+v", all)
	}
}

// A busy sink does something while its first message is on its way.
type busy struct {
	gate
	first sync.Once
	then  func()
}

func (b *busy) Send(ctx context.Context, text string) (time.Duration, error) {
	b.first.Do(b.then)
	return b.gate.Send(ctx, text)
}

func TestWhatComesAgainWhileItsMessageIsOnItsWayIsNotToldAgain(t *testing.T) {
	b := &busy{gate: gate{open: true}}
	d := opened(t, filepath.Join(t.TempDir(), db.Name))
	s, _ := running(t, d, config(b))
	b.then = func() {
		s.End("refused/groq", "groq takes requests again")
		s.Raise(Incident{Key: "refused/groq", Text: "groq refuses its key."})
		await(t, "the second one is written down", func() bool {
			var n int
			return d.Read().QueryRow(`SELECT count(*) FROM alerts`).Scan(&n) == nil && n == 2
		})
		s.End("refused/groq", "groq takes requests again")
	}
	s.Raise(Incident{Key: "refused/groq", Text: "groq refuses its key."})
	await(t, "the end of the first one is told", func() bool { return len(b.lines()) >= 2 })
	s.Raise(Incident{Key: "disk", Text: "The disk is full."})
	await(t, "the disk is told", func() bool { return strings.Contains(strings.Join(b.lines(), "\n"), "The disk is full.") })
	if lines := b.lines(); len(lines) != 3 {
		t.Errorf("told: %q", lines)
	}
}
