package chat

import (
	"context"
	"errors"
	"fmt"
	"io"
	"iter"
	"log/slog"
	"path/filepath"
	"strings"
	"sync"
	"testing"
	"time"

	"home.arpa/lab/llm-runner/internal/db"
	"home.arpa/lab/llm-runner/internal/engine"
	"home.arpa/lab/llm-runner/internal/llm"
)

// puppet is a Provider whose answers the test plays: each request arrives on asked, and what is sent on its channel is
// yielded.
type puppet struct{ asked chan *play }

type play struct {
	req  llm.Request
	say  chan any // llm.Event, error
	gone chan struct{}
}

func newPuppet() *puppet { return &puppet{asked: make(chan *play, 100)} }

func (p *puppet) Stream(ctx context.Context, req llm.Request) iter.Seq2[llm.Event, error] {
	return func(yield func(llm.Event, error) bool) {
		x := &play{req: req, say: make(chan any), gone: make(chan struct{})}
		defer close(x.gone)
		p.asked <- x
		for {
			select {
			case said := <-x.say:
				switch said := said.(type) {
				case llm.Event:
					if !yield(said, nil) || said.Finish != "" {
						return
					}
				case error:
					yield(llm.Event{}, said)
					return
				case string:
					panic(said)
				}
			case <-ctx.Done():
				yield(llm.Event{}, &llm.Error{Kind: llm.Cancelled, Message: "cancelled", Err: ctx.Err()})
				return
			}
		}
	}
}

func (x *play) text(words ...string) {
	for _, w := range words {
		x.say <- llm.Event{Text: w}
	}
}

func (x *play) done() {
	x.say <- llm.Event{Finish: llm.FinishStop, Usage: &llm.Usage{Input: llm.Known(10), Output: llm.Known(5)}}
}

func quiet() *slog.Logger { return slog.New(slog.NewTextHandler(io.Discard, nil)) }

// open returns a service on a new database that is stopped with the test.
func open(t *testing.T) (*Service, *puppet) {
	s, p, _, _ := openAt(t, filepath.Join(t.TempDir(), db.Name))
	return s, p
}

// database opens what the tests run on.
var database = db.Open

func openAt(t *testing.T, path string) (*Service, *puppet, *db.DB, func()) {
	t.Helper()
	return openWith(t, path, func(*db.DB) *engine.Engine { return nil })
}

// openWith is openAt with an engine, which it launches and closes; nil: there is none.
// wrap, if not nil, is what openWith puts before the puppet. Tests that set it do not run side by side.
var wrap func(d *db.DB, p llm.Provider) llm.Provider

func openWith(t *testing.T, path string, work func(*db.DB) *engine.Engine) (*Service, *puppet, *db.DB, func()) {
	t.Helper()
	d, err := database(context.Background(), path)
	if err != nil {
		t.Fatal(err)
	}
	p, e := newPuppet(), work(d)
	var asked llm.Provider = p
	if wrap != nil {
		asked = wrap(d, p)
	}
	s, err := New(context.Background(), d, asked, Config{Log: quiet(), Grace: time.Nanosecond, Engine: e,
		Cost: func(_, _ string, u llm.Usage) llm.Count { return u.Output }})
	if err != nil {
		t.Fatal(err)
	}
	if e != nil {
		if err := e.Launch(); err != nil {
			t.Fatal(err)
		}
	}
	ctx, cancel := context.WithCancel(context.Background())
	done := make(chan struct{})
	go func() {
		s.Run(ctx) //nolint:errcheck // it has no errors
		close(done)
	}()
	stop := sync.OnceFunc(func() {
		cancel()
		<-done
		if e != nil {
			e.Close(5 * time.Second) //nolint:errcheck // what has not ended is called again
		}
		d.Close()
	})
	t.Cleanup(stop)
	return s, p, d, stop
}

func send(t *testing.T, s *Service, chat, parent int64, text string) Turn {
	t.Helper()
	turn, err := s.Send(t.Context(), chat, parent, text, Options{})
	if err != nil {
		t.Fatal(err)
	}
	return turn
}

// follow reads a turn to its end.
func follow(t *testing.T, s *Service, turn, after int64) (text string, last Turn, seqs []int64) {
	t.Helper()
	for batch, err := range s.Events(t.Context(), turn, after) {
		if err != nil {
			t.Fatal(err)
		}
		for _, ev := range batch {
			if ev.Whole {
				text = ""
			}
			text += ev.Text
			seqs = append(seqs, ev.Seq)
			if ev.Turn != nil {
				last = *ev.Turn
			}
		}
	}
	return text, last, seqs
}

// answered asks and plays a whole answer.
func answered(t *testing.T, s *Service, p *puppet, chat, parent int64, text, answer string) Turn {
	t.Helper()
	turn := send(t, s, chat, parent, text)
	x := <-p.asked
	x.text(answer)
	x.done()
	_, end, _ := follow(t, s, turn.ID, 0)
	if end.State != Finished {
		t.Fatalf("state %s: %s", end.State, end.Error)
	}
	return end
}

