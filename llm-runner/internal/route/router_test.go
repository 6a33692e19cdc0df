package route

import (
	"context"
	"errors"
	"io"
	"iter"
	"log/slog"
	"os"
	"path/filepath"
	"strings"
	"sync/atomic"
	"syscall"
	"testing"
	"testing/synctest"
	"time"

	"home.arpa/lab/llm-runner/internal/db"
	"home.arpa/lab/llm-runner/internal/llm"
	"home.arpa/lab/llm-runner/internal/quota"
	"home.arpa/lab/llm-runner/internal/usage"
)

// answers is a provider that yields what it is told.
type answers struct {
	events []llm.Event
	err    error
	models []llm.ModelInfo
	down   atomic.Bool
	calls  atomic.Int64
	gate   chan struct{} // when set, each call waits here, or for its context
}

func (p *answers) Stream(ctx context.Context, req llm.Request) iter.Seq2[llm.Event, error] {
	return func(yield func(llm.Event, error) bool) {
		p.calls.Add(1)
		if p.gate != nil {
			select {
			case <-p.gate:
			case <-ctx.Done():
				yield(llm.Event{}, &llm.Error{Kind: llm.Cancelled, Err: ctx.Err()})
				return
			}
		}
		for _, ev := range p.events {
			if !yield(ev, nil) {
				return
			}
		}
		if p.err != nil {
			yield(llm.Event{}, p.err)
		}
	}
}

func (p *answers) Models(context.Context) ([]llm.ModelInfo, error) { return p.models, nil }

func (p *answers) probe(context.Context) error {
	if p.down.Load() {
		return errors.New("connection refused")
	}
	return nil
}

func says(text string) *answers {
	return &answers{events: []llm.Event{{Text: text}, {Usage: &llm.Usage{Input: llm.Known(3), Output: llm.Known(1)}, Finish: llm.FinishStop}}}
}

// house is a router over a real ledger.
type house struct {
	*Router
	db   *db.DB
	stop func()
}

func newHouse(t *testing.T, table Table, members ...Member) *house {
	t.Helper()
	d, err := db.Open(t.Context(), filepath.Join(t.TempDir(), db.Name))
	if err != nil {
		t.Fatal(err)
	}
	l, err := usage.Open(t.Context(), d, nil)
	if err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithCancel(context.Background())
	done := make(chan struct{})
	go func() {
		defer close(done)
		l.Run(ctx) //nolint:errcheck // it returns nil
	}()
	h := &house{Router: New(Config{Table: table, Members: members, Ledger: l, Book: &quota.Book{}, Log: slog.New(slog.DiscardHandler),
		Otherwise: Target{"vault", "vault"}}), db: d}
	h.stop = func() { cancel(); <-done }
	t.Cleanup(func() { h.stop(); d.Close() })
	return h
}

// rows stops the ledger and returns its outcomes, oldest first.
func (h *house) rows(t *testing.T) string {
	t.Helper()
	h.stop()
	rows, err := usage.Recent(t.Context(), h.db, 100)
	if err != nil {
		t.Fatal(err)
	}
	var s []string
	for i := len(rows) - 1; i >= 0; i-- {
		s = append(s, rows[i].Provider+"/"+rows[i].Rule+"/"+string(rows[i].Outcome))
	}
	return strings.Join(s, " ")
}

func ask(h *house, model string) (llm.Answer, error) {
	return llm.Collect(h.Stream(context.Background(), llm.Request{Model: model, Purpose: "test"}))
}

var cloudTable = Table{
	Default: Target{"home", "small"},
	Models: map[string]Entry{
		"big":  {Target: Target{"groq", "llama"}, Fallback: "home"},
		"lone": {Target: Target{"groq", "llama"}},
		"home": {Target: Target{"home", "small"}},
	},
}

func TestAnAnswerIsRoutedAndBooked(t *testing.T) {
	h := newHouse(t, cloudTable, Member{Name: "groq", Cloud: true, Provider: says("hello")}, Member{Name: "home", Provider: says("home")})
	a, err := ask(h, "big")
	if err != nil || a.Message.Text() != "hello" || a.Route == nil || a.Route.Provider != "groq" || a.Route.Rule != RuleCloud {
		t.Errorf("%+v, %v", a, err)
	}
	if got := h.rows(t); got != "groq/cloud/ok" {
		t.Errorf("ledger: %s", got)
	}
}

