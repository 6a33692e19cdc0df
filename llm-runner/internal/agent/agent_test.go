package agent

import (
	"context"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"iter"
	"log/slog"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"testing"
	"testing/fstest"
	"time"

	"home.arpa/lab/internal/discord"
	"home.arpa/lab/llm-runner/internal/alert"
	"home.arpa/lab/llm-runner/internal/db"
	"home.arpa/lab/llm-runner/internal/engine"
	"home.arpa/lab/llm-runner/internal/llm"
	"home.arpa/lab/llm-runner/internal/toolbox"
	"home.arpa/lab/llm-runner/internal/toolbox/loop"
	"home.arpa/lab/llm-runner/test/enginetest"
)

// A sink keeps what it is sent, unless fault says why not.
type sink struct {
	mu    sync.Mutex
	got   []string
	tries int
	fault func() (time.Duration, error)
}

func (s *sink) Name() string { return "Discord" }
func (s *sink) Max() int     { return discord.MaxContent }
func (s *sink) Send(_ context.Context, text string) (time.Duration, error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.tries++
	if s.fault != nil {
		if again, err := s.fault(); err != nil {
			return again, err
		}
	}
	s.got = append(s.got, text)
	return 0, nil
}

func (s *sink) posts() []string {
	s.mu.Lock()
	defer s.mu.Unlock()
	return slices.Clone(s.got)
}

// A model answers what it is told to.
type model struct {
	mu     sync.Mutex
	asked  []llm.Request
	answer func(n int, req llm.Request) (string, error)
}

func (m *model) Stream(_ context.Context, req llm.Request) iter.Seq2[llm.Event, error] {
	return func(yield func(llm.Event, error) bool) {
		m.mu.Lock()
		m.asked = append(m.asked, req)
		n := len(m.asked)
		m.mu.Unlock()
		text, err := "All is quiet.", error(nil)
		if m.answer != nil {
			text, err = m.answer(n, req)
		}
		if err != nil {
			yield(llm.Event{}, err)
			return
		}
		ev := llm.Event{Route: &llm.Route{Provider: "groq", Model: "m"}, Text: text}
		if name, arguments, ok := strings.Cut(strings.TrimPrefix(text, "call "), " "); ok && strings.HasPrefix(text, "call ") {
			ev.Text, ev.Call = "", &llm.CallDelta{ID: fmt.Sprint("c", n), Name: name, Arguments: arguments}
		}
		if !yield(ev, nil) {
			return
		}
		finish := llm.FinishStop
		if ev.Call != nil {
			finish = llm.FinishTools
		}
		yield(llm.Event{Usage: &llm.Usage{Input: llm.Known(100), Output: llm.Known(10)}, Finish: finish}, nil)
	}
}

func (m *model) count() int {
	m.mu.Lock()
	defer m.mu.Unlock()
	return len(m.asked)
}

// A bench is a place for agents whose clock the test holds.
type bench struct {
	testing.TB
	path, vault string
	files       fstest.MapFS
	posts       *sink
	model       *model
	config      Config // what the next start adds
	box         bool
	tools       []toolbox.Tool
	sink        alert.Sink // instead of posts
	hooked      func(string)
	log         *slog.Logger // nil: nowhere

	mu  sync.Mutex
	now time.Time

	*Service
	alerts *alert.Service
	stop   func()
}

func newBench(t testing.TB, files map[string]string) *bench {
	b := &bench{TB: t, path: filepath.Join(t.TempDir(), db.Name), vault: t.TempDir(), files: fstest.MapFS{}, posts: &sink{}, model: &model{}, now: at(t, "2026-02-01 12:00"), stop: func() {}}
	for name, text := range files {
		b.write(name, text)
	}
	t.Cleanup(func() { b.stop() })
	return b
}

func (b *bench) write(name, text string) {
	b.files[name+".md"] = &fstest.MapFile{Data: []byte(text), Mode: 0o644}
}

func (b *bench) clock() time.Time {
	b.mu.Lock()
	defer b.mu.Unlock()
	return b.now
}

