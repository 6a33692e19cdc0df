package chat

import (
	"context"
	"errors"
	"path/filepath"
	"strings"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"home.arpa/lab/llm-runner/internal/db"
	"home.arpa/lab/llm-runner/internal/llm"
)

func TestADeadProcessLosesNothingThatWasFlushed(t *testing.T) {
	path := filepath.Join(t.TempDir(), db.Name)
	s, p, d, _ := openAt(t, path)
	turn := send(t, s, 0, 0, "q")
	x := <-p.asked
	x.say <- llm.Event{Route: &llm.Route{Provider: "davas", Model: "m"}, Text: "one ", Thinking: "hm"}
	x.text("two ")
	var seen int64
	for batch, err := range s.Events(t.Context(), turn.ID, 0) {
		if err != nil {
			t.Fatal(err)
		}
		seen = batch[len(batch)-1].Seq
		if m, _ := s.Message(t.Context(), turn.ID); m.Text == "one two " {
			break
		}
	}
	if err := s.save(s.running(turn.ID)); err != nil { // as the next flush would
		t.Fatal(err)
	}
	x.text("lost") // after the last flush that the disk saw

	// The process is gone: nothing of it runs on, and the next one opens a copy of what the disk has.
	copied := filepath.Join(t.TempDir(), db.Name)
	if _, err := d.Writer().Exec("VACUUM INTO ?", copied); err != nil {
		t.Fatal(err)
	}
	next, p2, _, _ := openAt(t, copied)
	text, end, seqs := follow(t, next, turn.ID, seen)
	if end.State != Interrupted || !strings.HasPrefix(text, "one two ") || end.Thinking != "hm" || end.Route.Provider != "davas" || end.Error == "" {
		t.Errorf("%s %q %+v", end.State, text, end)
	}
	if seqs[0] <= seen {
		t.Errorf("the log goes on at %d, a reader had seen %d", seqs[0], seen)
	}
	if all, err := next.Chats(t.Context(), "two", 5); err != nil || len(all) != 1 {
		t.Errorf("what was kept is found: %v, %v", all, err)
	}
	again, err := next.Again(t.Context(), turn.ID)
	if err != nil || again.ID == turn.ID {
		t.Fatal(again, err)
	}
	y := <-p2.asked
	y.text("all of it")
	y.done()
	if text, end, _ := follow(t, next, again.ID, 0); text != "all of it" || end.State != Finished {
		t.Errorf("%q %s", text, end.State)
	}
}

func TestStoppingKeepsWhatCame(t *testing.T) {
	path := filepath.Join(t.TempDir(), db.Name)
	s, p, _, stop := openAt(t, path)
	turn := send(t, s, 0, 0, "q")
	x := <-p.asked
	x.text("so far")
	told, reading := make(chan Turn, 1), make(chan struct{})
	go func() {
		var last Turn
		begin := sync.OnceFunc(func() { close(reading) })
		for batch, err := range s.Events(context.Background(), turn.ID, 0) {
			begin()
			for _, ev := range batch {
				if err == nil && ev.Turn != nil {
					last = *ev.Turn
				}
			}
		}
		told <- last
	}()
	<-reading
	stop()
	if end := <-told; end.State != Interrupted {
		t.Errorf("the reader was told %s", end.State)
	}
	if _, err := s.Send(context.Background(), 0, 0, "q", Options{}); !errors.Is(err, ErrClosed) {
		t.Errorf("a stopped service took a question: %v", err)
	}
	next, _, _, _ := openAt(t, path)
	if text, end, _ := follow(t, next, turn.ID, 0); text != "so far" || end.State != Interrupted || end.Error != errRestart.Error() {
		t.Errorf("%q %s %q", text, end.State, end.Error)
	}
}

func TestRunningTurnsHaveAMomentToFinish(t *testing.T) {
	path := filepath.Join(t.TempDir(), db.Name)
	d, err := db.Open(t.Context(), path)
	if err != nil {
		t.Fatal(err)
	}
	defer d.Close()
	p := newPuppet()
	s, err := New(t.Context(), d, p, Config{Grace: time.Hour, Log: quiet()})
	if err != nil {
		t.Fatal(err)
	}
	turn := send(t, s, 0, 0, "q")
	x := <-p.asked
	ctx, cancel := context.WithCancel(t.Context())
	done := make(chan struct{})
	go func() {
		s.Run(ctx) //nolint:errcheck // it has no errors
		close(done)
	}()
	cancel()
	x.text("just in time")
	x.done()
	<-done
	if end, err := s.Turn(t.Context(), turn.ID); err != nil || end.State != Finished {
		t.Errorf("%s, %v", end.State, err)
	}
}

func TestASilentTurnTellsItsReaderThatTheLineIsOpen(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		s := &Service{live: map[int64]*live{}}
		l := &live{id: 1, turn: Turn{State: Waiting}}
		l.append(Event{Whole: true}, func(*Turn) {})
		s.live[1] = l
		began, empty := time.Now(), 0
		for batch, err := range s.Events(t.Context(), 1, 0) {
			if err != nil {
				t.Fatal(err)
			}
			if len(batch) == 0 {
				if empty++; empty == 3 {
					break
				}
			}
		}
		if took := time.Since(began); took != 3*stillHere {
			t.Errorf("three signs of life took %s", took)
		}
	})
}
