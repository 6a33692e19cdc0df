package graph

import (
	"context"
	"errors"
	"fmt"
	"iter"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"home.arpa/lab/llm-runner/internal/db"
	"home.arpa/lab/llm-runner/internal/library"
	"home.arpa/lab/llm-runner/internal/llm"
	"home.arpa/lab/llm-runner/internal/provider/scripted"
)

// clerk writes word by word what it is told to, and orders passages as it is told to.
type clerk struct {
	writes, orders string
	fail           error
	asked          []string // "write" or "order"
	said           func()   // after each word
}

func (c *clerk) Stream(_ context.Context, req llm.Request) iter.Seq2[llm.Event, error] {
	return func(yield func(llm.Event, error) bool) {
		text, kind := c.writes, "write"
		if strings.HasPrefix(req.Messages[0].Text(), "You order passages") {
			text, kind = c.orders, "order"
		}
		if c.asked = append(c.asked, kind); c.fail != nil {
			yield(llm.Event{}, c.fail)
			return
		}
		ev := llm.Event{Route: &llm.Route{Provider: "house", Model: "m", Why: "because"}}
		for word := range strings.SplitAfterSeq(text, " ") {
			if ev.Text = word; !yield(ev, nil) {
				return
			}
			if ev.Route = nil; c.said != nil {
				c.said()
			}
		}
		yield(llm.Event{Usage: &llm.Usage{Input: llm.Known(7), Output: llm.Known(3)}, Finish: llm.FinishLength}, nil)
	}
}

var attic = map[string]string{
	"boiler.md": "# Boiler\n\n## Care\n\nThe anode of the boiler is replaced every **three years**. Drain the tank in May.\n",
	"old.md":    "# Boiler (old)\n\nThe anode of the old boiler is replaced every five years.\n",
	"car.md":    "# Car\n\nWinter tyres from October.\n",
}

// notes are a library of files, in a database of its own.
func notes(t testing.TB, files map[string]string) *library.Library {
	t.Helper()
	dir := t.TempDir()
	for name, text := range files {
		if err := os.WriteFile(filepath.Join(dir, name), []byte(text), 0o600); err != nil {
			t.Fatal(err)
		}
	}
	d, err := db.Open(t.Context(), filepath.Join(t.TempDir(), "library.db"))
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { d.Close() })
	return read(t, d, dir)
}

// read is a library that has read the files of a folder.
func read(t testing.TB, d *db.DB, dir string) *library.Library {
	t.Helper()
	source, err := library.Dir(dir)
	if err != nil {
		t.Fatal(err)
	}
	l, err := library.New(t.Context(), library.Config{DB: d, Source: source})
	if err == nil {
		_, err = l.Sync(t.Context())
	}
	if err != nil {
		t.Fatal(err)
	}
	return l
}

func straight(t testing.TB, c *clerk) (*Inquiries, *library.Library, *db.DB) {
	t.Helper()
	l := notes(t, attic)
	st, d := newStore(t)
	return &Inquiries{Store: st, Reader: c, Notes: library.NewVault(l, nil), Orders: l.Orders, Model: func(llm.Request) (string, bool) { return "m", c != nil }}, l, d
}

func asksVault(text, run string) llm.Request {
	return llm.Request{Model: "vault", Run: run, Purpose: "chat", Messages: []llm.Message{llm.Says(llm.User, text)}}
}

const anode = "How often is the anode of the boiler replaced?"

// nodes are the names and notes of the steps of a run.
func nodes(t *testing.T, st *Store, run int64) (names, said []string) {
	t.Helper()
	steps, err := st.Steps(t.Context(), run)
	if err != nil {
		t.Fatal(err)
	}
	for _, s := range steps {
		names, said = append(names, s.Node), append(said, s.Note)
		if s.Ended.IsZero() {
			t.Errorf("%s has not ended", s.Node)
		}
	}
	return names, said
}

