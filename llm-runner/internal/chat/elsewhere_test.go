//go:build prove

package chat

import (
	"context"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"home.arpa/lab/llm-runner/internal/db"
	"home.arpa/lab/llm-runner/internal/engine"
	"home.arpa/lab/llm-runner/internal/llm"
	"home.arpa/lab/llm-runner/test/enginetest"
	"home.arpa/lab/llm-runner/test/postgrestest"
)

// TestOnPostgres runs the tests of conversations where their database is PostgreSQL.
func TestOnPostgres(t *testing.T) {
	server := postgrestest.Start(t)
	defer func() { database = db.Open }()
	urls := map[string]string{}
	database = func(ctx context.Context, path string) (*db.DB, error) {
		if urls[path] == "" {
			urls[path] = server.New()
		}
		return db.OpenPostgres(ctx, urls[path])
	}
	for name, test := range map[string]func(*testing.T){
		"facts": TestATurnIsRecordedWithWhatIsKnownOfIt, "readers": TestReadersResumeAtEverySeqAndMissNothing, "ends": TestHowATurnEnds,
		"askers": TestTheAnswerGoesOnWithoutItsAsker, "leaving": TestAReaderThatLeavesIsToldWhy, "keys": TestSendingTwiceWithOneKeyAsksOnce,
		"refusals": TestQuestionsThatCannotBeSent, "broken": TestABrokenTurnDoesNotKeepTheOthers, "stopping": TestStoppingKeepsWhatCame,
		"branches": TestBranches, "again": TestAskingAgain, "history": TestAnswersWithoutTextAreNotSentUpstream,
		"search": TestSearchRenameAndDelete, "exports": TestExports,
	} {
		t.Run(name, test)
	}
}

// join returns one more process's service on a shared database.
func join(t *testing.T, url string) (*Service, *puppet, *db.DB) {
	t.Helper()
	return joinWith(t, url, func(*db.DB) *engine.Engine { return nil })
}

func joinWith(t *testing.T, url string, work func(*db.DB) *engine.Engine) (*Service, *puppet, *db.DB) {
	t.Helper()
	defer func() { database = db.Open }()
	database = func(ctx context.Context, _ string) (*db.DB, error) { return db.OpenPostgres(ctx, url) }
	s, p, d, stop := openWith(t, "", work)
	ctx, cancel := context.WithCancel(context.Background())
	var listening sync.WaitGroup
	listening.Go(func() { d.Listen(ctx) }) //nolint:errcheck // it has no errors
	t.Cleanup(func() {
		stop()
		cancel()
		listening.Wait()
	})
	return s, p, d
}

// told is what a reader was told of a turn up to now: the text and the last facts.
type told struct {
	text, thinking string
	turn           *Turn
	wholes         int
}

func (x *told) take(batch []Event) {
	for _, ev := range batch {
		if ev.Whole {
			x.text, x.thinking, x.wholes = "", "", x.wholes+1
		}
		x.text, x.thinking = x.text+ev.Text, x.thinking+ev.Thinking
		if ev.Turn != nil {
			x.turn = ev.Turn
		}
	}
}

// pursue reads a turn until it ends, and hands out what it knows at each batch.
func pursue(t *testing.T, s *Service, turn, after int64) (<-chan told, <-chan error) {
	news, done := make(chan told, 1000), make(chan error, 1)
	go func() {
		var x told
		for batch, err := range s.Events(t.Context(), turn, after) {
			if err != nil {
				done <- err
				return
			}
			x.take(batch)
			news <- x
		}
		close(news)
		done <- nil
	}()
	return news, done
}

func await(t *testing.T, news <-chan told, what string, ok func(told) bool) told {
	t.Helper()
	late := time.After(60 * time.Second)
	for {
		select {
		case x, more := <-news:
			if !more {
				t.Fatalf("the turn ended before %s", what)
			}
			if ok(x) {
				return x
			}
		case <-late:
			t.Fatalf("no %s", what)
		}
	}
}

