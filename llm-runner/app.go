package main

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"log/slog"
	"os"
	"path/filepath"
	"sync"
	"time"

	"home.arpa/lab/docs"
	"home.arpa/lab/llm-runner/internal/db"
	"home.arpa/lab/llm-runner/internal/library"
	"home.arpa/lab/llm-runner/internal/quota"
	"home.arpa/lab/llm-runner/internal/route"
	"home.arpa/lab/llm-runner/internal/usage"
)

// An app is everything below the doors, assembled: the data directory owned, the database open, the router made.
type app struct {
	config  *Config
	owner   *owner
	db      *db.DB
	ledger  *usage.Ledger
	book    *quota.Book
	library *library.Library
	router  *route.Router
	log     *slog.Logger

	stop context.CancelFunc
	done sync.WaitGroup
}

// assemble takes the data directory and makes an app. Nothing runs and nothing has been asked over the network yet.
func assemble(ctx context.Context, c *Config, log *slog.Logger, notify func(route.Change)) (*app, error) {
	a := &app{config: c, log: log, stop: func() {}}
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
	if a.db, err = db.Open(ctx, filepath.Join(c.Data, db.Name)); err != nil {
		return err
	}
	if a.db.Backup != "" {
		a.log.Info("database migrated", "copy", a.db.Backup)
	}
	if a.ledger, err = usage.Open(ctx, a.db, c.Prices); err != nil {
		return err
	}
	if a.book, err = quota.Open(ctx, a.db); err != nil {
		return err
	}
	source, err := openVault(c)
	if err != nil {
		return err
	}
	if a.library, err = library.Open(ctx, a.db, source); err != nil {
		return err
	}
	all, err := members(c, library.NewVault(a.library, a.connected))
	if err != nil {
		return err
	}
	a.router = route.New(route.Config{Table: c.table(), Otherwise: route.Target{Provider: "vault", Model: "vault"},
		Members: all, Ledger: a.ledger, Book: a.book, Log: a.log, Notify: notify})
	return nil
}

// openVault opens the owner's notes, or the handbook where none are named.
func openVault(c *Config) (library.Source, error) {
	if c.Vault.Path == "" {
		return library.Embedded("handbook", docs.FS), nil
	}
	return library.Dir(c.Vault.Path)
}

// table turns the configured routes into the router's table; the vault is always a row.
func (c *Config) table() route.Table {
	t := route.Table{
		Default: route.Target{Provider: c.Routes.Default.Provider, Model: c.Routes.Default.Model},
		Project: c.Routes.Project,
		Models:  map[string]route.Entry{"vault": {Target: route.Target{Provider: "vault", Model: "vault"}}},
	}
	for name, r := range c.Routes.Models {
		t.Models[name] = route.Entry{Target: route.Target{Provider: r.Provider, Model: r.Model}, Fallback: r.Fallback, Requires: r.Requires}
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

// start runs the parts that work in the background until close: the writers of the ledger and of the rate limits always, and what else is handed in.
func (a *app) start(parts ...func(context.Context) error) {
	ctx, cancel := context.WithCancel(context.Background())
	a.stop = cancel
	for _, part := range append(parts, a.ledger.Run, a.book.Run) {
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
	if a.db != nil {
		if err := a.db.Close(); err != nil {
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

// readDB opens the database for reading beside its owner; a nil DB means that there is none yet.
func readDB(ctx context.Context, c *Config) (*db.DB, error) {
	d, err := db.OpenRead(ctx, filepath.Join(c.Data, db.Name))
	if errors.Is(err, fs.ErrNotExist) {
		return nil, nil
	}
	if err != nil {
		return nil, fmt.Errorf("%w; is %s yours to read?", err, c.Data)
	}
	return d, nil
}

// quiet is the logger of commands whose output is their answer.
func quiet() *slog.Logger {
	return slog.New(slog.NewTextHandler(os.Stderr, &slog.HandlerOptions{Level: slog.LevelError}))
}