func TestTheWayIsDecidedByRule(t *testing.T) {
	for text, want := range map[string]string{
		anode:           Straight,
		"and the pump?": Straight,
		"When is the filter of the heat pump washed, and how long does it take me or my wife?": Straight,
		"Really? Is the tank empty?":                      Straight,
		"When is it washed? Who washes it?":               Thorough,
		"Compare the boiler and the heat pump":            Thorough,
		"heat pump vs. boiler":                            Thorough,
		"What is the difference between the two boilers?": Thorough,
		"Vergleiche Boiler und Pumpe":                     Thorough,
		"Erkläre mir gründlich die Heizung":               Thorough,
		"Look into the boiler in depth":                   Thorough,
		"What was the result of the research?":            Straight,
		"Was deckt meine umfassende Versicherung?":        Straight,
		"What does comprehensive insurance cover?":        Straight,
		"Where is the comparison of pumps?":               Straight,
		"What says https://example.org/a?b=c of it all?":  Straight,
		"Research the boiler":                             Thorough,
		"Bitte recherchiere die Pumpe":                    Thorough,
	} {
		if got, why := wayOf(&Inquiry{Wanted: Auto, Asked: text, Writes: true}); got != want || why == "" {
			t.Errorf("%q goes %s (%s), want %s", text, got, why, want)
		}
	}
	for _, tt := range []struct {
		x    Inquiry
		want string
	}{
		{Inquiry{Asked: anode}, Thorough}, // a run from before there were two ways
		{Inquiry{Asked: anode, Wanted: Thorough, Writes: true}, Thorough},
		{Inquiry{Asked: "Compare a and b", Wanted: Straight, Writes: true}, Straight},
		{Inquiry{Asked: "Compare a and b", Wanted: Straight}, Straight},
	} {
		if got, _ := wayOf(&tt.x); got != tt.want {
			t.Errorf("%+v goes %s", tt.x, got)
		}
	}
}

func TestAPlainQuestionGoesStraightAndIsKeptStepByStep(t *testing.T) {
	c := &clerk{writes: `Every three years [1: "replaced every three years"]. Or seven [1: "every seven years"].`}
	q, _, _ := straight(t, c)
	shown, atEachWord := "", []string{}
	c.said = func() { atEachWord = append(atEachWord, shown) }
	var a llm.Accumulator
	for ev, err := range q.Vault().Stream(t.Context(), asksVault(anode, "turn-1")) {
		if err != nil {
			t.Fatal(err)
		}
		if ev.Thinking != "" {
			t.Errorf("it thinks aloud: %q", ev.Thinking)
		}
		shown += ev.Text
		a.Add(ev)
	}
	const want = "Every three years [1]. Or seven.\n\nOne citation was left out: what it quotes does not stand in your notes.\n"
	got := a.Answer()
	if shown != want || len(got.Citations) != 1 || got.Citations[0].Quote != "replaced every **three years" || got.Finish != llm.FinishLength || got.Route == nil || got.Route.Why != "because" || got.Usage.Input != llm.Known(7) {
		t.Errorf("%q\n%+v", shown, got)
	}
	if atEachWord[0] != "" && atEachWord[1] == "" || !strings.HasPrefix(atEachWord[2], "Every three") {
		t.Errorf("words do not come as they are written: %q", atEachWord)
	}
	names, said := nodes(t, q.Store, 1)
	if w := []string{"route", "retrieve", "rerank", "write", "answer"}; !slices.Equal(names, w) {
		t.Errorf("went by %q", names)
	}
	if w := []string{"straight: one question", "2 passages", "2 passages in the order of the search", "from 2 passages: 1 cited, 1 citation left out", "1 source"}; !slices.Equal(said, w) {
		t.Errorf("said %q", said)
	}
	calls, err := q.Store.Calls(t.Context(), 1)
	if err != nil || len(calls) != 1 || calls[0].Answered != c.writes || !strings.Contains(calls[0].Asked, "] boiler.md > Boiler > Care\n") {
		t.Errorf("%+v, %v", calls, err)
	}
	run, err := q.Store.Keyed(t.Context(), "turn-1")
	if err != nil || run.Status != Done || run.Way != Straight || run.Graph != "vault" || run.Spent.Calls != 1 || run.Spent.Tokens != 10 {
		t.Errorf("%+v, %v", run, err)
	}
	if _, err := q.Report(t.Context(), run.ID); !errors.Is(err, ErrNoReport) {
		t.Errorf("a report: %v", err)
	}
	// Lists tell the many from the few.
	some, err := q.Store.Runs(t.Context(), 9)
	many, err2 := q.Store.Straight(t.Context(), 9)
	if err := errors.Join(err, err2); err != nil || len(some) != 0 || len(many) != 1 {
		t.Errorf("%d and %d, %v", len(some), len(many), err)
	}
	if err := q.Store.Clean(t.Context(), run.Ended.Add(1e9)); err != nil {
		t.Fatal(err)
	}
	// Asked again, all of it is there.
	b, err := llm.Collect(q.Vault().Stream(t.Context(), asksVault(anode, "turn-1")))
	if err != nil || b.Message.Text() != want || len(b.Citations) != 1 || b.Finish != llm.FinishLength || b.Usage.Input != llm.Known(7) || b.Route.Model != "m" || len(c.asked) != 1 {
		t.Errorf("%q, %+v, %v, asked %q", b.Message.Text(), b, err, c.asked)
	}
	if err := q.Store.CleanStraight(t.Context(), run.Ended.Add(1e9)); err != nil {
		t.Fatal(err)
	}
	if many, err := q.Store.Straight(t.Context(), 9); err != nil || len(many) != 0 {
		t.Errorf("%d are left, %v", len(many), err)
	}
}