// Reasoning that only its model can read goes back with the results of tools, so it must come through, also as the first that comes.
func TestAnAnswerThatBeginsWithSealedReasoningKeepsIt(t *testing.T) {
	p := &answers{events: []llm.Event{{Redacted: "sealed"}, {Text: "hello"}, {Finish: llm.FinishStop}}}
	h := newHouse(t, cloudTable, Member{Name: "home", Provider: p})
	a, err := ask(h, "home")
	if err != nil || len(a.Message.Parts) != 2 || a.Message.Parts[0].Thinking == nil || a.Message.Parts[0].Thinking.Redacted != "sealed" || a.Route == nil {
		t.Errorf("%+v, %v", a, err)
	}
}

func TestARefusalGoesToTheNamedFallbackAndIsRemembered(t *testing.T) {
	groq := &answers{err: &llm.Error{Kind: llm.Quota, Message: "rate limit reached", Until: time.Now().Add(time.Hour)}}
	h := newHouse(t, cloudTable, Member{Name: "groq", Cloud: true, Provider: groq}, Member{Name: "home", Provider: says("home")})
	for range 2 {
		a, err := ask(h, "big")
		if err != nil || a.Message.Text() != "home" || a.Route.Rule != RuleFallback {
			t.Errorf("%+v, %v", a, err)
		}
	}
	if n := groq.calls.Load(); n != 1 {
		t.Errorf("a provider that said when to come back was asked %d times", n)
	}
	if got := h.rows(t); got != "groq/cloud/busy home/fallback/ok home/fallback/ok" {
		t.Errorf("ledger: %s", got)
	}
}

func TestWithoutAFallbackTheCallerIsToldWhenToComeBack(t *testing.T) {
	until := time.Now().Add(time.Hour)
	groq := &answers{err: &llm.Error{Kind: llm.Quota, Message: "rate limit reached", Until: until}}
	h := newHouse(t, cloudTable, Member{Name: "groq", Cloud: true, Provider: groq}, Member{Name: "home", Provider: says("home")})
	for range 2 {
		_, err := ask(h, "lone")
		var busy *llm.BusyError
		if !errors.As(err, &busy) || !busy.Until.Equal(until) || busy.Kind != llm.Quota {
			t.Errorf("got %v", err)
		}
	}
	if got := h.rows(t); got != "groq/cloud/busy" {
		t.Errorf("ledger: %s", got)
	}
}

func TestRequiringAProviderThatDoesNotExistIsNoReasonToWait(t *testing.T) {
	h := newHouse(t, cloudTable, Member{Name: "home", Provider: says("home")})
	_, err := llm.Collect(h.Stream(context.Background(), llm.Request{Requires: "davas"}))
	if llm.KindOf(err) != llm.BadRequest || !strings.Contains(err.Error(), `no provider "davas"`) {
		t.Errorf("got %v", err)
	}
}

func TestABrokenStreamIsNeverFinishedElsewhere(t *testing.T) {
	groq := &answers{events: []llm.Event{{Text: "half"}}, err: &llm.Error{Kind: llm.Unavailable, Message: "reset", Started: true}}
	h := newHouse(t, cloudTable, Member{Name: "groq", Cloud: true, Provider: groq}, Member{Name: "home", Provider: says("home")})
	a, err := ask(h, "big")
	var e *llm.Error
	if !errors.As(err, &e) || a.Message.Text() != "half" || a.Finish != "" {
		t.Errorf("%+v, %v", a, err)
	}
	if got := h.rows(t); got != "groq/cloud/error" {
		t.Errorf("ledger: %s", got)
	}
}

func TestAStreamThatJustEndsIsAnError(t *testing.T) {
	h := newHouse(t, cloudTable, Member{Name: "groq", Cloud: true, Provider: &answers{events: []llm.Event{{Text: "half"}}}}, Member{Name: "home", Provider: says("home")})
	if _, err := ask(h, "lone"); err == nil {
		t.Error("an answer without a finish was taken for a whole one")
	}
}

func TestWhoStopsListeningCancels(t *testing.T) {
	h := newHouse(t, cloudTable, Member{Name: "groq", Cloud: true, Provider: says("hello")}, Member{Name: "home", Provider: says("home")})
	for range h.Stream(context.Background(), llm.Request{Model: "big"}) {
		break
	}
	if got := h.rows(t); got != "groq/cloud/cancelled" {
		t.Errorf("ledger: %s", got)
	}
}