func TestAnotherProcessFollowsATurn(t *testing.T) {
	server := postgrestest.Start(t)
	url := server.New()
	a, p, _ := join(t, url)
	b, _, _ := join(t, url)
	turn := send(t, a, 0, 0, "tell me")
	x := <-p.asked
	news, done := pursue(t, b, turn.ID, 0)
	x.text("one ")
	words := "one "
	await(t, news, "first word", func(x told) bool { return x.text == words })
	fastest := time.Hour
	for range 10 { // who only looks sees each of them after a whole lookEvery: the one before was seen at a look
		words += "two "
		began := time.Now()
		x.text("two ")
		await(t, news, "next word", func(x told) bool { return x.text == words })
		fastest = min(fastest, time.Since(began))
	}
	if fastest > lookEvery*9/10 {
		t.Errorf("the other process's reader waited %s at least", fastest)
	}
	m, err := b.Message(t.Context(), turn.ID)
	if err != nil || m.Text != words || m.Turn.State != Streaming {
		t.Errorf("%+v, %v", m, err)
	}
	x.text("three")
	x.done()
	last := await(t, news, "end", func(x told) bool { return !x.turn.State.Running() })
	if err := <-done; err != nil || last.text != words+"three" || last.turn.State != Finished || last.wholes != 1 {
		t.Errorf("%+v, %v", last, err)
	}
}

func TestAnotherProcessStopsATurn(t *testing.T) {
	server := postgrestest.Start(t)
	url := server.New()
	a, p, _ := join(t, url)
	b, _, _ := join(t, url)
	turn := send(t, a, 0, 0, "tell me")
	x := <-p.asked
	x.text("this much")
	news, _ := pursue(t, b, turn.ID, 0)
	await(t, news, "words", func(x told) bool { return x.text != "" })
	if err := b.Stop(t.Context(), turn.ID); err != nil {
		t.Fatal(err)
	}
	if m, err := b.Message(t.Context(), turn.ID); err != nil || m.Text != "this much" || m.Turn.State != Stopped {
		t.Errorf("%+v, %v", m, err)
	}
	other := send(t, a, turn.Chat, turn.ID, "and now?")
	<-p.asked
	if err := b.Delete(t.Context(), turn.Chat); err != nil {
		t.Fatal(err)
	}
	if _, err := b.Turn(t.Context(), other.ID); err == nil {
		t.Error("a deleted turn is still there")
	}
}

func TestADeadProcessesTurnsAreAdoptedAndTheOthersAreNot(t *testing.T) {
	server := postgrestest.Start(t)
	url := server.New()
	a, p, d := join(t, url)
	b, q, _ := join(t, url)
	lost := send(t, a, 0, 0, "lost")
	kept := send(t, b, 0, 0, "kept")
	x, y := <-p.asked, <-q.asked
	x.text("some words")
	y.text("others")
	news, done := pursue(t, b, lost.ID, 0)
	await(t, news, "words", func(x told) bool { return x.text == "some words" })
	if err := b.Adopt(t.Context(), d.Worker()); err != nil {
		t.Fatal(err)
	}
	last := await(t, news, "end", func(x told) bool { return !x.turn.State.Running() })
	if err := <-done; err != nil || last.turn.State != Interrupted || last.text != "some words" {
		t.Errorf("%+v, %v", last, err)
	}
	if turn, err := a.Turn(t.Context(), kept.ID); err != nil || !turn.State.Running() {
		t.Errorf("the living one's turn: %+v, %v", turn, err)
	}
	y.done()
	// A question that is asked again belongs to the process that asks.
	again, err := b.Again(t.Context(), lost.ID)
	if err != nil {
		t.Fatal(err)
	}
	<-q.asked
	if err := a.Adopt(t.Context(), d.Worker()); err != nil {
		t.Fatal(err)
	}
	if turn, err := b.Turn(t.Context(), again.ID); err != nil || !turn.State.Running() {
		t.Errorf("%+v, %v", turn, err)
	}
}