// alone answers from the library's parts, put together without a graph.
type alone struct {
	notes  *library.Vault
	model  llm.Provider
	writes bool
}

func (a alone) Stream(ctx context.Context, req llm.Request) iter.Seq2[llm.Event, error] {
	return func(yield func(llm.Event, error) bool) {
		show := func(ev llm.Event) bool { return yield(ev, nil) }
		var all []library.Numbered
		var draft *library.Draft
		var end llm.Event
		q, err := library.NewQuestion(req)
		if err != nil {
			yield(end, err)
			return
		}
		leads, err := a.notes.Look(ctx, q, a.writes)
		if err == nil && a.writes {
			all, _, err = a.notes.Gather(ctx, q, leads)
		}
		if err == nil && len(all) > 0 {
			draft, err = a.notes.Write(ctx, q, "m", all, func(req llm.Request) iter.Seq2[llm.Event, error] { return a.model.Stream(ctx, req) }, show)
		}
		if err == nil {
			end, err = a.notes.Close(ctx, q, leads, draft, show)
		}
		yield(end, err)
	}
}

// What the graph answers straight on is what the library alone answers, to the byte: with a model, with one that finds nothing, with one that is busy, without.
func TestTheStraightWaySaysWhatTheLibrarySays(t *testing.T) {
	busy := &llm.BusyError{Provider: "house", Reason: "5 of 5 are used", Kind: llm.Quota}
	for _, tt := range []struct {
		name, asked, writes string
		fail                error
		purpose             string
		steps               int
	}{
		{"written", anode, `Three years [1: "three years"] or five [2: "five years"].`, nil, "chat", 5},
		{"with a list of sources", anode, `Three years [1: "three years"] or five [2: "five years"].`, nil, "ask", 5},
		{"a guess", anode, `Nine years.`, nil, "chat", 5},
		{"refused", "How often is the anode of the boiler painted?", "NOTES_DO_NOT_SAY", nil, "chat", 5},
		{"nothing found", "zygomorphic quaternions", "x", nil, "chat", 5},
		{"busy", anode, "", busy, "chat", 5},
		{"a wrong key", anode, "", &llm.Error{Kind: llm.Auth, Message: "the key is wrong"}, "chat", 5},
		{"no model", anode, "-", nil, "chat", 4},
		{"no model, not known", "Who painted the Mona Lisa?", "-", nil, "chat", 4},
		{"no model, no words", "?", "-", nil, "chat", 4},
	} {
		t.Run(tt.name, func(t *testing.T) {
			c := &clerk{writes: tt.writes, fail: tt.fail}
			q, l, _ := straight(t, c)
			writes := func(llm.Request) (string, bool) { return "m", tt.writes != "-" }
			q.Model = writes
			alone := alone{library.NewVault(l, nil), c, tt.writes != "-"}
			req := asksVault(tt.asked, "")
			req.Purpose = tt.purpose
			want, err := llm.Collect(alone.Stream(t.Context(), req))
			if err != nil {
				t.Fatal(err)
			}
			got, err := llm.Collect(q.Vault().Stream(t.Context(), req))
			if err != nil || got.Message.Text() != want.Message.Text() || fmt.Sprint(got.Citations) != fmt.Sprint(want.Citations) || got.Finish != want.Finish ||
				fmt.Sprint(got.Usage) != fmt.Sprint(want.Usage) || fmt.Sprint(got.Route) != fmt.Sprint(want.Route) || got.Private != want.Private {
				t.Errorf("%v\n%+v\nwant\n%+v", err, got, want)
			}
			if names, _ := nodes(t, q.Store, 1); len(names) != tt.steps {
				t.Errorf("went by %q", names)
			}
		})
	}
	// A fault for good is told as it is, and a job that can wait waits.
	c := &clerk{fail: &llm.Error{Kind: llm.BadRequest, Message: "a field is unknown"}}
	q, _, _ := straight(t, c)
	if _, err := llm.Collect(q.Vault().Stream(t.Context(), asksVault(anode, ""))); !errors.Is(err, c.fail) {
		t.Errorf("%v", err)
	}
	c.fail = busy
	req := asksVault(anode, "job-1-0")
	req.Purpose = "job"
	if _, err := llm.Collect(q.Vault().Stream(t.Context(), req)); err != error(busy) { //nolint:errorlint // the very one
		t.Errorf("%v", err)
	}
	asked, quotes := len(c.asked), asksVault(anode, "")
	quotes.Model = library.Quotes
	if a, err := llm.Collect(q.Vault().Stream(t.Context(), quotes)); err != nil || len(a.Citations) == 0 || len(c.asked) != asked {
		t.Errorf("%+v, %v: passages need no model", a, err)
	}
	c.fail, c.writes = nil, `Three [1: "three years"].`
	if a, err := llm.Collect(q.Vault().Stream(t.Context(), req)); err != nil || a.Message.Text() != "Three [1]." {
		t.Errorf("%+v, %v", a, err)
	}
	for _, wrong := range []llm.Request{{Model: "gpt", Messages: req.Messages}, {Model: "vault"}} {
		if _, err := llm.Collect(q.Vault().Stream(t.Context(), wrong)); !llm.KindOf(err).Permanent() {
			t.Errorf("%+v: %v", wrong, err)
		}
	}
}

