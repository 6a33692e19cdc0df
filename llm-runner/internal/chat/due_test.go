package chat

import (
	"context"
	"errors"
	"path/filepath"
	"testing"
	"time"

	"home.arpa/lab/llm-runner/internal/db"
	"home.arpa/lab/llm-runner/internal/engine"
	"home.arpa/lab/llm-runner/internal/llm"
	"home.arpa/lab/llm-runner/internal/toolbox/loop"
	"home.arpa/lab/llm-runner/test/enginetest"
)

// durable opens a service whose turns go on by themselves.
func durable(t *testing.T, path string) (*Service, *puppet, *db.DB, func()) {
	t.Helper()
	return openWith(t, path, func(d *db.DB) *engine.Engine {
		return enginetest.On(t, d, engine.Config{Poll: 10 * time.Millisecond, Log: quiet()})
	})
}

// next is the next question that reaches the provider.
func (p *puppet) next(t *testing.T) *play {
	t.Helper()
	select {
	case x := <-p.asked:
		return x
	case <-time.After(60 * time.Second):
		t.Fatal("nobody was asked")
		return nil
	}
}

// A watcher reads a turn to its end.
type watcher struct {
	states chan State // each once
	ended  chan string
}

func watch(t *testing.T, s *Service, turn int64) *watcher {
	w := &watcher{make(chan State, 100), make(chan string, 1)}
	go func() {
		var text string
		var last State
		for batch, err := range s.Events(t.Context(), turn, 0) {
			if err != nil {
				w.ended <- err.Error()
				return
			}
			for _, ev := range batch {
				if ev.Whole {
					text = ""
				}
				text += ev.Text
				if ev.Turn != nil && ev.Turn.State != last {
					last = ev.Turn.State
					w.states <- last
				}
			}
		}
		w.ended <- text
	}()
	return w
}

func (w *watcher) until(t *testing.T, want State) {
	t.Helper()
	for {
		select {
		case got := <-w.states:
			if got == want {
				return
			}
		case <-time.After(60 * time.Second):
			t.Fatalf("the reader was not told of %s", want)
		}
	}
}

func (w *watcher) end(t *testing.T, want string) {
	t.Helper()
	select {
	case text := <-w.ended:
		if text != want {
			t.Errorf("the reader has %q, not %q", text, want)
		}
	case <-time.After(60 * time.Second):
		t.Fatal("the reader was not told of the end")
	}
}

func TestAHeldTurnGoesOnWhenThereIsRoom(t *testing.T) {
	s, p, _, _ := durable(t, filepath.Join(t.TempDir(), db.Name))
	turn := send(t, s, 0, 0, "q")
	one, two := watch(t, s, turn.ID), watch(t, s, turn.ID)
	opens := time.Now().Add(5 * time.Second)
	p.next(t).say <- error(&llm.BusyError{Provider: "groq", Model: "m", Reason: "used up", Until: opens})
	one.until(t, Held)
	two.until(t, Held)
	x := p.next(t)
	if early := time.Until(opens); early > 10*time.Millisecond {
		t.Errorf("asked %s too early", early)
	}
	x.text("yes")
	x.done()
	one.end(t, "yes")
	two.end(t, "yes")
	if end, err := s.Turn(t.Context(), turn.ID); err != nil || end.State != Finished || end.Due {
		t.Errorf("%+v, %v", end, err)
	}
	if len(p.asked) != 0 {
		t.Error("it was asked twice")
	}
}

func TestAHeldTurnGoesOnWhenItsMachineIsBack(t *testing.T) {
	s, p, _, _ := durable(t, filepath.Join(t.TempDir(), db.Name))
	held := func(text, provider string) (Turn, *watcher) {
		turn := send(t, s, 0, 0, text)
		w := watch(t, s, turn.ID)
		p.next(t).say <- error(&llm.BusyError{Provider: provider, Reason: provider + " is down"})
		w.until(t, Held)
		return turn, w
	}
	_, w := held("for davas", "davas")
	other, _ := held("for another one", "groq")
	if err := s.Back(t.Context(), "davas"); err != nil {
		t.Fatal(err)
	}
	x := p.next(t)
	if sent(x) != "u:for davas" {
		t.Errorf("asked %q", sent(x))
	}
	x.say <- error(&llm.BusyError{Provider: "davas", Reason: "davas is down"}) // and gone again
	w.until(t, Held)
	if err := s.Back(t.Context(), "davas"); err != nil {
		t.Fatal(err)
	}
	x = p.next(t)
	x.text("back")
	x.done()
	w.end(t, "back")
	if still, err := s.Turn(t.Context(), other.ID); err != nil || still.State != Held || !still.Due || len(p.asked) != 0 {
		t.Errorf("%+v, %v, %d asked", still, err, len(p.asked))
	}
	turn := send(t, s, 0, 0, "for davas, or until groq has room") // as its fallback
	w = watch(t, s, turn.ID)
	p.next(t).say <- error(&llm.BusyError{Provider: "groq", Reason: "used up", Until: time.Now().Add(time.Hour)})
	w.until(t, Held)
	s.config.Lane = func(llm.Request) string { return "davas" }
	if err := s.Back(t.Context(), "davas"); err != nil {
		t.Fatal(err)
	}
	x = p.next(t)
	x.text("back")
	x.done()
	w.end(t, "back")
}

