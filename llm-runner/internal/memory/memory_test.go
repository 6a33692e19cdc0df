package memory

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"iter"
	"log/slog"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"home.arpa/lab/llm-runner/internal/db"
	"home.arpa/lab/llm-runner/internal/fake/script"
	"home.arpa/lab/llm-runner/internal/llm"
	"home.arpa/lab/llm-runner/internal/provider/scripted"
)

// A world is a service on a new database, with conversations and an index that the test holds.
type world struct {
	*Service
	t     testing.TB
	db    *db.DB
	said  map[int64][]Message // by conversation
	at    map[int64]time.Time
	index map[string]string
	model *counter
	lost  int64 // messages up to this number are gone
	words []string
}

// counter counts the questions to a model, and keeps what it was asked.
type counter struct {
	inner llm.Provider
	asked []llm.Request
	fail  error
	stop  int // questions after which it fails; 0 none
}

func (c *counter) Stream(ctx context.Context, req llm.Request) iter.Seq2[llm.Event, error] {
	return func(yield func(llm.Event, error) bool) {
		if c.fail != nil && len(c.asked) >= c.stop {
			yield(llm.Event{}, c.fail)
			return
		}
		c.asked = append(c.asked, req)
		for ev, err := range c.inner.Stream(ctx, req) {
			if !yield(ev, err) {
				return
			}
		}
	}
}

func newWorld(t testing.TB, s script.Script) *world {
	t.Helper()
	d, err := db.Open(t.Context(), filepath.Join(t.TempDir(), db.Name))
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { d.Close() })
	return worldOn(t, d, s)
}

func worldOn(t testing.TB, d *db.DB, s script.Script) *world {
	t.Helper()
	p, err := scripted.From(scripted.Config{}, s)
	if err != nil {
		t.Fatal(err)
	}
	w := &world{t: t, db: d, said: map[int64][]Message{}, at: map[int64]time.Time{}, index: map[string]string{}, model: &counter{inner: p}}
	w.Service = New(Config{DB: d, Provider: w.model, Log: slog.New(slog.DiscardHandler),
		Model: func(private bool) (string, error) {
			if private {
				return "own", nil
			}
			return "any", nil
		},
		Conversations: func(context.Context) (all []Conversation, err error) {
			for id := range w.said {
				all = append(all, Conversation{id, w.at[id]})
			}
			return all, nil
		},
		Said: func(_ context.Context, chat int64) ([]Message, error) { return w.said[chat], nil },
		There: func(_ context.Context, ids []int64) (map[int64]bool, error) {
			there := map[int64]bool{}
			for _, id := range ids {
				there[id] = id > w.lost
			}
			return there, nil
		},
		Put: func(_ context.Context, all ...Entry) error {
			for _, e := range all {
				w.index[e.Name] = e.Text
			}
			return nil
		},
		Erase: func(_ context.Context, names ...string) error {
			for _, n := range names {
				delete(w.index, n)
			}
			return nil
		},
		Blank: func(_ context.Context, words ...string) error { w.words = append(w.words, words...); return nil },
	})
	return w
}

var epoch = time.Date(2026, 3, 1, 8, 0, 0, 0, time.UTC)

// says has the person write into a conversation, and returns the message's number.
func (w *world) says(chat int64, text string, private bool) int64 {
	id := chat*100 + int64(len(w.said[chat])) + 1
	at := epoch.Add(time.Duration(id) * time.Minute)
	w.said[chat] = append(w.said[chat], Message{ID: id, Chat: chat, Text: text, At: at, Private: private})
	w.at[chat] = at
	return id
}

func (w *world) learn() Report {
	w.t.Helper()
	r, err := w.Learn(w.t.Context(), "test")
	if err != nil {
		w.t.Fatal(err)
	}
	return r
}

