package main

import (
	"context"
	"errors"
	"log/slog"
	"os"
	"sync"
	"time"

	"home.arpa/lab/docs"
	"home.arpa/lab/llm-runner/internal/alert"
	"home.arpa/lab/llm-runner/internal/chat"
	"home.arpa/lab/llm-runner/internal/db"
	"home.arpa/lab/llm-runner/internal/graph"
	"home.arpa/lab/llm-runner/internal/library"
	"home.arpa/lab/llm-runner/internal/llm"
	"home.arpa/lab/llm-runner/internal/memory"
	"home.arpa/lab/llm-runner/internal/quota"
	"home.arpa/lab/llm-runner/internal/route"
	"home.arpa/lab/llm-runner/internal/toolbox"
	"home.arpa/lab/llm-runner/internal/toolbox/browse"
	"home.arpa/lab/llm-runner/internal/toolbox/mcpclient"
	"home.arpa/lab/llm-runner/internal/trace"
	"home.arpa/lab/llm-runner/internal/usage"
	"home.arpa/lab/llm-runner/internal/vector"
)

// An app is everything below the doors, assembled: the data directory owned, the database open, the router made.
type app struct {
	config    *Config
	owner     *owner
	db        *db.DB
	local     *db.DB // what this machine keeps for itself: the index of the notes; db, where nobody else uses that
	ledger    *usage.Ledger
	book      *quota.Book
	library   *library.Library
	router    *route.Router
	alerts    *alert.Service
	traces    *trace.Tracer
	inquiries *graph.Inquiries
	proceed   chan int64  // runs of inquiries to go on with
	settled   chan string // providers that have just ended a request, for what is held for their limits
	box       *toolbox.Box
	fetcher   *browse.Fetcher
	searcher  *browse.Searcher
	servers   *mcpclient.Client
	memory    *memory.Service
	said      *chat.Service                 // reads conversations
	asker     llm.Provider                  // the router, with tools where a request uses them
	writeNote func(path, text string) error // into the vault, over what was there, which is kept
	log       *slog.Logger

	vectors   vector.Store // of the library; nil: none are kept
	embedders *embedders

	stop context.CancelFunc
	done sync.WaitGroup
}

// assemble takes the data directory and makes an app. Nothing runs and nothing has been asked over the network yet.
func assemble(ctx context.Context, c *Config, log *slog.Logger, notify func(route.Change)) (*app, error) {
	a := &app{config: c, log: log, stop: func() {}, settled: make(chan string, 64), proceed: make(chan int64, 64)}
	if err := a.open(ctx, notify); err != nil {
		a.close()
		return nil, err
	}
	for _, w := range c.Warnings {
		log.Warn("configuration", "fault", w.String())
	}
	return a, nil
}

func (a *app) open(ctx context.Context, notify func(route.Change)) (err error) {
	c := a.config
	if a.owner, err = own(c.Data); err != nil {
		return err
	}
	if err := a.openDatabase(ctx); err != nil {
		return err
	}
	if a.traces, err = a.openTraces(); err != nil {
		return err
	}
	if a.ledger, err = usage.Open(ctx, a.db, c.Prices); err != nil {
		return err
	}
	if a.book, err = quota.Open(ctx, a.db); err != nil {
		return err
	}
	if err := a.recount(ctx); err != nil {
		return err
	}
	if a.alerts, err = a.openAlerts(ctx); err != nil {
		return err
	}
	if a.traces == nil {
		a.alerts.End("traces", "nothing is traced any more")
	}
	source, err := openVault(c)
	if err != nil {
		return err
	}
	if a.library, err = library.New(ctx, library.Config{DB: a.local, Documents: a.db, Source: source, Read: documentReader(), NeverSend: c.Vault.private}); err != nil {
		return err
	}
	a.inquiries = a.newInquiries(library.NewVault(a.library, a.connected))
	all, err := members(c, a.inquiries)
	if err != nil {
		return err
	}
	a.router = route.New(route.Config{Table: c.table(), Otherwise: route.Target{Provider: "vault", Model: "vault"},
		Members: all, Ledger: a.ledger, Book: a.book, Log: a.log, Traces: a.traces, Refused: a.refused, Settled: func(provider string) { offer(a.settled, provider) }, Notify: func(c route.Change) {
			a.changed(c)
			if c.Up {
				a.embedders.wake()
			}
			if notify != nil {
				notify(c)
			}
		}})
	a.inquiries.Reader = a.router
	if err := a.understand(ctx); err != nil {
		return err
	}
	a.forgetRemoved(all)
	a.openMemory()
	return a.openTools(ctx)
}