// Somebody waits for the answer: that it cannot be kept is no reason not to give it.
func TestAnAnswerIsGivenWhereItCannotBeKept(t *testing.T) {
	c := &clerk{writes: `Three years [1: "three years"].`}
	q, _, d := straight(t, c)
	c.said = func() { d.Close() } // while it writes
	for _, when := range []string{"while the model writes", "from the beginning"} {
		if a, err := llm.Collect(q.Vault().Stream(t.Context(), asksVault(anode, "turn-1"))); err != nil || a.Message.Text() != "Three years [1]." || len(a.Citations) != 1 {
			t.Errorf("refused %s: %+v, %v", when, a, err)
		}
	}
}

func TestAReaderWhoLeavesEndsTheWriting(t *testing.T) {
	c := &clerk{writes: strings.Repeat("word ", 100)}
	q, _, _ := straight(t, c)
	n := 0
	for range q.Vault().Stream(t.Context(), asksVault(anode, "")) {
		if n++; n == 3 {
			break
		}
	}
	run, err := q.Store.Run(t.Context(), 1)
	if err != nil || run.Status != Failed || !strings.Contains(run.Error, "went away") {
		t.Errorf("%+v, %v", run, err)
	}
	ctx, cancel := context.WithCancel(t.Context())
	defer cancel()
	c.said = cancel
	_, err = llm.Collect(q.Vault().Stream(ctx, asksVault(anode, "")))
	var e *llm.Error
	if !errors.As(err, &e) || e.Kind != llm.Cancelled || !e.Started {
		t.Errorf("%v", err)
	}
}