// facts are the texts in a state.
func (w *world) texts(state State) []string {
	w.t.Helper()
	all, err := w.List(w.t.Context(), state)
	if err != nil {
		w.t.Fatal(err)
	}
	var out []string
	for _, f := range all {
		out = append(out, f.Text)
	}
	slices.Sort(out)
	return out
}

// A corpus is the seeded conversations, what a model answers, and what is to come of them.
type corpus struct {
	conversations []struct {
		Lang     string
		Private  bool
		Messages []struct{ By, Text string }
	}
	answers  script.Script
	expected struct {
		Facts []struct {
			Text          string
			State         State
			Conversations []int64
		}
		Conflicts      [][2]string
		Secrets, Never []string
	}
}

func loadCorpus(t testing.TB) (c corpus) {
	t.Helper()
	for name, into := range map[string]any{"conversations.json": &c.conversations, "expected.json": &c.expected} {
		b, err := os.ReadFile(filepath.Join("testdata", name))
		if err == nil {
			err = json.Unmarshal(b, into)
		}
		if err != nil {
			t.Fatal(err)
		}
	}
	var err error
	if c.answers, err = script.Load(filepath.Join("testdata", "answers.yaml")); err != nil {
		t.Fatal(err)
	}
	return c
}

// tell has the person write all that they write in the corpus.
func (c corpus) tell(w *world) {
	for i, conversation := range c.conversations {
		for _, m := range conversation.Messages {
			if m.By == "user" {
				w.says(int64(i+1), m.Text, conversation.Private)
			}
		}
	}
}

func TestSeededConversations(t *testing.T) {
	c := loadCorpus(t)
	if len(c.conversations) < 60 {
		t.Fatalf("only %d conversations", len(c.conversations))
	}
	w := newWorld(t, c.answers)
	c.tell(w)
	r := w.learn()
	c.check(t, w)
	t.Log(r.Sentence(), r.Dropped)
	for _, reason := range []drop{dropForm, dropText, dropSecret, dropQuote, dropOthers, dropGround, dropPasses, dropUnsure} {
		if r.Dropped[string(reason)] == 0 {
			t.Errorf("nothing was dropped for %s", reason)
		}
	}
	if again := w.learn(); again.Messages != 0 || again.Asked != 0 {
		t.Errorf("read again: %+v", again)
	}
	for name, text := range w.index {
		if strings.HasPrefix(name, privateFolder) != strings.Contains(text, "Arthrose") {
			t.Errorf("%s in the index is %q", name, text)
		}
	}
	if len(w.index) != len(w.texts(Current)) {
		t.Errorf("%d facts, %d in the index", len(w.texts(Current)), len(w.index))
	}
}