func (b *bench) at(t time.Time) {
	b.mu.Lock()
	b.now = t
	b.mu.Unlock()
}

// database opens what the tests run on.
var database enginetest.Opener = enginetest.Open

// start opens the service, as a process does that starts.
func (b *bench) start() *bench {
	b.Helper()
	b.stop()
	log := slog.New(slog.NewTextHandler(io.Discard, nil))
	if os.Getenv("AGENT_LOG") != "" {
		log = slog.New(slog.NewTextHandler(os.Stderr, nil))
	}
	if b.log != nil {
		log = b.log
	}
	var err error
	d, e := database(b, b.path, engine.Config{Poll: 4 * time.Millisecond, Log: log})
	c := b.config
	c.Folders, c.Zone, c.Vault, c.Now, c.Log = []Folder{{Path: "agents", FS: b.files}}, zone(b, "Europe/Berlin"), b.vault, b.clock, log
	c.Sinks = map[string]alert.Sink{"discord": b.posts}
	if b.sink != nil {
		c.Sinks["discord"] = b.sink
	}
	if c.Ask == nil {
		c.Ask = b.model
	}
	if b.box {
		if c.Box, err = toolbox.Open(context.Background(), d, toolbox.Config{Log: log}); err != nil {
			b.Fatal(err)
		}
	}
	if c.Box != nil {
		if err := c.Box.Add(b.tools...); err != nil {
			b.Fatal(err)
		}
	}
	if b.alerts, err = alert.Open(context.Background(), d, alert.Config{Log: log}); err != nil {
		b.Fatal(err)
	}
	c.Alerts = b.alerts
	if b.Service, err = New(context.Background(), d, e, c); err != nil {
		b.Fatal(err)
	}
	if b.hooked != nil {
		b.reached = b.hooked
	}
	if err := e.Launch(); err != nil {
		b.Fatal(err)
	}
	b.stop = func() {
		b.stop = func() {}
		if err := errors.Join(e.Close(10*time.Second), d.Close()); err != nil {
			b.Fatal(err)
		}
	}
	return b
}

// settle looks for what is due, until nothing moves any more at this time, and returns when the next thing is due.
func (b *bench) settle() time.Time {
	b.Helper()
	deadline := time.After(30 * time.Second)
	for {
		changed := b.Changed()
		next, err := b.pass(b.Context(), b.clock())
		if err != nil {
			b.Fatal(err)
		}
		moving := b.moving()
		select {
		case <-changed: // since it was looked
			continue
		default:
		}
		if len(moving) == 0 && (next.IsZero() || next.After(b.clock())) {
			return next
		}
		if len(moving) == 0 {
			continue
		}
		select {
		case <-changed:
		case <-deadline:
			b.Fatalf("it does not come to rest: %v", moving)
		}
	}
}

// moving are the runs and deliveries that something happens to by itself, now.
func (b *bench) moving() (all []string) {
	open, err := runs(b.Context(), b.db, `WHERE state IN ('queued', 'running') OR state = 'waiting' AND next_at <= ? OR state = 'planned' AND cause <> 'agent'
		AND NOT EXISTS (SELECT 1 FROM agent_runs x WHERE x.agent = agent_runs.agent AND x.state = 'waiting')`, b.clock().UnixMilli())
	if err != nil {
		b.Fatal(err)
	}
	for _, r := range open {
		all = append(all, fmt.Sprint(r.Agent, " ", r.State))
	}
	posts, err := deliveries(b.Context(), b.db.Read(), `WHERE state IN ('queued', 'sending') OR state = 'waiting' AND next_at <= ?`, b.clock().UnixMilli())
	if err != nil {
		b.Fatal(err)
	}
	for _, d := range posts {
		all = append(all, fmt.Sprint(d.Sink, " ", d.State))
	}
	return all
}

// until lets time pass, and does what is due on the way.
func (b *bench) until(t time.Time) {
	b.Helper()
	for {
		next := b.settle()
		if next.IsZero() || next.After(t) {
			b.at(t)
			return
		}
		b.at(next)
	}
}