func TestATurnIsRecordedWithWhatIsKnownOfIt(t *testing.T) {
	s, p := open(t)
	turn, err := s.Send(t.Context(), 0, 0, "  How do I restore\n\nthe vault? ", Options{Model: "big", Project: true})
	if err != nil || turn.State != Waiting {
		t.Fatal(turn, err)
	}
	x := <-p.asked
	if x.req.Purpose != "chat" || x.req.Model != "big" || !x.req.Project || len(x.req.Messages) != 1 {
		t.Errorf("asked %+v", x.req)
	}
	x.say <- llm.Event{Route: &llm.Route{Provider: "davas", Model: "gemma4:27b", Rule: "project", Why: "because"}, Thinking: "hm"}
	x.text("From ", "the fast bucket [1].")
	x.say <- llm.Event{Citations: []llm.Citation{{Path: "restore.md", Start: 3, End: 9, Line: 2, EndLine: 2, Quote: "bucket"}}}
	x.done()
	text, end, _ := follow(t, s, turn.ID, 0)
	if text != "From the fast bucket [1]." || end.State != Finished || end.First <= 0 || end.Thinking != "hm" || end.Route.Provider != "davas" ||
		end.Usage.Output != llm.Known(5) || end.Usage.CachedInput != (llm.Count{}) || end.Cost != llm.Known(5) || end.Finish != llm.FinishStop {
		t.Errorf("%q %+v", text, end)
	}
	stored, err := s.Turn(t.Context(), turn.ID)
	if err != nil || stored.Route != end.Route || stored.Usage != end.Usage || stored.Thinking != "hm" || len(stored.Citations) != 1 ||
		stored.Citations[0].Quote != "bucket" || stored.Seq != end.Seq || stored.Cost != end.Cost || stored.Asked != "big" || !stored.Project {
		t.Errorf("stored %+v, %v", stored, err)
	}
	c, err := s.Chat(t.Context(), turn.Chat)
	if err != nil || c.Title != "How do I restore the vault?" || c.Model != "big" || !c.Project || c.Leaf != turn.ID {
		t.Errorf("%+v, %v", c, err)
	}
}

func TestReadersResumeAtEverySeqAndMissNothing(t *testing.T) {
	s, p := open(t)
	turn := send(t, s, 0, 0, "q")
	x := <-p.asked
	var wg sync.WaitGroup
	full := "one two three four five six "
	read := func(after int64, prefix string) {
		var text string
		known := prefix
		for batch, err := range s.Events(t.Context(), turn.ID, after) {
			if err != nil {
				t.Error(err)
				return
			}
			for _, ev := range batch {
				if ev.Whole {
					known = ""
				}
				known += ev.Text
				text += ev.Text
			}
		}
		if known != full {
			t.Errorf("after %d: %q", after, known)
		}
		if prefix != "" && !strings.HasPrefix(full, prefix) {
			t.Errorf("prefix %q", prefix)
		}
	}
	wg.Go(func() { read(0, "") })
	said := ""
	for _, w := range strings.SplitAfter(strings.TrimSuffix(full, " "), " ") {
		w = strings.TrimSuffix(w, " ") + " "
		x.text(w)
		said += w
		// Read until this word is in the log: that is the place another reader comes back to.
		var at int64
		got := ""
		for batch, err := range s.Events(t.Context(), turn.ID, 0) {
			if err != nil {
				t.Fatal(err)
			}
			for _, ev := range batch {
				got += ev.Text
				at = ev.Seq
			}
			if got == said {
				break
			}
		}
		wg.Go(func() { read(at, got) })
	}
	x.done()
	wg.Wait()
	end, err := s.Turn(t.Context(), turn.ID)
	if err != nil {
		t.Fatal(err)
	}
	for after := int64(0); after <= end.Seq+1; after++ { // folded now
		text, last, _ := follow(t, s, turn.ID, after)
		if last.State != Finished || after != end.Seq && text != full || after == end.Seq && text != "" {
			t.Errorf("after %d of %d: %q, %s", after, end.Seq, text, last.State)
		}
	}
}