// check compares what is remembered with what should be: nothing more, nothing twice, each with its words.
func (c corpus) check(t *testing.T, w *world) {
	t.Helper()
	all, err := w.List(t.Context(), "")
	if err != nil {
		t.Fatal(err)
	}
	left := map[string]Fact{}
	for _, f := range all {
		if _, twice := left[f.Text]; twice {
			t.Errorf("%q is there twice", f.Text)
		}
		left[f.Text] = f
	}
	for _, x := range c.expected.Facts {
		f, ok := left[x.Text]
		delete(left, x.Text)
		if !ok {
			t.Errorf("%q was not learned", x.Text)
			continue
		}
		var from []int64
		for _, s := range f.Sources {
			from = append(from, s.Chat)
			text := ""
			for _, m := range w.said[s.Chat] {
				if m.ID == s.Message {
					text = m.Text
				}
			}
			if s.Start+len(s.Quote) > len(text) || text[s.Start:s.Start+len(s.Quote)] != s.Quote {
				t.Errorf("%q: the quote %q does not stand at %d of %q", f.Text, s.Quote, s.Start, text)
			}
		}
		if !slices.Equal(from, x.Conversations) || f.State != x.State {
			t.Errorf("%q is %s from %v, should be %s from %v", f.Text, f.State, from, x.State, x.Conversations)
		}
	}
	for text, f := range left {
		t.Errorf("%q was learned from %+v", text, f.Sources)
	}
	conflicts, err := w.Conflicts(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	var pairs [][2]string
	for _, x := range conflicts {
		pairs = append(pairs, [2]string{x.Older.Text, x.Newer.Text})
	}
	if !slices.Equal(pairs, c.expected.Conflicts) {
		t.Errorf("contradictions %v, should be %v", pairs, c.expected.Conflicts)
	}
	// No secret was stored, nor asked about; of others nothing was stored.
	var asked strings.Builder
	for _, req := range w.model.asked {
		for _, m := range req.Messages {
			asked.WriteString(m.Text() + "\n")
			if strings.Contains(m.Text(), "Befund") && (req.Model != "own" || !m.Parts[0].Private) {
				t.Errorf("a private message went to %s", req.Model)
			}
		}
	}
	stored := w.dump()
	for _, s := range c.expected.Secrets {
		if strings.Contains(asked.String(), s) {
			t.Errorf("a model was asked about %q", s)
		}
		if strings.Contains(stored, s) {
			t.Errorf("%q is stored", s)
		}
	}
	for _, s := range c.expected.Never {
		if strings.Contains(stored, s) {
			t.Errorf("%q is stored", s)
		}
	}
}

// dump is all that the tables hold.
func (w *world) dump() string {
	w.t.Helper()
	var b strings.Builder
	for _, q := range []string{`SELECT text || norm FROM memory_facts`, `SELECT quote FROM memory_sources`, `SELECT before FROM memory_changes`, `SELECT answer FROM memory_answers`, `SELECT dropped FROM memory_read`} {
		all, err := db.All(w.t.Context(), w.db.Read(), "dump memory", db.Column[string], q)
		if err != nil {
			w.t.Fatal(err)
		}
		b.WriteString(strings.Join(all, "\n") + "\n")
	}
	return b.String()
}

// TestNothingIsAskedTwice has the model go away after every question in turn: whoever goes on asks only what was not answered, and the same
// facts come of it.
func TestNothingIsAskedTwice(t *testing.T) {
	c := loadCorpus(t)
	w := newWorld(t, c.answers)
	c.tell(w)
	whole := newWorld(t, c.answers)
	c.tell(whole)
	whole.learn()
	w.model.fail = &llm.BusyError{Provider: "own", Reason: "busy"}
	for w.model.stop = 1; ; w.model.stop++ {
		var busy *llm.BusyError
		_, err := w.Learn(t.Context(), "test")
		if err == nil {
			break
		}
		if !errors.As(err, &busy) {
			t.Fatal(err)
		}
		if len(w.index) != len(w.texts(Current)) {
			t.Errorf("%d facts, and %d in the index, after a model went away", len(w.texts(Current)), len(w.index))
		}
		if len(w.model.asked) != w.model.stop {
			t.Fatalf("%d questions, should be %d", len(w.model.asked), w.model.stop)
		}
		fresh := New(w.Config) // a new process knows what is on disk
		w.Service = fresh
	}
	seen := map[string]int{}
	for _, req := range w.model.asked {
		q := req.Messages[1].Text()
		if seen[q]++; seen[q] > 1 {
			t.Errorf("asked twice: %s", q)
		}
	}
	if len(w.model.asked) != len(whole.model.asked) {
		t.Errorf("%d questions, %d without interruptions", len(w.model.asked), len(whole.model.asked))
	}
	c.check(t, w)
	if left := w.dump(); strings.Contains(left, `"facts"`) {
		t.Errorf("answers are kept after they were used: %s", left)
	}
}

// proposes is a script in which a model answers each message, found by a part of it, with facts.
func proposes(pairs ...string) script.Script {
	var s script.Script
	for i := 0; i < len(pairs); i += 2 {
		s.Reply = append(s.Reply, script.Rule{Match: pairs[i], Text: pairs[i+1]})
	}
	s.Reply = append(s.Reply, script.Rule{Text: `{"facts":[]}`})
	b, err := json.Marshal(map[string]any{"reply": rules(s)})
	if err != nil {
		panic(err)
	}
	out, err := script.Parse(b)
	if err != nil {
		panic(err)
	}
	return out
}

func rules(s script.Script) (all []map[string]string) {
	for _, r := range s.Reply {
		all = append(all, map[string]string{"match": r.Match, "text": r.Text})
	}
	return all
}

func one(fact, quote string, corrects bool) string {
	return fmt.Sprintf(`{"facts":[{"fact":%q,"quote":%q,"about":"user","lasting":true,"corrects":%v,"confidence":0.9}]}`, fact, quote, corrects)
}

var moving = proposes("I live in Berlin", one("The user lives in Berlin", "I live in Berlin", false),
	"I live in Hamburg", one("The user lives in Hamburg", "I live in Hamburg", false),
	"I moved to Bonn", one("The user lives in Bonn", "I moved to Bonn, no longer Berlin", true),
	"New: The user lives in", `{"relation":"contradicts"}`)

func TestAContradictionWaitsForThePerson(t *testing.T) {
	for holds, want := range map[string][]string{
		HoldsOlder: {"The user lives in Berlin"}, HoldsNewer: {"The user lives in Hamburg"}, HoldsBoth: {"The user lives in Berlin", "The user lives in Hamburg"},
	} {
		w := newWorld(t, moving)
		w.says(1, "I live in Berlin.", false)
		w.says(2, "I live in Hamburg.", false)
		w.learn()
		if got := w.texts(Current); len(got) != 2 {
			t.Fatalf("%v", got)
		}
		if got, err := w.Recall(t.Context(), "Where do I live, Berlin?", false); err != nil || len(got) != 0 {
			t.Errorf("recalled what is contradicted: %v, %v", got, err)
		}
		open, err := w.Conflicts(t.Context())
		if err != nil || len(open) != 1 || open[0].Older.Text != "The user lives in Berlin" {
			t.Fatalf("%+v, %v", open, err)
		}
		if err := w.Resolve(t.Context(), open[0].ID, holds); err != nil {
			t.Fatal(err)
		}
		if got := w.texts(Current); !slices.Equal(got, want) {
			t.Errorf("%s: %v", holds, got)
		}
		if len(w.index) != len(want) {
			t.Errorf("%s: the index has %v", holds, w.index)
		}
		if err := w.Resolve(t.Context(), open[0].ID, holds); err == nil {
			t.Error("decided twice")
		}
		if u, err := w.Undo(t.Context(), 0); err != nil || u.Kind != "resolved" {
			t.Errorf("%+v, %v", u, err)
		}
		if open, err := w.Conflicts(t.Context()); err != nil || len(open) != 1 || len(w.texts(Current)) != 2 {
			t.Errorf("after undo: %+v, %v", open, err)
		}
	}
}

func TestACorrectionKeepsTheOldFactAsHistory(t *testing.T) {
	w := newWorld(t, moving)
	w.says(1, "I live in Berlin.", false)
	w.says(2, "I moved to Bonn, no longer Berlin.", false)
	r := w.learn()
	if r.Superseded != 1 || r.Conflicts != 0 {
		t.Errorf("%+v", r)
	}
	if got := w.texts(Superseded); !slices.Equal(got, []string{"The user lives in Berlin"}) {
		t.Errorf("%v", got)
	}
	now, err := w.List(t.Context(), Current)
	if err != nil || len(now) != 1 || len(now[0].Supersedes) != 1 {
		t.Fatalf("%+v, %v", now, err)
	}
	if got, err := w.Recall(t.Context(), "which tram do I take where I live?", false); err != nil || len(got) != 1 || got[0].Text != "The user lives in Bonn" {
		t.Errorf("%+v, %v", got, err)
	}
	if u, err := w.Undo(t.Context(), now[0].ID); err != nil || u.Fact.State != Undone {
		t.Errorf("%+v, %v", u, err)
	}
	if got := w.texts(Current); !slices.Equal(got, []string{"The user lives in Berlin"}) {
		t.Errorf("after undo: %v", got)
	}
	w.says(3, "I moved to Bonn, no longer Berlin!", false)
	if r := w.learn(); len(r.Learned) != 0 || r.Dropped[string(dropTaken)] != 1 {
		t.Errorf("what was taken back came again: %+v", r)
	}
}

func TestEditUndoAndTheirLimits(t *testing.T) {
	w := newWorld(t, moving)
	f, err := w.Add(t.Context(), "  The user has a boat ")
	if err != nil || f.Text != "The user has a boat" || f.Origin != Added || len(f.Sources) != 0 {
		t.Fatalf("%+v, %v", f, err)
	}
	other, err := w.Add(t.Context(), "The user has a bike")
	if err != nil {
		t.Fatal(err)
	}
	var refusal *RefusedError
	for _, text := range []string{"", "The user has a boat", "two\nlines", "see https://example.org", "The user's PIN is 4711", strings.Repeat("x", 301), "The key is sk-abcdefgh12345678"} {
		if _, err := w.Add(t.Context(), text); !errors.As(err, &refusal) {
			t.Errorf("%q: %v", text, err)
		}
	}
	if _, err := w.Edit(t.Context(), f.ID, "the user has a bike"); !errors.As(err, &refusal) || !strings.Contains(err.Error(), "already") {
		t.Errorf("%v", err)
	}
	if f, err = w.Edit(t.Context(), f.ID, "The user has a red boat"); err != nil || f.Text != "The user has a red boat" || w.index[f.Name()] != f.Text {
		t.Errorf("%+v, %v", f, err)
	}
	if _, err := w.Edit(t.Context(), other.ID, "The user has a boat"); err != nil {
		t.Fatal(err)
	}
	if _, err := w.Undo(t.Context(), f.ID); !errors.As(err, &refusal) {
		t.Errorf("two facts would say the same: %v", err)
	}
	if u, err := w.Undo(t.Context(), 0); err != nil || u.Fact.Text != "The user has a bike" {
		t.Errorf("%+v, %v", u, err)
	}
	if u, err := w.Undo(t.Context(), f.ID); err != nil || u.Fact.Text != "The user has a boat" {
		t.Errorf("%+v, %v", u, err)
	}
	if u, err := w.Undo(t.Context(), f.ID); err != nil || u.Fact.State != Undone || len(w.index) != 1 {
		t.Errorf("%+v, %v, %v", u, err, w.index)
	}
	if _, err := w.Undo(t.Context(), f.ID); !errors.Is(err, ErrNothing) {
		t.Errorf("%v", err)
	}
	if _, err := w.One(t.Context(), 99); !errors.Is(err, ErrNotFound) {
		t.Errorf("%v", err)
	}
}

func TestForgettingTakesAllOfAFact(t *testing.T) {
	w := newWorld(t, moving)
	w.says(1, "Hello. I live in Berlin. Bye.", false)
	w.learn()
	f, err := w.Edit(t.Context(), 1, "The user lives in Berlin-Mitte")
	if err != nil {
		t.Fatal(err)
	}
	scrubs := 0
	w.Scrub = func(context.Context) error { scrubs++; return errors.New("a reader holds the log") }
	if err := w.Forget(t.Context(), f.ID); err == nil || scrubs != 1 {
		t.Errorf("%v", err)
	}
	w.Scrub = func(context.Context) error { scrubs++; return nil }
	w.learn() // and whoever comes next finishes
	w.learn()
	if scrubs != 2 || len(w.index) != 0 || strings.Contains(w.dump(), "Berlin") {
		t.Errorf("%d scrubs, %v, %s", scrubs, w.index, w.dump())
	}
	for _, text := range []string{"The user lives in Berlin", "The user lives in Berlin-Mitte", "I live in Berlin"} {
		if !slices.Contains(w.words, text) {
			t.Errorf("%q was not blanked, only %q", text, w.words)
		}
	}
	if err := w.Forget(t.Context(), f.ID); !errors.Is(err, ErrNotFound) {
		t.Errorf("%v", err)
	}
	if _, err := w.Undo(t.Context(), 0); !errors.Is(err, ErrNothing) {
		t.Errorf("forgetting is final: %v", err)
	}
}

// TestNobodyWaitsForAModel changes and forgets facts while Learn waits for an answer, the one among them that the answer repeats.
func TestNobodyWaitsForAModel(t *testing.T) {
	w := newWorld(t, moving)
	w.says(1, "I live in Berlin.", false)
	w.learn()
	w.says(2, "Well, I live in Berlin.", false)
	asked, answer := make(chan struct{}), make(chan struct{})
	w.Provider = stalling{w.model, asked, answer}
	done := make(chan Report)
	go func() {
		r, err := w.Learn(context.WithoutCancel(t.Context()), "test")
		if err != nil {
			t.Error(err)
		}
		done <- r
	}()
	<-asked
	if _, err := w.Add(t.Context(), "The user has a boat"); err != nil {
		t.Error(err)
	}
	if err := w.Forget(t.Context(), 1); err != nil {
		t.Error(err)
	}
	close(answer)
	if r := <-done; len(r.Learned) != 1 {
		t.Errorf("%+v", r)
	}
	if all := w.texts(""); !slices.Equal(all, []string{"The user has a boat", "The user lives in Berlin"}) {
		t.Errorf("%v", all)
	}
}

// stalling answers once it may.
type stalling struct {
	inner         llm.Provider
	asked, answer chan struct{}
}

func (p stalling) Stream(ctx context.Context, req llm.Request) iter.Seq2[llm.Event, error] {
	close(p.asked)
	<-p.answer
	return p.inner.Stream(ctx, req)
}

// TestForgettingThatFailsIsFinishedByRun has the files refuse once.
func TestForgettingThatFailsIsFinishedByRun(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w := newWorld(t, moving)
		f, err := w.Add(t.Context(), "The user has a boat")
		if err != nil {
			t.Fatal(err)
		}
		refusals, scrubs := 2, 0
		w.Scrub = func(context.Context) error {
			if refusals--; refusals >= 0 {
				return errors.New("a reader holds the log")
			}
			scrubs++
			return nil
		}
		ctx, stop := context.WithCancel(t.Context())
		done := make(chan struct{})
		go func() {
			w.Run(ctx) //nolint:errcheck // it ends with ctx
			close(done)
		}()
		synctest.Wait()
		if err := w.Forget(t.Context(), f.ID); err == nil {
			t.Error("nobody was told")
		}
		time.Sleep(2 * again) // of the bubble
		synctest.Wait()
		if scrubs != 1 {
			t.Errorf("%d scrubs", scrubs)
		}
		stop()
		<-done
	})
}