// ask has an agent run now, to its end.
func (b *bench) ask(name string, dry bool) Detail {
	b.Helper()
	r, err := b.Start(b.Context(), name, dry, "")
	if err != nil {
		b.Fatal(err)
	}
	b.settle()
	return b.detail(r.ID)
}

func (b *bench) detail(id int64) Detail {
	b.Helper()
	x, err := b.Detail(b.Context(), id)
	if err != nil {
		b.Fatal(err)
	}
	return x
}

func (b *bench) notes() (all []string) {
	b.Helper()
	if err := fs.WalkDir(os.DirFS(b.vault), ".", func(p string, d fs.DirEntry, err error) error {
		if err == nil && !d.IsDir() {
			all = append(all, p)
		}
		return err
	}); err != nil {
		b.Fatal(err)
	}
	return all
}

func (b *bench) read(p string) string {
	b.Helper()
	text, err := os.ReadFile(filepath.Join(b.vault, p))
	if err != nil {
		b.Fatal(err)
	}
	return string(text)
}

const daily = "---\nschedule: \"0 7 * * *\"\ndeliver: [daily, discord]\n---\nSay good morning on {{weekday}}, {{date}}.\n"

func TestARunIsDeliveredToEachPlaceOnce(t *testing.T) {
	b := newBench(t, map[string]string{"hello": daily}).start()
	b.settle()
	b.until(at(t, "2026-02-02 07:00"))
	if got := b.posts.posts(); len(got) != 1 || got[0] != "**hello, 2026-02-02**\nAll is quiet." {
		t.Fatalf("%q", got)
	}
	if text := b.read("Daily/2026-02-02.md"); text != "<!-- generated: hello -->\n## hello\n\nAll is quiet.\n<!-- end of generated: hello -->\n" {
		t.Errorf("%q", text)
	}
	all, err := b.History(t.Context(), "", 10)
	if err != nil || len(all) != 1 || all[0].State != Done || all[0].Tokens != 110 || all[0].By != "groq" {
		t.Fatalf("%+v, %v", all, err)
	}
	if asked := b.model.asked[0].Messages[1].Text(); asked != "Say good morning on Monday, 2026-02-02." {
		t.Error(asked)
	}
}

func TestAPlaceThatIsAwayIsTriedAgainAndTheModelIsNot(t *testing.T) {
	b := newBench(t, map[string]string{"hello": daily}).start()
	b.settle()
	away := true
	b.posts.fault = func() (time.Duration, error) {
		if away {
			return time.Second, errors.New("Discord does not answer")
		}
		return 0, nil
	}
	b.until(at(t, "2026-02-02 08:00"))
	if b.model.count() != 1 || len(b.posts.posts()) != 0 || b.posts.tries < 5 || b.posts.tries > 20 {
		t.Fatalf("asked %d times, tried %d times", b.model.count(), b.posts.tries)
	}
	b.start() // a restart in between
	away = false
	b.until(at(t, "2026-02-02 08:30"))
	if b.model.count() != 1 || len(b.posts.posts()) != 1 {
		t.Errorf("asked %d times, posted %d", b.model.count(), len(b.posts.posts()))
	}
	away = true
	b.until(at(t, "2026-02-04 06:00"))
	x := b.detail(2)
	if x.State != Done || x.Deliveries[1].State != "failed" || !strings.HasPrefix(x.Deliveries[1].Reason, "given up after a day") || x.Deliveries[0].State != "done" {
		t.Errorf("%+v", x.Deliveries)
	}
}