// A run that was forked has all that it needs in its state.
func TestAStraightRunIsForkedFromAnyStep(t *testing.T) {
	c := &clerk{writes: `Three years [1: "three years"].`}
	q, _, _ := straight(t, c)
	if _, err := llm.Collect(q.Vault().Stream(t.Context(), asksVault(anode, ""))); err != nil {
		t.Fatal(err)
	}
	for step := -1; step < 4; step++ {
		fork, err := q.Graph().Fork(t.Context(), q.Store, 1, step, nil)
		if err == nil {
			err = q.Go(t.Context(), fork.ID)
		}
		if err != nil {
			t.Fatalf("from step %d: %v", step, err)
		}
		_, x, err := q.Graph().Proceed(t.Context(), q.Store, fork.ID, Budget{}, nil)
		if err != nil || x.Answer != "Three years [1]." || len(x.Cited) != 1 || !x.Known {
			t.Errorf("from step %d: %+v, %v", step, x, err)
		}
	}
	if want := 1 + 4; len(c.asked) != want {
		t.Errorf("asked %d times, want %d: only what comes after the fork", len(c.asked), want)
	}
}

// What was found is ordered once, by the model that orders, whichever way it goes.
func TestWhatWasFoundIsOrderedOnce(t *testing.T) {
	c := &clerk{writes: `Five years [1: "five years"].`, orders: "2, 1"}
	q, l, _ := straight(t, c)
	l.Rerank(c, "small")
	a, err := llm.Collect(q.Vault().Stream(t.Context(), asksVault(anode, "")))
	if err != nil || !slices.Equal(c.asked, []string{"order", "write"}) {
		t.Fatalf("%+v, %v, asked %q", a, err, c.asked)
	}
	if _, said := nodes(t, q.Store, 1); said[2] != "the best 2 of 2 ordered by small, which finds 2 of use" {
		t.Errorf("said %q", said)
	}
	// Its silence costs nothing but the order.
	c.fail = &llm.Error{Kind: llm.Unavailable, Message: "the machine is off"}
	q.Model = func(llm.Request) (string, bool) { return "", false }
	if a, err := llm.Collect(q.Vault().Stream(t.Context(), asksVault(anode, ""))); err != nil || len(a.Citations) == 0 {
		t.Errorf("%+v, %v", a, err)
	}
	if _, said := nodes(t, q.Store, 2); !strings.Contains(said[2], "since small did not say: ") {
		t.Errorf("said %q", said)
	}
}