func TestAFactGoesWithItsConversation(t *testing.T) {
	w := newWorld(t, moving)
	w.says(1, "I live in Berlin.", false)
	w.says(2, "Yes, I live in Berlin.", false)
	w.says(3, "I live in Hamburg.", false)
	if _, err := w.Add(t.Context(), "The user has a boat"); err != nil {
		t.Fatal(err)
	}
	w.learn()
	scrubs := 0
	w.Scrub = func(context.Context) error { scrubs++; return nil }
	w.says(0, "How does a lock work?", false)
	w.learn()
	w.lost = 99 // of a conversation in which no fact was
	if n, err := w.Conversation(t.Context()); err != nil || n != 0 || scrubs != 0 {
		t.Errorf("%d, %v, %d scrubs", n, err, scrubs)
	}
	w.lost = 199 // the first conversation is gone
	if n, err := w.Conversation(t.Context()); err != nil || n != 0 || len(w.texts(Current)) != 3 {
		t.Errorf("%d, %v: another conversation says it still", n, err)
	}
	w.lost = 299
	if n, err := w.Conversation(t.Context()); err != nil || n != 1 || !slices.Equal(w.texts(""), []string{"The user has a boat", "The user lives in Hamburg"}) {
		t.Errorf("%d, %v, %v", n, err, w.texts(""))
	}
}