func TestAWrongFileIsNamedAndTheOthersGoOn(t *testing.T) {
	b := newBench(t, map[string]string{"hello": daily,
		"bad": "---\nschedul: x\nmissed: never\ndeliver: [pager]\nbudget:\n  tokens: many\nfeeds: [https://x.example/rss, example.org/feed]\n---\nSay {{weather}}.\n"}).start()
	all, faults, err := b.List(t.Context())
	if err != nil || len(all) != 1 || all[0].Name != "hello" || len(faults) != 1 {
		t.Fatalf("%+v, %+v, %v", all, faults, err)
	}
	for _, want := range []string{"agents/bad.md", `line 2: schedul: unknown key`, "schedule", `line 3: missed: "never" is none of run`, `line 4: deliver[0]: "pager" is nowhere`,
		`line 6: budget.tokens: "many" is not a whole number`, `line 7: feeds: is for agents of kind briefing`, `line 7: feeds[1]: "example.org/feed" is no address of a feed`, "line 9: {{weather}} is nothing that is filled in"} {
		if !strings.Contains(faults[0].Error(), want) {
			t.Errorf("%q is missing in %s", want, faults[0].Error())
		}
	}
	if _, err := b.Start(t.Context(), "bad", false, ""); err == nil || !strings.Contains(err.Error(), "unknown key") {
		t.Error(err)
	}
	if _, err := b.Start(t.Context(), "nobody", false, ""); !errors.Is(err, ErrNotFound) {
		t.Error(err)
	}
}

func TestRunsOfOneAgentNeverOverlap(t *testing.T) {
	b := newBench(t, map[string]string{"hello": "---\nschedule: \"*/10 * * * *\"\nmissed: run\n---\nSay it.\n"}).start()
	b.settle()
	entered, leave := make(chan int, 10), make(chan struct{})
	b.model.answer = func(n int, _ llm.Request) (string, error) {
		entered <- n
		<-leave
		return "It.", nil
	}
	b.at(b.clock().Add(40 * time.Minute)) // four are due
	if _, err := b.pass(t.Context(), b.clock()); err != nil {
		t.Fatal(err)
	}
	<-entered
	for range 3 {
		if _, err := b.pass(t.Context(), b.clock()); err != nil {
			t.Fatal(err)
		}
	}
	all, err := b.History(t.Context(), "hello", 10)
	if err != nil || len(all) != 4 || all[3].State != Running || all[2].State != Planned {
		t.Fatalf("%+v, %v", all, err)
	}
	close(leave)
	b.settle()
	if b.model.count() != 4 {
		t.Errorf("asked %d times", b.model.count())
	}
}

func TestPausedAgentsRestAndMakeUpForNothing(t *testing.T) {
	b := newBench(t, map[string]string{"hello": daily}).start()
	b.settle()
	if l, err := b.Pause(t.Context(), "hello", true); err != nil || !l.Paused || !l.Next.IsZero() {
		t.Fatalf("%+v, %v", l, err)
	}
	b.until(at(t, "2026-02-05 12:00"))
	if l, err := b.Pause(t.Context(), "hello", false); err != nil || l.Paused || !l.Next.Equal(at(t, "2026-02-06 06:00")) {
		t.Fatalf("%+v, %v", l, err)
	}
	b.until(at(t, "2026-02-06 05:00"))
	if n := len(b.posts.posts()); n != 0 {
		t.Errorf("%d posts", n)
	}
	b.until(at(t, "2026-02-06 06:00"))
	if n := len(b.posts.posts()); n != 1 {
		t.Errorf("%d posts", n)
	}
}

func TestBuiltInAgentsRestUntilSomebodySwitchesThemOn(t *testing.T) {
	b := newBench(t, nil)
	b.config.BuiltIn = fstest.MapFS{"hello.md": {Data: []byte(daily)}, "second.md": {Data: []byte(daily)}}
	b.config.On = []string{"second"}
	b.start()
	all, _, err := b.List(t.Context())
	if err != nil || len(all) != 2 || !all[0].Paused || all[1].Paused || all[0].Source != "built in" {
		t.Fatalf("%+v, %v", all, err)
	}
	b.write("hello", "---\ntitle: mine\n---\nSay it.\n") // a copy counts more, and is the person's
	if all, _, err = b.List(t.Context()); err != nil || all[0].Title != "mine" || all[0].Paused || all[0].BuiltIn {
		t.Errorf("%+v, %v", all, err)
	}
	b.write("hello", "---\nx: y\n---\n") // a wrong copy does not bring the old one back
	if all, faults, err := b.List(t.Context()); err != nil || len(all) != 1 || len(faults) != 1 {
		t.Errorf("%+v, %v", all, err)
	}
}