func TestPlacesAreTakenInTurnAndGivenBack(t *testing.T) {
	p := says("one at a time")
	p.gate = make(chan struct{})
	h := newHouse(t, cloudTable, Member{Name: "groq", Cloud: true, Provider: p, Concurrency: 1}, Member{Name: "home", Provider: says("home")})
	done := make(chan error, 3)
	for range 3 {
		go func() {
			_, err := ask(h, "lone")
			done <- err
		}()
	}
	for range 3 {
		p.gate <- struct{}{}
		if err := <-done; err != nil {
			t.Error(err)
		}
	}
	// One who gives up in line frees nothing that he did not have.
	ctx, cancel := context.WithCancel(context.Background())
	go ask(h, "lone") //nolint:errcheck // it is let go below
	for h.member["groq"].active.Load() == 0 {
		select {
		case <-t.Context().Done():
			t.Fatal("nobody entered")
		case <-time.After(time.Millisecond):
		}
	}
	cancel()
	if _, err := llm.Collect(h.Stream(ctx, llm.Request{Model: "lone"})); llm.KindOf(err) != llm.Cancelled {
		t.Errorf("got %v", err)
	}
	p.gate <- struct{}{}
}

func TestTheLastRequestOfAMinuteIsTakenOnce(t *testing.T) {
	p := says("the last one")
	p.gate = make(chan struct{})
	h := newHouse(t, cloudTable, Member{Name: "groq", Cloud: true, Provider: p}, Member{Name: "home", Provider: says("home")})
	reset := time.Now().Add(30 * time.Second)
	h.book.Learn("groq", []llm.Limit{{Model: "llama", Dimension: llm.RequestsPerMinute, Max: llm.Known(30), Remaining: llm.Known(1), Reset: reset}}, time.Now())
	done := make(chan error, 2)
	for range 2 {
		go func() {
			_, err := ask(h, "lone")
			done <- err
		}()
	}
	err := <-done // the other one has what was left, and waits at the gate
	var busy *llm.BusyError
	if !errors.As(err, &busy) || busy.Kind != llm.Quota || busy.Until.Sub(reset).Abs() > time.Second {
		t.Errorf("the second: %v", err)
	}
	p.gate <- struct{}{}
	if err := <-done; err != nil {
		t.Errorf("the first: %v", err)
	}
	if n := p.calls.Load(); n != 1 {
		t.Errorf("the provider was asked %d times", n)
	}
	if a, err := ask(h, "big"); err != nil || a.Message.Text() != "home" {
		t.Errorf("a fallback that is named answers: %+v, %v", a, err)
	}
	if got := h.rows(t); got != "groq/cloud/ok home/fallback/ok" {
		t.Errorf("ledger: %s", got)
	}
}

func TestAnOverloadGivesBackWhatWasReserved(t *testing.T) {
	groq := &answers{err: &llm.Error{Kind: llm.Overload, Message: "overloaded"}}
	h := newHouse(t, cloudTable, Member{Name: "groq", Cloud: true, Provider: groq}, Member{Name: "home", Provider: says("home")})
	h.book.Learn("groq", []llm.Limit{{Model: "llama", Dimension: llm.RequestsPerMinute, Max: llm.Known(30), Remaining: llm.Known(7), Reset: time.Now().Add(time.Minute)}}, time.Now())
	if _, err := ask(h, "lone"); llm.KindOf(err) != llm.Overload {
		t.Errorf("got %v", err)
	}
	if s := h.book.Standings("groq", time.Now()); s[0].Remaining != llm.Known(7) {
		t.Errorf("%+v", s)
	}
}

func TestHealthIsSeenWithinFiveSecondsOfAChange(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		davas := says("big")
		var told []Change
		r := New(Config{Table: Table{Default: Target{"davas", "gemma4:27b"}}, Book: &quota.Book{}, Log: slog.New(slog.DiscardHandler),
			Members: []Member{{Name: "davas", Kind: "ollama", Provider: davas, Probe: davas.probe}},
			Notify:  func(c Change) { told = append(told, c) }})
		ctx, cancel := context.WithCancel(t.Context())
		defer cancel()
		go r.Run(ctx) //nolint:errcheck // it returns nil
		synctest.Wait()
		if d := r.Decide(Ask{}); d.Hold != nil {
			t.Errorf("up: %+v", d.Hold)
		}
		davas.down.Store(true)
		time.Sleep(5 * time.Second)
		synctest.Wait()
		if d := r.Decide(Ask{}); d.Hold == nil || !strings.Contains(d.Hold.Reason, "connection refused") {
			t.Errorf("down: %+v", d)
		}
		davas.down.Store(false)
		time.Sleep(5 * time.Second)
		synctest.Wait()
		if d := r.Decide(Ask{}); d.Hold != nil {
			t.Errorf("back: %+v", d.Hold)
		}
		if len(told) != 3 || !told[0].Up || !told[0].Since.IsZero() || told[1].Up || !told[2].Up {
			t.Errorf("told %+v", told)
		}
	})
}