func TestRememberNeedsThePersonsOwnWords(t *testing.T) {
	w := newWorld(t, moving)
	id := w.says(1, "Please remember that I keep bees. My brother keeps ants. The mail says \"I keep wolves and owls\".", false)
	said := w.said[1]
	f, err := w.Remember(t.Context(), "The user keeps bees", "I keep bees", "turn-7", said)
	if err != nil || f.Origin != Told || len(f.Sources) != 1 || f.Sources[0].Message != id || f.Sources[0].Start != 21 {
		t.Fatalf("%+v, %v", f, err)
	}
	var refusal *RefusedError
	for _, x := range [][2]string{{"The user keeps ants", "My brother keeps ants"}, {"The user keeps wolves", "I keep wolves"}, {"The user keeps cows", "I keep cows"},
		{"The user's password is bees12!x", "I keep bees"}, {"The user lives in Rome", "I keep bees"}} {
		if _, err := w.Remember(t.Context(), x[0], x[1], "turn-7", said); !errors.As(err, &refusal) {
			t.Errorf("%q: %v", x, err)
		}
	}
	if again, err := w.Remember(t.Context(), "The user keeps bees.", "I keep bees", "turn-8", said); err != nil || again.ID != f.ID {
		t.Errorf("%+v, %v", again, err)
	}
}

