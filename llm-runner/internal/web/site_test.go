package web

import (
	"context"
	"fmt"
	"io"
	"io/fs"
	"iter"
	"log/slog"
	"net/http"
	"net/http/httptest"
	"net/url"
	"path/filepath"
	"regexp"
	"strings"
	"sync"
	"testing"
	"time"

	"home.arpa/lab/llm-runner/internal/chat"
	"home.arpa/lab/llm-runner/internal/db"
	"home.arpa/lab/llm-runner/internal/engine"
	"home.arpa/lab/llm-runner/internal/llm"
	"home.arpa/lab/llm-runner/internal/memory"
	"home.arpa/lab/llm-runner/internal/quota"
	"home.arpa/lab/llm-runner/internal/route"
	"home.arpa/lab/llm-runner/internal/toolbox"
	"home.arpa/lab/llm-runner/internal/usage"
	"home.arpa/lab/llm-runner/test/enginetest"
)

// puppet is a provider whose answers the test plays.
type puppet struct{ asked chan *play }

type play struct {
	req  llm.Request
	say  chan llm.Event
	fail chan error
}

func (p *puppet) Stream(ctx context.Context, req llm.Request) iter.Seq2[llm.Event, error] {
	return func(yield func(llm.Event, error) bool) {
		x := &play{req, make(chan llm.Event), make(chan error)}
		p.asked <- x
		for {
			select {
			case ev := <-x.say:
				if !yield(ev, nil) || ev.Finish != "" {
					return
				}
			case err := <-x.fail:
				yield(llm.Event{}, err)
				return
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

func (x *play) done(citations ...llm.Citation) {
	x.say <- llm.Event{Citations: citations, Finish: llm.FinishStop,
		Usage: &llm.Usage{Input: llm.Known(1204), Output: llm.Known(387)}}
}

// rig is a whole site on a new database, with one machine at home and one cloud provider, both played by the test.
type rig struct {
	*Site
	t      testing.TB
	puppet *puppet
	server *httptest.Server
	ledger *usage.Ledger
	book   *quota.Book
	db     *db.DB
}

const restoreNote = "# Restore\n\nRead this at three in the morning.\n\n## The vault\n\nCopy it from the fast bucket:\n" +
	"`restic restore latest`.\n\nThen open one note and read it.\n"

func newRig(t testing.TB) *rig { return rigAt(t, filepath.Join(t.TempDir(), db.Name)) }

// durableRig is a rig whose turns go on by themselves.
func durableRig(t testing.TB) *rig {
	t.Helper()
	return rigWith(t, filepath.Join(t.TempDir(), db.Name), func(d *db.DB, log *slog.Logger) *engine.Engine {
		return enginetest.On(t, d, engine.Config{Log: log})
	})
}

func rigAt(t testing.TB, path string) *rig {
	t.Helper()
	return rigWith(t, path, func(*db.DB, *slog.Logger) *engine.Engine { return nil })
}

// rigTools, if not nil, gives the next rigs tools. Tests that set it do not run side by side with others.
var rigTools func(d *db.DB, router llm.Provider) (*toolbox.Box, llm.Provider)

// rigMemory, if not nil, gives the next rigs a memory. Tests that set it do not run side by side with others.
var rigMemory func(d *db.DB) *memory.Service

// rigWith is a rig with an engine for its chats, which it launches and closes; nil: there is none.
func rigWith(t testing.TB, path string, engine func(*db.DB, *slog.Logger) *engine.Engine) *rig {
	t.Helper()
	d, err := db.Open(context.Background(), path)
	if err != nil {
		t.Fatal(err)
	}
	log := slog.New(slog.NewTextHandler(io.Discard, nil))
	work := engine(d, log)
	prices := usage.Prices{"groq": {Input: 0.59, Output: 0.79}}
	ledger, err := usage.Open(context.Background(), d, prices)
	if err != nil {
		t.Fatal(err)
	}
	p := &puppet{make(chan *play, 1000)}
	book := &quota.Book{}
	router := route.New(route.Config{Ledger: ledger, Book: book, Log: log,
		Table: route.Table{
			Default: route.Target{Provider: "contabo", Model: "qwen2.5:14b"}, Project: "davas",
			Models: map[string]route.Entry{
				"qwen2.5:14b":             {Target: route.Target{Provider: "contabo", Model: "qwen2.5:14b"}},
				"gemma4:27b":              {Target: route.Target{Provider: "davas", Model: "gemma4:27b"}, Requires: "davas"},
				"llama-3.3-70b-versatile": {Target: route.Target{Provider: "groq", Model: "llama-3.3-70b-versatile"}},
			}},
		Members: []route.Member{
			{Name: "contabo", Kind: "ollama", Provider: p},
			{Name: "davas", Kind: "ollama", Provider: p},
			{Name: "groq", Kind: "openai", Cloud: true, Provider: p},
		}})
	var box *toolbox.Box
	var asked llm.Provider = router
	if rigTools != nil {
		box, asked = rigTools(d, router)
	}
	var remembers *memory.Service
	config := chat.Config{Log: log, Grace: time.Nanosecond, Cost: prices.Cost, Engine: work}
	if rigMemory != nil {
		remembers = rigMemory(d)
		config.Recall = recalls(remembers)
	}
	chats, err := chat.New(context.Background(), d, asked, config)
	if err != nil {
		t.Fatal(err)
	}
	if work != nil {
		if err := work.Launch(); err != nil {
			t.Fatal(err)
		}
	}
	site, err := New(Config{Chats: chats, Router: router, Ledger: ledger, DB: d, Tools: box, Memory: remembers, Version: "v1.2.3", Log: log, Example: example,
		Note: func(_ context.Context, path string) ([]byte, error) {
			if path != "handbook/restore it.md" {
				return nil, fs.ErrNotExist
			}
			return []byte(restoreNote), nil
		}})
	if err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithCancel(context.Background())
	var wg sync.WaitGroup
	books, closeBooks := context.WithCancel(context.Background())
	var bookKeeper sync.WaitGroup
	bookKeeper.Go(func() { ledger.Run(books) }) //nolint:errcheck // tests see its effects
	wg.Go(func() { chats.Run(ctx) })            //nolint:errcheck // it has no errors
	server := httptest.NewServer(site)
	server.Config.RegisterOnShutdown(site.Drain)
	t.Cleanup(func() {
		site.Drain()
		server.CloseClientConnections()
		cancel()
		wg.Wait()
		if work != nil {
			work.Close(5 * time.Second) //nolint:errcheck // the test has ended
		}
		closeBooks()
		bookKeeper.Wait()
		server.Close()
		d.Close()
	})
	return &rig{site, t, p, server, ledger, book, d}
}

// get returns a page.
func (r *rig) get(path string) (status int, body string) {
	r.t.Helper()
	return r.do(r.request("GET", path, nil))
}

func (r *rig) request(method, path string, form url.Values) *http.Request {
	r.t.Helper()
	req, err := http.NewRequest(method, r.server.URL+path, strings.NewReader(form.Encode()))
	if err != nil {
		r.t.Fatal(err)
	}
	req.Header.Set("Accept", "text/html")
	if form != nil {
		req.Header.Set("Content-Type", "application/x-www-form-urlencoded")
	}
	return req
}

func (r *rig) do(req *http.Request) (status int, body string) {
	r.t.Helper()
	res, err := r.server.Client().Do(req)
	if err != nil {
		r.t.Fatal(err)
	}
	defer res.Body.Close()
	b, err := io.ReadAll(res.Body)
	if err != nil {
		r.t.Fatal(err)
	}
	return res.StatusCode, string(b)
}

// post sends a form and follows its redirect.
func (r *rig) post(path string, pairs ...string) (status int, body string) {
	r.t.Helper()
	form := url.Values{}
	for i := 0; i < len(pairs); i += 2 {
		form.Set(pairs[i], pairs[i+1])
	}
	return r.do(r.request("POST", path, form))
}

// field returns the value of a hidden input of a page.
func field(t testing.TB, body, name string) string {
	t.Helper()
	m := regexp.MustCompile(`name="` + name + `" value="([^"]*)"`).FindStringSubmatch(body)
	if m == nil {
		t.Fatalf("no field %s in\n%s", name, body)
	}
	return m[1]
}

// ask begins a conversation without a browser.
func (r *rig) ask(text string) (chat.Turn, *play) {
	r.t.Helper()
	turn, err := r.Chats.Send(context.Background(), 0, 0, text, chat.Options{})
	if err != nil {
		r.t.Fatal(err)
	}
	return turn, <-r.puppet.asked
}

// end waits until a turn has ended.
func (r *rig) end(turn int64) chat.Turn {
	r.t.Helper()
	var last chat.Turn
	for batch, err := range r.Chats.Events(context.Background(), turn, 0) {
		if err != nil {
			r.t.Fatal(err)
		}
		for _, ev := range batch {
			if ev.Turn != nil {
				last = *ev.Turn
			}
		}
	}
	return last
}

func (r *rig) answered(question, answer string, citations ...llm.Citation) chat.Turn {
	r.t.Helper()
	turn, x := r.ask(question)
	x.text(answer)
	x.done(citations...)
	return r.end(turn.ID)
}

func chatPath(t chat.Turn) string { return fmt.Sprintf("/chats/%d", t.Chat) }