// Between the end of a held turn on disk and the moment in which its process has let go of it, it may be asked again.
func TestAReaderIsNotLeftBehindByATurnThatIsAskedAgainAtOnce(t *testing.T) {
	s, p, d, _ := durable(t, filepath.Join(t.TempDir(), db.Name))
	turn := send(t, s, 0, 0, "q")
	w := watch(t, s, turn.ID)
	x := p.next(t)
	w.until(t, Waiting)
	for round := range 100 {
		x.say <- error(&llm.BusyError{Provider: "davas", Reason: "davas is down"})
		on, err := Turn{State: Waiting}, error(nil)
		for end := time.Now().Add(20 * time.Second); err == nil && on.State != Held && time.Now().Before(end); {
			on, err = oneTurn(t.Context(), d.Read(), turn.ID)
		}
		if err != nil {
			t.Fatal(err)
		}
		if _, err := s.resume(t.Context(), turn.ID, on.Seq); err != nil {
			t.Fatalf("round %d: %v", round, err)
		}
		x = p.next(t)
		if s.running(turn.ID) == nil {
			t.Fatalf("round %d: nobody knows that the turn runs", round)
		}
		w.until(t, Waiting)
	}
	x.text("yes")
	x.done()
	w.end(t, "yes")
}

func TestHowLongATurnWaitsWhoseHoldNobodyKnowsTheEndOf(t *testing.T) {
	now := time.Now()
	for holds, want := range map[int]time.Duration{1: time.Minute, 2: 2 * time.Minute, 4: 8 * time.Minute, 5: 15 * time.Minute, 500: 15 * time.Minute} {
		turn := Turn{State: Held, Ended: now, Holds: holds}
		if got := turn.at(now).Sub(now); got != want {
			t.Errorf("after %d holds it waits %s, not %s", holds, got, want)
		}
	}
}

func TestAHeldTurnThatAPersonStopsIsNotAsked(t *testing.T) {
	s, p, _, _ := durable(t, filepath.Join(t.TempDir(), db.Name))
	turn := send(t, s, 0, 0, "q")
	w := watch(t, s, turn.ID)
	p.next(t).say <- error(&llm.BusyError{Provider: "davas", Reason: "davas is down"})
	w.until(t, Held)
	before, err := s.Turn(t.Context(), turn.ID)
	if err != nil {
		t.Fatal(err)
	}
	if err := s.Stop(t.Context(), turn.ID); err != nil {
		t.Fatal(err)
	}
	w.until(t, Stopped)
	w.end(t, "")
	// The call that the engine had for it, and a machine that is back, do nothing.
	if err := s.config.Engine.Wake(before.taskID(), time.Now()); err != nil {
		t.Fatal(err)
	}
	if _, err := s.resume(t.Context(), turn.ID, before.Seq); !errors.Is(err, errStale) {
		t.Errorf("asked again: %v", err)
	}
	if err := s.Back(t.Context(), "davas"); err != nil {
		t.Fatal(err)
	}
	if end, err := s.Turn(t.Context(), turn.ID); err != nil || end.State != Stopped || end.Due || len(p.asked) != 0 {
		t.Errorf("%+v, %v, %d asked", end, err, len(p.asked))
	}
}

func TestATurnThatAPersonAsksAgainIsNotAskedOnceMore(t *testing.T) {
	s, p, _, _ := durable(t, filepath.Join(t.TempDir(), db.Name))
	turn := send(t, s, 0, 0, "q")
	w := watch(t, s, turn.ID)
	p.next(t).say <- error(&llm.BusyError{Provider: "davas", Reason: "davas is down"})
	w.until(t, Held)
	held, err := s.Turn(t.Context(), turn.ID)
	if err != nil {
		t.Fatal(err)
	}
	if _, err := s.Again(t.Context(), turn.ID); err != nil {
		t.Fatal(err)
	}
	if err := s.call(t.Context(), "1/1"); err != nil { // of a place that is long gone
		t.Error(err)
	}
	if _, err := s.resume(t.Context(), turn.ID, held.Seq); !errors.Is(err, ErrRunning) {
		t.Errorf("asked once more: %v", err)
	}
	x := p.next(t)
	x.text("yes")
	x.done()
	w.end(t, "yes")
	if len(p.asked) != 0 {
		t.Error("it was asked twice")
	}
}