func TestARefusalForKeyOrMoneyIsToldOnceAndItsEnd(t *testing.T) {
	groq := says("x")
	h := newHouse(t, cloudTable, Member{Name: "groq", Cloud: true, Provider: groq}, Member{Name: "home", Provider: says("home")})
	var told []string
	h.refused = func(provider string, e *llm.Error) {
		if e == nil {
			e = &llm.Error{Kind: "fine"}
		}
		told = append(told, provider+" "+string(e.Kind))
	}
	m := h.member["groq"]
	for _, step := range []struct {
		model string
		kind  llm.Kind // "" it answers
		want  string
	}{
		{"", "", ""}, // that it lists its models says nothing of money
		{"a", "", "groq fine"},
		{"a", "", ""},
		{"a", llm.Quota, ""},
		{"a", llm.Auth, "groq auth"},
		{"b", llm.Spend, ""},
		{"b", "", ""}, // another model's requests are another matter
		{"a", "", "groq fine"},
		{"", llm.Auth, "groq auth"},
		{"", "", "groq fine"},
	} {
		told = nil
		var e *llm.Error
		if step.kind != "" {
			e = &llm.Error{Kind: step.kind}
		}
		h.judged(m, step.model, e)
		if got := strings.Join(told, ","); got != step.want {
			t.Errorf("%+v: told %q", step, got)
		}
	}
	told = nil
	groq.events, groq.err = nil, &llm.Error{Kind: llm.Spend, Status: 402, Message: "no money"}
	ask(h, "lone") //nolint:errcheck // what it tells of the refusal counts here
	if len(told) != 1 || told[0] != "groq spend" {
		t.Errorf("told %q", told)
	}
}

func TestWhatIsFoundAppearsAndDisappears(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		ollama := says("hi")
		ollama.down.Store(true)
		groq := says("fast")
		groq.models = []llm.ModelInfo{{Name: "llama3.2:3b"}, {Name: "llama-3.3-70b-versatile"}}
		ollama.models = []llm.ModelInfo{{Name: "nomic-embed-text", Embeds: true}, {Name: "llama3.2:3b"}, {Name: "qwen2.5:14b"}}
		vault := says("quoted")
		r := New(Config{Otherwise: Target{"vault", "vault"}, Book: &quota.Book{}, Log: slog.New(slog.DiscardHandler),
			Table: Table{Models: map[string]Entry{"vault": {Target: Target{"vault", "vault"}}}},
			Members: []Member{
				{Name: "ollama", Kind: "ollama", Provider: ollama, Probe: ollama.probe, Found: true, Prefer: []string{"qwen2.5:14b"}},
				{Name: "groq", Cloud: true, Provider: groq},
				{Name: "vault", Kind: "vault", Provider: vault}}})
		if d := r.Decide(Ask{}); d.Targets[0].Provider != "vault" {
			t.Errorf("before anything is known: %+v", d)
		}
		ctx, cancel := context.WithCancel(t.Context())
		defer cancel()
		go r.Run(ctx) //nolint:errcheck // it returns nil
		synctest.Wait()
		if n := len(r.Reports()); n != 2 {
			t.Errorf("a machine that nobody configured and that is not there is reported")
		}
		ollama.down.Store(false)
		time.Sleep(5 * time.Second)
		synctest.Wait()
		if d := r.Decide(Ask{}); d.Targets[0] != (Target{"ollama", "qwen2.5:14b"}) {
			t.Errorf("the default once it answers: %+v", d)
		}
		if d := r.Decide(Ask{Model: "llama3.2:3b"}); d.Targets[0] != (Target{"ollama", "llama3.2:3b"}) || d.Rule != RuleLocal {
			t.Errorf("its models are rows: %+v", d)
		}
		var names []string
		for _, m := range r.Listing().Models {
			names = append(names, m.Name)
		}
		// The default first, then the rows, then what a configured provider has besides.
		if got := strings.Join(names, " "); got != "qwen2.5:14b llama3.2:3b nomic-embed-text vault groq/llama3.2:3b groq/llama-3.3-70b-versatile" {
			t.Errorf("listing %s", got)
		}
		if list := r.Listing().Models; !list[0].Default || list[1].Default || !list[2].Embeds || !list[4].Cloud || list[4].Row {
			t.Errorf("listing %+v", list)
		}
		ollama.down.Store(true)
		time.Sleep(5 * time.Second)
		synctest.Wait()
		if d := r.Decide(Ask{}); d.Targets[0].Provider != "vault" {
			t.Errorf("gone again: %+v", d)
		}
	})
}