func TestTheBestOfManyAreKeptAndTheCutIsTold(t *testing.T) {
	found := func() (all []Source) {
		for i := range 50 {
			all = append(all, passage(fmt.Sprintf("%d.md", i), fmt.Sprintf("Passage %d says that part %d of the machine has %d screws of size %d.", i, i*7, i+3, i*5)))
		}
		return append(all, passage("twin.md", all[0].Quote+" Indeed."))
	}
	s := &scholar{}
	q := newInquiries(t, s)
	q.Search = func(_ context.Context, collection, _ string, _ int, _ bool) ([]Source, error) {
		if collection == "vault" {
			return found()[:40], nil
		}
		return found()[40:], nil
	}
	run := func(n int64) (Inquiry, string) {
		t.Helper()
		if _, err := inquiry(t, q, "Which screws has the machine?"); err != nil {
			t.Fatal(err)
		}
		_, said := nodes(t, q.Store, n)
		_, x, err := q.Graph().Proceed(t.Context(), q.Store, n, Budget{}, nil)
		if err != nil {
			t.Fatal(err)
		}
		return x, said[4]
	}
	x, said := run(1)
	if len(x.Found) != mostFound || x.Found[0].Path != "40.md" || said != "24 of 51 kept, by the fused score; 1 says the same as another; 26 behind the best" {
		t.Errorf("%d, first %s: %q", len(x.Found), x.Found[0].Path, said)
	}
	var hands []string
	ranks := provider(func(req llm.Request) string {
		if !strings.HasPrefix(req.Messages[0].Text(), "You order passages") {
			return ""
		}
		text := req.Messages[1].Text()
		s.mu.Lock()
		hands = append(hands, text)
		s.mu.Unlock()
		return "12, 11"
	})
	q.Orders = func() (string, bool) { return "small", true }
	q.Reader = streamer(func(ctx context.Context, req llm.Request) iter.Seq2[llm.Event, error] {
		if req.Model == "small" {
			return ranks.Stream(ctx, req)
		}
		return s.Stream(ctx, req)
	})
	before := x.Found
	x, said = run(2)
	if len(hands) != 3 || len(x.Found) != mostFound || said != "24 of 51 kept, by small; 1 says the same as another; 26 behind the best" {
		t.Fatalf("%d hands, %d: %q", len(hands), len(x.Found), said)
	}
	if slices.ContainsFunc(x.Found[:6], func(f Source) bool {
		return slices.ContainsFunc(before, func(b Source) bool { return b.Path == f.Path })
	}) {
		t.Errorf("what it finds of use does not stand first: %+v", x.Found[:6])
	}
}

// BenchmarkFirstWord measures how long it is from the question to the first word of an answer from a model that answers at once: by the library alone, as
// the model vault was, and by the graph.
func BenchmarkFirstWord(b *testing.B) {
	path := filepath.Join(b.TempDir(), "answers.yaml")
	if err := os.WriteFile(path, []byte("reply:\n  - text: 'Every three years [1: \"three years\"].'\n"), 0o600); err != nil {
		b.Fatal(err)
	}
	house, err := scripted.New(scripted.Config{Name: "house", Path: path})
	if err != nil {
		b.Fatal(err)
	}
	files := map[string]string{}
	for i := range 2000 {
		files[fmt.Sprintf("%d.md", i)] = fmt.Sprintf("# Machine %d\n\nThe anode of machine %d is replaced every %d years. Its boiler stands in room %d.\n\n## Care\n\nDrain the tank in May, and look at valve %d.\n", i, i, i%9+2, i%40, i*7)
	}
	l := notes(b, files)
	writes := func(llm.Request) (string, bool) { return "m", true }
	alone := alone{library.NewVault(l, nil), house, true}
	st, _ := newStore(b)
	q := &Inquiries{Store: st, Reader: house, Notes: library.NewVault(l, nil), Orders: l.Orders, Model: writes}
	for name, p := range map[string]llm.Provider{"library": alone, "graph": q.Vault()} {
		b.Run(name, func(b *testing.B) {
			var first []time.Duration
			for b.Loop() {
				began, n := time.Now(), len(first)
				for ev, err := range p.Stream(b.Context(), asksVault("How often is the anode of machine 77 replaced?", "")) {
					if err != nil {
						b.Fatal(err)
					}
					if ev.Text != "" && len(first) == n {
						first = append(first, time.Since(began))
					}
				}
			}
			slices.Sort(first)
			b.ReportMetric(float64(first[len(first)/2].Microseconds())/1000, "ms/first-word")
			b.ReportMetric(float64(first[len(first)*95/100].Microseconds())/1000, "ms/first-word-p95")
		})
	}
}