// writer says which model writes the answers of the model vault: the configured one, else the default where that is a model.
func (a *app) writer(req llm.Request) (model string, ok bool) {
	model = a.config.Vault.Model
	if model == library.Quotes {
		return "", false
	}
	d := a.router.Decide(route.Ask{Model: model, Project: req.Project, Requires: req.Requires})
	return model, len(d.Targets) > 0 && d.Targets[0].Provider != library.Model && d.Targets[0].Provider != graph.Name
}

// recount has the rate limits count what the ledger has of the last moments of a process that was killed.
func (a *app) recount(ctx context.Context) error {
	last, err := usage.Last(ctx, a.db, 10*time.Second)
	if err != nil {
		return err
	}
	sent := make([]quota.Use, 0, len(last))
	for _, row := range last {
		if row.Outcome != usage.Busy { // a refusal has used nothing
			sent = append(sent, quota.Use{Provider: row.Provider, Model: row.Model, At: row.At, Input: row.Usage.Input, Output: row.Usage.Output})
		}
	}
	now := time.Now()
	a.book.Recount(sent, now)
	for name, p := range a.config.Providers {
		if len(p.Limits) > 0 {
			a.book.Configure(name, p.limits(), now)
		}
	}
	return nil
}

// openVault opens the owner's notes, or the handbook where none are named.
func openVault(c *Config) (library.Source, error) {
	if c.Vault.Path == "" {
		return library.Embedded("handbook", docs.FS), nil
	}
	return library.Dir(c.Vault.Path, c.Vault.folders().Below()...)
}

// table turns the configured routes into the router's table; the vault is always a row.
func (c *Config) table() route.Table {
	t := route.Table{
		Default: route.Target{Provider: c.Routes.Default.Provider, Model: c.Routes.Default.Model},
		Project: c.Routes.Project,
		Models: map[string]route.Entry{
			// Project mode and requires are for the model that writes.
			"vault":    {Target: route.Target{Provider: "vault", Model: "vault"}, Requires: "vault"},
			graph.Name: {Target: route.Target{Provider: graph.Name, Model: graph.Name}, Requires: graph.Name},
		},
	}
	for name, r := range c.Routes.Models {
		t.Models[name] = route.Entry{Target: route.Target{Provider: r.Provider, Model: r.Model}, Fallback: r.Fallback, Requires: r.Requires,
			Whole: r.Stream == streamWhole}
	}
	return t
}

// connected says whether anything but the vault itself can answer.
func (a *app) connected() bool {
	for _, r := range a.router.Reports() {
		if r.Kind != "vault" && r.Health.Status != route.Down {
			return true
		}
	}
	return false
}

// start runs the parts that work in the background until close: the writers of the ledger and of the rate limits and the ear for
// other processes always, and what else is handed in.
func (a *app) start(parts ...func(context.Context) error) {
	ctx, cancel := context.WithCancel(context.Background())
	a.stop = cancel
	for _, part := range append(parts, a.ledger.Run, a.book.Run, a.traces.Run, a.box.Run, a.db.Listen) {
		a.done.Go(func() {
			if err := part(ctx); err != nil && !errors.Is(err, context.Canceled) {
				a.log.Error("background work ended", "error", err)
			}
		})
	}
}

// close stops what runs, in reverse, and gives the data directory back.
func (a *app) close() {
	a.stop()
	a.done.Wait()
	if a.vectors != nil {
		if err := a.vectors.Close(); err != nil {
			a.log.Error("close vectors", "error", err)
		}
	}
	if a.db != nil {
		if err := a.db.Close(); err != nil {
			a.log.Error("close database", "error", err)
		}
	}
	if a.local != nil && a.local != a.db {
		if err := a.local.Close(); err != nil {
			a.log.Error("close database", "error", err)
		}
	}
	if a.owner != nil {
		a.owner.release()
	}
}

// survey asks every provider once, for commands that do not stay. Machines at home answer or refuse at once; the bound is
// for those that are switched off.
func (a *app) survey(ctx context.Context) {
	ctx, cancel := context.WithTimeout(ctx, 3*time.Second)
	defer cancel()
	a.router.Survey(ctx)
}

// quiet is the logger of commands whose output is their answer.
func quiet() *slog.Logger {
	return slog.New(slog.NewTextHandler(os.Stderr, &slog.HandlerOptions{Level: slog.LevelError}))
}