func TestACloudThatCannotBeAskedStillOffersItsPreferredModels(t *testing.T) {
	r := New(Config{Otherwise: Target{"vault", "vault"}, Book: &quota.Book{}, Log: slog.New(slog.DiscardHandler),
		Members: []Member{{Name: "groq", Cloud: true, Found: true, Prefer: []string{"llama-3.3-70b-versatile"}, Provider: says("hi")}}})
	if d := r.Decide(Ask{}); d.Targets[0] != (Target{"groq", "llama-3.3-70b-versatile"}) {
		t.Errorf("%+v", d)
	}
}

func TestAHiccupIsTriedOnceMoreWhereSomebodyWaits(t *testing.T) {
	for _, x := range []struct {
		name    string
		err     *llm.Error
		purpose string
		calls   int64
	}{
		{"500", &llm.Error{Kind: llm.Unavailable, Status: 500}, "api", 2},
		{"502", &llm.Error{Kind: llm.Unavailable, Status: 502}, "chat", 2},
		{"hung up", &llm.Error{Kind: llm.Unavailable, Err: io.EOF}, "ask", 2},
		{"reset", &llm.Error{Kind: llm.Unavailable, Err: os.NewSyscallError("read", syscall.ECONNRESET)}, "api", 2},
		{"a job has attempts of its own", &llm.Error{Kind: llm.Unavailable, Status: 500}, "job", 1},
		{"silence", &llm.Error{Kind: llm.Unavailable, Message: "no answer for 30s"}, "api", 1},
		{"somebody else's silence", &llm.Error{Kind: llm.Unavailable, Status: 504}, "api", 1},
		{"nobody listens", &llm.Error{Kind: llm.Unavailable, Err: os.NewSyscallError("connect", syscall.ECONNREFUSED)}, "api", 1},
		{"a time is told", &llm.Error{Kind: llm.Unavailable, Status: 500, Until: time.Now().Add(time.Hour)}, "api", 1},
		{"overload", &llm.Error{Kind: llm.Overload, Status: 503}, "api", 1},
		{"a bad request", &llm.Error{Kind: llm.BadRequest, Status: 400}, "api", 1},
		{"in the middle", &llm.Error{Kind: llm.Unavailable, Status: 500, Started: true}, "api", 1},
	} {
		t.Run(x.name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				groq := &answers{err: x.err}
				h := newHouse(t, cloudTable, Member{Name: "groq", Cloud: true, Provider: groq}, Member{Name: "home", Provider: says("home")})
				began := time.Now()
				_, err := llm.Collect(h.Stream(t.Context(), llm.Request{Model: "lone", Purpose: x.purpose}))
				if err == nil || groq.calls.Load() != x.calls {
					t.Errorf("%d calls, want %d: %v", groq.calls.Load(), x.calls, err)
				}
				if took := time.Since(began); took > 400*time.Millisecond || x.calls == 2 && took < 200*time.Millisecond {
					t.Errorf("it took %s", took)
				}
			})
		})
	}
}

func TestWhatIsTooLongForOneModelGoesToTheFallbackThatIsNamed(t *testing.T) {
	groq := &answers{err: &llm.Error{Kind: llm.BadRequest, Status: 400, TooLong: true}}
	h := newHouse(t, cloudTable, Member{Name: "groq", Cloud: true, Provider: groq}, Member{Name: "home", Provider: says("home")})
	if a, err := ask(h, "big"); err != nil || a.Route.Provider != "home" || a.Route.Rule != RuleFallback {
		t.Errorf("%+v, %v", a, err)
	}
	if _, err := ask(h, "lone"); llm.KindOf(err) != llm.BadRequest {
		t.Errorf("nobody else is named: %v", err)
	}
	groq.err = &llm.Error{Kind: llm.BadRequest, Status: 400}
	if _, err := ask(h, "big"); llm.KindOf(err) != llm.BadRequest {
		t.Errorf("a request that nobody can answer: %v", err)
	}
	if got := h.rows(t); got != "groq/cloud/error home/fallback/ok groq/cloud/error groq/cloud/error" {
		t.Errorf("ledger: %s", got)
	}
}