func TestHowATurnEnds(t *testing.T) {
	until := time.Now().Add(time.Hour).UTC().Truncate(time.Millisecond)
	for _, c := range []struct {
		name  string
		play  func(s *Service, id int64, x *play)
		state State
		text  string
		error string
	}{
		{"finished", func(_ *Service, _ int64, x *play) { x.text("yes"); x.done() }, Finished, "yes", ""},
		{"stopped midway", func(s *Service, id int64, x *play) { x.text("ye"); s.Stop(context.Background(), id) }, Stopped, "ye", ""},
		{"stopped before anything came", func(s *Service, id int64, x *play) { s.Stop(context.Background(), id) }, Stopped, "", ""},
		{"broken", func(_ *Service, _ int64, x *play) {
			x.text("ye")
			x.say <- error(&llm.Error{Kind: llm.Unavailable, Provider: "groq", Message: "connection reset"})
		}, Broken, "ye", "groq: connection reset"},
		{"busy", func(_ *Service, _ int64, x *play) {
			x.say <- error(&llm.BusyError{Provider: "groq", Model: "m", Reason: "groq: all 30 requests/minute used up", Until: until})
		}, Held, "", "groq: all 30 requests/minute used up"},
		{"refused", func(_ *Service, _ int64, x *play) {
			x.say <- error(&llm.Error{Kind: llm.Auth, Provider: "groq", Message: "the key is wrong", Status: 401})
		}, Failed, "", "groq: the key is wrong (HTTP 401)"},
		{"panic", func(_ *Service, _ int64, x *play) { x.text("ye"); x.say <- "oops" }, Broken, "ye", "internal fault while answering: oops"},
		{"empty", func(_ *Service, _ int64, x *play) { x.done() }, Failed, "", "the model ended its answer without a word"},
	} {
		t.Run(c.name, func(t *testing.T) {
			s, p := open(t)
			turn := send(t, s, 0, 0, "q")
			x := <-p.asked
			c.play(s, turn.ID, x)
			<-x.gone
			text, end, _ := follow(t, s, turn.ID, 0)
			if end.State != c.state || text != c.text || end.Error != c.error {
				t.Errorf("%s %q %q", end.State, text, end.Error)
			}
			if c.state == Held && (!end.RetryAt.Equal(until) || end.Route.Provider != "groq") {
				t.Errorf("held: %+v", end)
			}
			m, err := s.Message(t.Context(), turn.ID)
			if err != nil || m.Text != c.text || m.Turn.State != c.state {
				t.Errorf("stored %+v, %v", m, err)
			}
		})
	}
}

func TestTheAnswerGoesOnWithoutItsAsker(t *testing.T) {
	s, p := open(t)
	ctx, leave := context.WithCancel(t.Context())
	turn, err := s.Send(ctx, 0, 0, "q", Options{})
	if err != nil {
		t.Fatal(err)
	}
	leave()
	x := <-p.asked
	x.text("still ", "here")
	x.done()
	if text, end, _ := follow(t, s, turn.ID, 0); text != "still here" || end.State != Finished {
		t.Errorf("%q %s", text, end.State)
	}
}

func TestAReaderThatLeavesIsToldWhy(t *testing.T) {
	s, p := open(t)
	turn := send(t, s, 0, 0, "q")
	<-p.asked
	why := errors.New("gone")
	ctx, leave := context.WithCancelCause(t.Context())
	defer leave(nil)
	var got error
	for batch, err := range s.Events(ctx, turn.ID, 0) {
		if got = err; len(batch) > 0 {
			leave(why)
		}
	}
	if got != why {
		t.Errorf("got %v", got)
	}
}

func TestSendingTwiceWithOneKeyAsksOnce(t *testing.T) {
	s, p := open(t)
	var ids [8]int64
	var wg sync.WaitGroup
	for i := range ids {
		wg.Go(func() {
			turn, err := s.Send(t.Context(), 0, 0, "q", Options{Key: "k"})
			if err != nil {
				t.Error(err)
			}
			ids[i] = turn.ID
		})
	}
	wg.Wait()
	for _, id := range ids {
		if id != ids[0] {
			t.Errorf("turns %v", ids)
			break
		}
	}
	if (<-p.asked) == nil || len(p.asked) != 0 {
		t.Errorf("asked %d times more", len(p.asked))
	}
}

func TestQuestionsThatCannotBeSent(t *testing.T) {
	s, p := open(t)
	first := answered(t, s, p, 0, 0, "q", "a")
	other := answered(t, s, p, 0, 0, "other", "a")
	running := send(t, s, first.Chat, first.ID, "running")
	<-p.asked
	for _, c := range []struct {
		chat, parent int64
		text         string
		want         error
	}{
		{first.Chat, first.ID, " \n", ErrEmpty},
		{999, 0, "q", ErrNotFound},
		{first.Chat, 999, "q", ErrNotFound},
		{first.Chat, first.ID - 1, "q", ErrNotFound}, // follows a question
		{first.Chat, other.ID, "q", ErrNotFound},     // of another conversation
		{first.Chat, running.ID, "q", ErrRunning},
	} {
		if _, err := s.Send(t.Context(), c.chat, c.parent, c.text, Options{}); !errors.Is(err, c.want) {
			t.Errorf("%+v: %v", c, err)
		}
	}
}

func TestABrokenTurnDoesNotKeepTheOthers(t *testing.T) {
	s, p := open(t)
	var wg sync.WaitGroup
	for i := range 20 {
		turn := send(t, s, 0, 0, fmt.Sprint("q", i))
		x := <-p.asked
		wg.Go(func() {
			want := fmt.Sprint("answer ", i)
			x.text("answer ")
			x.text(fmt.Sprint(i))
			x.done()
			if text, _, _ := follow(t, s, turn.ID, 0); text != want {
				t.Errorf("%q, want %q", text, want)
			}
		})
	}
	wg.Wait()
	s.turns.Wait() // a reader hears of the end a moment before the turn is put away
	if n := s.Running(); n != 0 {
		t.Errorf("%d still running", n)
	}
}