func TestADryRunDeliversNothing(t *testing.T) {
	b := newBench(t, map[string]string{"hello": daily}).start()
	x := b.ask("hello", true)
	if x.State != Done || x.Output.Text != "All is quiet." || len(x.Deliveries) != 0 || len(b.posts.posts()) != 0 || len(b.notes()) != 0 {
		t.Errorf("%+v, %v", x, b.notes())
	}
	again, err := b.Start(t.Context(), "hello", false, "k")
	if err != nil {
		t.Fatal(err)
	}
	if same, err := b.Start(t.Context(), "hello", false, "k"); err != nil || same.ID != again.ID {
		t.Errorf("%+v, %v", same, err)
	}
}

func TestABusyProviderHoldsARunAndItGoesOn(t *testing.T) {
	b := newBench(t, map[string]string{"hello": daily}).start()
	b.model.answer = func(n int, _ llm.Request) (string, error) {
		if n == 1 {
			return "", &llm.BusyError{Provider: "davas", Reason: "davas is down"}
		}
		return "Back.", nil
	}
	x := b.ask("hello", false)
	if x.State != Waiting || x.Reason != "davas is down" || x.Waits != "davas" {
		t.Fatalf("%+v", x)
	}
	if err := b.Back(t.Context(), "davas"); err != nil {
		t.Fatal(err)
	}
	b.settle()
	if x = b.detail(x.ID); x.State != Done || x.Output.Text != "Back." {
		t.Errorf("%+v", x)
	}
}

func TestARunThatFailsForGoodIsTold(t *testing.T) {
	b := newBench(t, map[string]string{"hello": daily}).start()
	b.model.answer = func(int, llm.Request) (string, error) {
		return "", &llm.Error{Kind: llm.Auth, Provider: "groq", Message: "no such key"}
	}
	x := b.ask("hello", false)
	if x.State != Failed || x.Reason != "groq: no such key" || len(b.posts.posts()) != 0 {
		t.Fatalf("%+v", x)
	}
	told, err := alert.List(t.Context(), b.db, 10)
	if err != nil || len(told) != 1 || !strings.Contains(told[0].Text, "The agent hello failed: groq: no such key.") {
		t.Errorf("%+v, %v", told, err)
	}
	b.model.answer = func(int, llm.Request) (string, error) {
		return "", &llm.Error{Kind: llm.Unavailable, Message: "reset"}
	}
	r, err := b.Start(t.Context(), "hello", false, "")
	if err != nil {
		t.Fatal(err)
	}
	b.until(b.clock().Add(3 * time.Hour))
	if x := b.detail(r.ID); x.State != Failed || b.model.count() != 1+mostAttempts {
		t.Errorf("%+v, asked %d times", x, b.model.count())
	}
}

// A person can decide before the run waits for it: then nobody is there to be woken, and it looks for the decision itself.
func TestADecisionThatCameBeforeTheWaitIsFound(t *testing.T) {
	b := newBench(t, map[string]string{"hello": daily})
	b.model.answer = func(n int, _ llm.Request) (string, error) {
		if n == 1 {
			return "", &llm.BusyError{Provider: loop.Approval, Reason: "it waits for your word on note"}
		}
		return "Allowed.", nil
	}
	asked := ""
	b.config.Asks = func(_ context.Context, run string) (bool, error) {
		asked = run
		return false, nil
	}
	b.start()
	x := b.ask("hello", false)
	for limit := time.After(30 * time.Second); ; { // it waits first, and looks then
		changed := b.Changed()
		b.settle()
		if x = b.detail(x.ID); x.State == Done {
			break
		}
		select {
		case <-changed:
		case <-limit:
			t.Fatalf("%+v", x)
		}
	}
	if x.Output.Text != "Allowed." || asked != fmt.Sprintf("agent-%d", x.ID) {
		t.Errorf("%+v, asked for %q", x, asked)
	}
}