// dies returns a copy of the database as a process leaves it that dies now.
func dies(t *testing.T, d *db.DB) string {
	t.Helper()
	path := filepath.Join(t.TempDir(), db.Name)
	if _, err := d.Writer().Exec("VACUUM INTO ?", path); err != nil {
		t.Fatal(err)
	}
	return path
}

// begun plays the first words of an answer and waits until they are on disk.
func begun(t *testing.T, s *Service, x *play, turn int64, text string) {
	t.Helper()
	x.text(text)
	for batch, err := range s.Events(t.Context(), turn, 0) {
		if err != nil {
			t.Fatal(err)
		}
		if n := len(batch); n > 0 && batch[n-1].Text != "" {
			break
		}
	}
	if err := s.save(s.running(turn)); err != nil {
		t.Fatal(err)
	}
}

func TestATurnOfADeadProcessIsAskedAgainThreeTimes(t *testing.T) {
	for _, tt := range []struct{ name, came string }{{"beside what had come", "part"}, {"in its place", ""}} {
		t.Run(tt.name, func(t *testing.T) {
			s, p, d, _ := durable(t, filepath.Join(t.TempDir(), db.Name))
			turn := send(t, s, 0, 0, "q")
			current := turn.ID
			for life := range 4 {
				x := p.next(t)
				if sent(x) != "u:q" {
					t.Errorf("life %d asked %q", life, sent(x))
				}
				c, err := s.Chat(t.Context(), turn.Chat)
				if err != nil || tt.came != "" && life > 0 && c.Leaf == current {
					t.Fatalf("life %d shows turn %d: %v", life, c.Leaf, err)
				}
				current = c.Leaf
				if tt.came != "" {
					begun(t, s, x, current, tt.came)
				}
				s, p, d, _ = durable(t, dies(t, d))
			}
			_, end, _ := follow(t, s, current, 0)
			if end.State != Interrupted || end.Due || end.Resumes != mostResumes {
				t.Errorf("%+v", end)
			}
			all, err := s.Tree(t.Context(), turn.Chat)
			if want := map[string]int{"part": 5, "": 2}[tt.came]; err != nil || len(all) != want {
				t.Errorf("%d messages, not %d, %v", len(all), want, err)
			}
			for _, m := range all[1:] {
				if m.Text != tt.came || m.Turn.State != Interrupted || m.Turn.Due {
					t.Errorf("%+v %+v", m, m.Turn)
				}
			}
			if _, err := s.Again(t.Context(), current); err != nil { // a person may
				t.Fatal(err)
			}
			x := p.next(t)
			x.text("all of it")
			x.done()
			c, err := s.Chat(t.Context(), turn.Chat)
			if err != nil {
				t.Fatal(err)
			}
			if text, end, _ := follow(t, s, c.Leaf, 0); text != "all of it" || end.State != Finished {
				t.Errorf("%q %s", text, end.State)
			}
		})
	}
}

func TestAnAnswerThatAStopInterruptedIsAskedAgainAtTheNextStart(t *testing.T) {
	path := filepath.Join(t.TempDir(), db.Name)
	s, p, _, stop := durable(t, path)
	other := answered(t, s, p, 0, 0, "other", "x")
	turn := send(t, s, 0, 0, "q")
	begun(t, s, p.next(t), turn.ID, "part")
	stop()
	next, p, _, _ := durable(t, path)
	x := p.next(t)
	w := watch(t, next, turn.ID)
	w.end(t, "part") // and a reader of it is told that it is over
	x.text("whole")
	x.done()
	c, err := next.Chat(t.Context(), turn.Chat)
	if err != nil || c.Leaf == turn.ID {
		t.Fatal(c, err)
	}
	if text, end, _ := follow(t, next, c.Leaf, 0); text != "whole" || end.State != Finished {
		t.Errorf("%q %s", text, end.State)
	}
	if got := shown(t, next, turn.Chat); got != "q whole(2/2)" {
		t.Errorf("shown %q", got)
	}
	if m, err := next.Message(t.Context(), other.ID); err != nil || m.Text != "x" || len(p.asked) != 0 {
		t.Errorf("%+v, %v, %d asked", m, err, len(p.asked))
	}
}

