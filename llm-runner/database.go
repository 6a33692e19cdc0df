package main

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"path/filepath"

	"home.arpa/lab/llm-runner/internal/db"
	"home.arpa/lab/llm-runner/internal/engine"
)

// localName is the file of what a machine keeps for itself where everything else is shared: the index of the notes.
const localName = "library.db"

// openDatabase opens what everything is kept in: one SQLite file, or a PostgreSQL database and a file for the rest.
func (a *app) openDatabase(ctx context.Context) (err error) {
	c := a.config
	if c.Database == "" {
		if a.db, err = db.Open(ctx, filepath.Join(c.Data, db.Name)); err != nil {
			return err
		}
		a.local = a.db
	} else {
		if a.db, err = db.OpenPostgres(ctx, string(c.Database)); err != nil {
			return fmt.Errorf("%w; is the server of database: in the configuration running, and does its URL name one of its databases?", err)
		}
		if a.local, err = db.Open(ctx, filepath.Join(c.Data, localName)); err != nil {
			return err
		}
	}
	if a.local.Backup != "" {
		a.log.Info("database migrated", "copy", a.local.Backup)
	}
	return nil
}

// openEngine opens the durable engine: alone on its file, or as one of several processes.
func (a *app) openEngine(ctx context.Context, c engine.Config) (*engine.Engine, error) {
	handle, err := a.db.NewWriter()
	if err != nil {
		return nil, err
	}
	if !a.db.Shared() {
		return engine.Open(ctx, handle, c)
	}
	place, err := engine.Identity(ctx, a.local.Writer())
	if err != nil {
		handle.Close()
		return nil, err
	}
	pool, err := a.db.NewPool(ctx)
	if err != nil {
		handle.Close()
		return nil, err
	}
	c.Tell, c.Hear = a.db.Tell, a.db.Hear
	return engine.OpenShared(ctx, handle, pool, a.db.Worker(), place, c)
}

// readDB opens the database for reading beside those who write it; a nil DB means that there is none yet.
func readDB(ctx context.Context, c *Config) (*db.DB, error) {
	if c.Database != "" {
		d, err := db.OpenPostgresRead(ctx, string(c.Database))
		if errors.Is(err, fs.ErrNotExist) {
			return nil, nil
		}
		return d, err
	}
	d, err := db.OpenRead(ctx, filepath.Join(c.Data, db.Name))
	if errors.Is(err, fs.ErrNotExist) {
		return nil, nil
	}
	if err != nil {
		return nil, fmt.Errorf("%w; is %s yours to read?", err, c.Data)
	}
	return d, nil
}

// elsewhereError says that a command works on the SQLite file only.
func elsewhereError(command, tool string) error {
	return fmt.Errorf("%s copies the SQLite file, but database: in the configuration names PostgreSQL, which has a tool of its own; "+
		"with the same URL in $DATABASE_URL:\n  %s", command, tool)
}