func TestOneQuestionSentToTwoProcessesAtOnceIsAskedOnce(t *testing.T) {
	server := postgrestest.Start(t)
	url := server.New()
	a, p, _ := join(t, url)
	b, q, _ := join(t, url)
	for i := range 20 {
		key := strings.Repeat("k", i+1)
		turns := make([]int64, 2)
		var wg sync.WaitGroup
		for n, s := range []*Service{a, b} {
			wg.Go(func() {
				turn, err := s.Send(t.Context(), 0, 0, "once", Options{Key: key})
				if err != nil {
					t.Error(err)
				}
				turns[n] = turn.ID
			})
		}
		wg.Wait()
		select {
		case x := <-p.asked:
			x.text("x")
			x.done()
		case x := <-q.asked:
			x.text("x")
			x.done()
		}
		if turns[0] != turns[1] {
			t.Fatalf("two turns: %v", turns)
		}
	}
	if all, err := a.Chats(t.Context(), "", 100); err != nil || len(all) != 20 || slices.ContainsFunc(all, func(c Chat) bool { return c.Title != "once" }) {
		t.Errorf("%d conversations, %v", len(all), err)
	}
}

// A process that is taken for dead while it lives: another one asks again, and what the first one still gets is not written.
func TestATurnIsTakenOverFromAProcessThatWasSilent(t *testing.T) {
	server := postgrestest.Start(t)
	url := server.New()
	a, p, d := join(t, url)
	b, q, _ := joinWith(t, url, func(d *db.DB) *engine.Engine {
		return enginetest.On(t, d, engine.Config{Poll: 20 * time.Millisecond, Log: quiet()})
	})
	for _, came := range []string{"", "some words"} {
		turn := send(t, a, 0, 0, "q")
		x := <-p.asked
		if came != "" {
			begun(t, a, x, turn.ID, came)
		}
		here, _ := pursue(t, a, turn.ID, 0)
		there, _ := pursue(t, b, turn.ID, 0)
		if err := b.Adopt(t.Context(), d.Worker()); err != nil {
			t.Fatal(err)
		}
		y := q.next(t)
		late := time.After(10 * time.Second)
		for gone := false; !gone; { // the first process notices when it writes
			select {
			case x.say <- llm.Event{Text: "late"}:
			case <-x.gone:
				gone = true
			case <-late:
				t.Fatal("it does not notice")
			}
		}
		y.text("whole")
		y.done()
		for _, news := range []<-chan told{here, there} {
			over := await(t, news, "the end", func(x told) bool { return x.turn != nil && x.turn.Over() })
			if want := map[string]string{"": "whole", "some words": "some words"}[came]; over.text != want {
				t.Errorf("after %q a reader has %q: %+v", came, over.text, over.turn)
			}
		}
		want := "q whole"
		if came != "" {
			want = "q whole(2/2)"
		}
		if got := shown(t, a, turn.Chat); got != want {
			t.Errorf("shown %q, not %q", got, want)
		}
	}
}

func TestATurnThatWasWrittenUnheardIsMarked(t *testing.T) {
	server := postgrestest.Start(t)
	url := server.New()
	a, p, d := join(t, url)
	live, unheard := send(t, a, 0, 0, "live"), send(t, a, 0, 0, "unheard")
	<-p.asked
	<-p.asked
	a.mu.Lock()
	delete(a.live, unheard.ID) // as if the commit had been reported as an error
	a.mu.Unlock()
	if _, err := d.Writer().Exec(`UPDATE turns SET started_at = started_at - ?`, (2 * orphanAge).Milliseconds()); err != nil {
		t.Fatal(err)
	}
	a.disown(t.Context())
	for id, running := range map[int64]bool{live.ID: true, unheard.ID: false} {
		if turn, err := oneTurn(t.Context(), d.Read(), id); err != nil || turn.State.Running() != running {
			t.Errorf("turn %d is %s, %v", id, turn.State, err)
		}
	}
}