func TestWhatAPersonLooksAtStaysWhenAnotherBranchIsAskedAgain(t *testing.T) {
	path := filepath.Join(t.TempDir(), db.Name)
	s, p, _, stop := durable(t, path)
	first := answered(t, s, p, 0, 0, "q", "a")
	second, err := s.Regenerate(t.Context(), first.ID, Options{})
	if err != nil {
		t.Fatal(err)
	}
	begun(t, s, p.next(t), second.ID, "part")
	if _, err := s.Select(t.Context(), first.ID); err != nil {
		t.Fatal(err)
	}
	stop()
	s, p, _, _ = durable(t, path)
	x := p.next(t)
	x.text("b")
	x.done()
	if got := shown(t, s, first.Chat); got != "q a(1/3)" {
		t.Errorf("shown %q", got)
	}
}

func TestATurnThatWasHeldInMemoryGoesOnOnceItIsOnDisk(t *testing.T) {
	s, p, d, _ := durable(t, filepath.Join(t.TempDir(), db.Name))
	watching, cancel := context.WithCancel(t.Context())
	defer cancel()
	go d.Watch(watching, func(*db.Trouble) {}) //nolint:errcheck // it returns ctx's error
	refuse(t, d, true)
	turn := send(t, s, 0, 0, "q")
	w := watch(t, s, turn.ID)
	p.next(t).say <- error(&llm.BusyError{Provider: "groq", Reason: "used up", Until: time.Now().Add(50 * time.Millisecond)})
	w.until(t, Held)
	refuse(t, d, false)
	x := p.next(t)
	x.text("yes")
	x.done()
	w.end(t, "yes")
	back(t, s)
	if m, err := s.Message(t.Context(), turn.ID); err != nil || m.Text != "yes" || m.Turn.State != Finished || len(p.asked) != 0 {
		t.Errorf("%+v, %v, %d asked", m, err, len(p.asked))
	}
}

func TestADeletedConversationIsNotAskedAgain(t *testing.T) {
	s, p, _, _ := durable(t, filepath.Join(t.TempDir(), db.Name))
	turn := send(t, s, 0, 0, "q")
	w := watch(t, s, turn.ID)
	p.next(t).say <- error(&llm.BusyError{Provider: "davas", Reason: "davas is down"})
	w.until(t, Held)
	held, err := s.Turn(t.Context(), turn.ID)
	if err != nil {
		t.Fatal(err)
	}
	if err := s.Delete(t.Context(), turn.Chat); err != nil {
		t.Fatal(err)
	}
	w.end(t, ErrNotFound.Error())
	if _, err := s.resume(t.Context(), turn.ID, held.Seq); !errors.Is(err, ErrNotFound) {
		t.Error(err)
	}
}

// Who waits for a limit is told of, with the limit, and is found again as long as it waits.
func TestWhatATurnIsHeldForIsTold(t *testing.T) {
	s, p, _, _ := durable(t, filepath.Join(t.TempDir(), db.Name))
	told := make(chan *llm.BusyError, 10)
	s.config.Busy = func(b *llm.BusyError) { told <- b }
	w := watch(t, s, send(t, s, 0, 0, "q").ID)
	p.next(t).say <- error(&llm.BusyError{Provider: "groq", Kind: llm.Quota, Dimension: llm.RequestsPerDay, Reason: "used up", Until: time.Now().Add(time.Hour)})
	w.until(t, Held)
	if b := <-told; b.Provider != "groq" || b.Dimension != llm.RequestsPerDay {
		t.Errorf("%+v", b)
	}
	for provider, want := range map[string]bool{"groq": true, "davas": false} {
		if waits, err := s.Waits(t.Context(), provider); err != nil || waits != want {
			t.Errorf("%s: %t, %v", provider, waits, err)
		}
	}
	if err := s.Back(t.Context(), "groq"); err != nil {
		t.Fatal(err)
	}
	x := p.next(t)
	x.text("now")
	x.done()
	w.end(t, "now")
	if waits, err := s.Waits(t.Context(), "groq"); err != nil || waits {
		t.Errorf("%t, %v", waits, err)
	}
}

// A person can decide before the turn is held that waits for it: then nobody is there to be woken, and it looks for the decision itself.
func TestADecisionThatCameBeforeTheHoldIsFound(t *testing.T) {
	s, p, _, _ := durable(t, filepath.Join(t.TempDir(), db.Name))
	asked := make(chan string, 9)
	s.config.Asks = func(_ context.Context, run string) (bool, error) {
		asked <- run
		return false, nil
	}
	turn := send(t, s, 0, 0, "q")
	w := watch(t, s, turn.ID)
	began := time.Now()
	p.next(t).say <- error(&llm.BusyError{Provider: loop.Approval, Kind: llm.Unavailable, Reason: "it waits for your word on note"})
	w.until(t, Held)
	x := p.next(t)
	if took := time.Since(began); took > 30*time.Second || len(asked) != 1 || <-asked != turn.RunName() {
		t.Errorf("it went on after %s", took)
	}
	x.text("yes")
	x.done()
	w.end(t, "yes")
}