func TestPrivateMessagesWaitForAModelOfOnesOwn(t *testing.T) {
	w := newWorld(t, moving)
	w.says(1, "I live in Berlin.", true)
	w.says(2, "I live in Hamburg.", false)
	w.Model = func(private bool) (string, error) {
		if private {
			return "", ErrNoModel
		}
		return "any", nil
	}
	if r := w.learn(); r.Waiting != 1 || r.Messages != 1 || len(w.model.asked) != 1 {
		t.Errorf("%+v", r)
	}
	w.Model = func(bool) (string, error) { return "cloud", nil }
	w.model.fail, w.model.stop = &llm.Error{Kind: llm.BadRequest, Message: "the request rests on notes that are never sent"}, 0
	if r := w.learn(); r.Waiting != 1 || r.Messages != 0 {
		t.Errorf("refused by the router: %+v", r)
	}
	w.model.fail = nil
	w.Model = func(bool) (string, error) { return "own", nil }
	if r := w.learn(); r.Waiting != 0 || r.Messages != 1 {
		t.Errorf("%+v", r)
	}
	all, err := w.List(t.Context(), Current)
	if err != nil || len(all) != 2 || !all[0].Private || all[1].Private {
		t.Errorf("%+v, %v", all, err)
	}
	// A message that turns out to be private later takes its fact along.
	w.said[2][0].Private = true
	w.at[2] = w.at[2].Add(time.Hour)
	w.learn()
	if f, err := w.One(t.Context(), 1); err != nil || !f.Private || w.index["private/1"] == "" || w.index["1"] != "" {
		t.Errorf("%+v, %v, %v", f, err, w.index)
	}
}

func TestAMessageIsReadOnceItsAnswerIsThere(t *testing.T) {
	w := newWorld(t, moving)
	w.says(1, "I live in Berlin.", false)
	w.said[1][0].Open = true
	if r := w.learn(); r.Messages != 0 {
		t.Errorf("%+v", r)
	}
	w.said[1][0].Open = false
	if r := w.learn(); r.Messages != 1 {
		t.Errorf("%+v", r)
	}
}
