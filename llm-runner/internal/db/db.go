// Package db opens what holds everything this program knows, one SQLite file or a PostgreSQL database that several processes
// share, brings its schema up to date, and hands out transactions. It is the only place, beside files named sql.go, where
// SQL is written; that SQL marks its parameters with ? and is understood by both.
package db

import (
	"context"
	"database/sql"
	"errors"
	"fmt"
	"io/fs"
	"net/url"
	"os"
	"path/filepath"
	"sort"
	"strconv"
	"strings"
	"sync/atomic"
	"time"

	_ "modernc.org/sqlite" // driver "sqlite": SQLite in Go, FTS5 included
)

// Name is the database's file name in the data directory.
const Name = "runner.db"

// A DB is an open database. In SQLite writes go through one connection, one transaction at a time, so that nobody meets
// SQLITE_BUSY; reads run beside them on a small pool and see the last commit. In PostgreSQL transactions run side by side:
// whoever reads a row to change it locks it (see Lock).
type DB struct {
	path    string
	w, r    *sql.DB
	Backup  string // the copy that Open made before it migrated; "" where it did not have to
	Applied []int  // the migrations that Open ran

	shared  *shared // nil: SQLite
	trouble atomic.Pointer[Trouble]
	fsync   func(name string) error // syncFile, but for tests
}

// Open opens or creates the database file at path and runs the migrations it lacks. Before the first of them a copy of
// an existing database is written beside it (see DB.Backup). A file made by a newer program is refused untouched.
func Open(ctx context.Context, path string) (*DB, error) {
	tidy(path)
	st, err := os.Stat(path)
	return openFile(ctx, path, err == nil && st.Size() > 0)
}

// openFile is Open; keep says whether to copy the database before it is migrated.
func openFile(ctx context.Context, path string, keep bool) (*DB, error) {
	// WAL with synchronous=NORMAL: a commit survives the death of the process (kill -9) without an fsync each; after a
	// power cut the last commits may be gone but the file is whole (sqlite.org/pragma.html#pragma_synchronous). What must
	// outlast that as well is written by TxKept.
	w, err := open(path, 1, "&_pragma=journal_mode(wal)&_pragma=synchronous(normal)&_txlock=immediate")
	if err != nil {
		return nil, err
	}
	d := &DB{path: path, w: w, fsync: syncFile}
	if err := d.migrate(ctx, keep); err != nil {
		w.Close()
		return nil, unreadable(path, fmt.Errorf("open database %s: %w", path, err))
	}
	if err := os.Chmod(path, 0o600); err != nil {
		w.Close()
		return nil, fmt.Errorf("open database: %w", err)
	}
	if d.r, err = open(path, readers, "&_pragma=query_only(1)"); err != nil {
		w.Close()
		return nil, err
	}
	return d, nil
}

// readers is how many connections read at once.
const readers = 4

// OpenRead opens an existing database for reading beside the process that owns it. It never migrates.
func OpenRead(ctx context.Context, path string) (*DB, error) {
	if _, err := os.Stat(path); err != nil {
		return nil, fmt.Errorf("open database: %w", err)
	}
	r, err := open(path, 2, "&_pragma=query_only(1)")
	if err != nil {
		return nil, err
	}
	return &DB{path: path, r: r}, nil
}

// OpenMemory makes a database in memory, with the schema of all others. There is one connection: within Tx nobody may read
// but by its transaction.
func OpenMemory(ctx context.Context) (*DB, error) {
	w, err := sql.Open("sqlite", "file::memory:?_txlock=immediate&_pragma=temp_store(memory)")
	if err != nil {
		return nil, fmt.Errorf("open database in memory: %w", err)
	}
	w.SetMaxOpenConns(1)
	w.SetMaxIdleConns(1)
	d := &DB{path: ":memory:", w: w, r: w}
	if err := d.migrate(ctx, false); err != nil {
		w.Close()
		return nil, fmt.Errorf("open database in memory: %w", err)
	}
	return d, nil
}

func open(path string, conns int, extra string) (*sql.DB, error) {
	abs, err := filepath.Abs(path)
	if err != nil {
		return nil, fmt.Errorf("open database %s: %w", path, err)
	}
	dsn := (&url.URL{Scheme: "file", Path: abs}).String() +
		"?_pragma=busy_timeout(10000)&_pragma=foreign_keys(1)&_pragma=cache_size(-2000)&_pragma=temp_store(memory)" + extra
	h, err := sql.Open("sqlite", dsn)
	if err != nil {
		return nil, fmt.Errorf("open database %s: %w", path, err)
	}
	h.SetMaxOpenConns(conns)
	h.SetMaxIdleConns(conns)
	return h, nil
}

// Trim closes connections for reading that nobody uses: each holds some megabytes of pages, and another one takes a millisecond.
func (d *DB) Trim() {
	if d.shared == nil && d.r != nil {
		d.r.SetMaxIdleConns(0)
		d.r.SetMaxIdleConns(readers)
	}
}

// Tx runs f in one write transaction: committed when f returns nil, rolled back otherwise. Keep f short: in SQLite everybody
// who writes waits for it, in PostgreSQL everybody who wants the rows that it locks.
func (d *DB) Tx(ctx context.Context, f func(tx *sql.Tx) error) error { return d.Noted(d.tx(ctx, f)) }

func (d *DB) tx(ctx context.Context, f func(tx *sql.Tx) error) error {
	tx, err := d.w.BeginTx(ctx, nil)
	if err != nil {
		return d.cut(ctx, fmt.Errorf("begin transaction: %w", err), nil)
	}
	defer tx.Rollback() //nolint:errcheck // after Commit it does nothing; before it, f's error is what counts
	if err := f(tx); err != nil {
		return d.cut(ctx, err, tx)
	}
	if err := tx.Commit(); err != nil {
		return fmt.Errorf("commit: %w", err)
	}
	return nil
}

// TxKept is Tx whose commit outlasts a power cut once it returns nil. The log is brought to the disk after the commit, beside
// others who write, so a slow disk delays nobody but the caller. (A log that was folded into the file meanwhile was on the disk
// before, see sqlite.org/wal.html#performance_considerations.) PostgreSQL does that with every commit.
func (d *DB) TxKept(ctx context.Context, f func(tx *sql.Tx) error) error {
	if err := d.Tx(ctx, f); err != nil || d.shared != nil || d.fsync == nil {
		return err
	}
	if err := d.fsync(d.path + "-wal"); err != nil {
		return d.Noted(fmt.Errorf("bring the commit to the disk: %w", err))
	}
	return nil
}

// syncFile returns once what is written of a file is on the disk.
func syncFile(name string) error {
	f, err := os.OpenFile(name, os.O_RDWR, 0)
	if err != nil {
		return err
	}
	return errors.Join(f.Sync(), f.Close())
}

// Read returns the pool for queries outside transactions.
func (d *DB) Read() *sql.DB { return d.r }

// Writer returns the writing handle (in SQLite one connection), for an owner that keeps prepared statements on it. Tx is for
// everybody else.
func (d *DB) Writer() *sql.DB { return d.w }

// NewWriter opens one more writing handle to the same database, for an owner that closes what it is given. In SQLite it takes
// turns with Tx by waiting, so it must not be used inside one.
func (d *DB) NewWriter() (*sql.DB, error) {
	if d.shared != nil {
		return d.shared.open(2), nil
	}
	return open(d.path, 1, "&_pragma=synchronous(normal)&_txlock=immediate")
}

// Path returns the file's path, or HOST:PORT/NAME in PostgreSQL.
func (d *DB) Path() string { return d.path }

// Close closes the database; SQLite's write-ahead log is folded into the file.
func (d *DB) Close() error {
	if d.shared != nil {
		return d.w.Close()
	}
	err := d.r.Close()
	if d.w != nil {
		d.w.ExecContext(context.Background(), "PRAGMA wal_checkpoint(TRUNCATE)") //nolint:errcheck // the log is replayed by the next Open
		err = errors.Join(err, d.w.Close())
	}
	return err
}

type migration struct {
	version int
	name    string
	sql     string
}

func (d *DB) migrate(ctx context.Context, keep bool) error {
	all, err := load(migrations, sqliteDir)
	if err != nil {
		return err
	}
	have, err := d.version(ctx)
	if err != nil {
		return err
	}
	newest := all[len(all)-1].version
	if have > newest {
		return fmt.Errorf("made by a newer version of this program (schema %d, this one knows %d): run that version, or "+
			"llm-runner restore the copy that it left beside the file", have, newest)
	}
	if have == newest {
		return nil
	}
	if keep && have > 0 {
		d.Backup = fmt.Sprintf("%s.before-%04d-%s", d.path, newest, time.Now().UTC().Format("20060102T150405Z"))
		if err := d.copyTo(ctx, d.Backup); err != nil {
			return fmt.Errorf("copy before migration to %s: %w", d.Backup, err)
		}
	}
	for _, m := range all {
		if m.version <= have {
			continue
		}
		err := d.Tx(ctx, func(tx *sql.Tx) error {
			if _, err := tx.ExecContext(ctx, m.sql); err != nil {
				return err
			}
			_, err := tx.ExecContext(ctx, "PRAGMA user_version = "+strconv.Itoa(m.version))
			return err
		})
		if err != nil {
			return fmt.Errorf("migration %s: %w", m.name, err)
		}
		d.Applied = append(d.Applied, m.version)
	}
	return nil
}

// copyTo writes a copy of the database that has its name only once it is whole and on the disk.
func (d *DB) copyTo(ctx context.Context, name string) error {
	part := d.path + copying
	discard(part)
	_, err := d.w.ExecContext(ctx, "VACUUM INTO ?", part)
	if err == nil {
		err = errors.Join(os.Chmod(part, 0o600), syncFile(part))
	}
	if err == nil {
		reached("copied before migration")
		err = os.Rename(part, name)
	}
	if err != nil {
		discard(part)
		return err
	}
	return syncDir(name)
}

func (d *DB) version(ctx context.Context) (int, error) {
	var v int
	if err := d.w.QueryRowContext(ctx, "PRAGMA user_version").Scan(&v); err != nil {
		return 0, fmt.Errorf("read schema version: %w", err)
	}
	return v, nil
}

// load reads the migrations of a folder in the order of the numbers that their names begin with.
func load(fsys fs.FS, dir string) ([]migration, error) {
	names, err := fs.Glob(fsys, dir+"/*.sql")
	if err != nil {
		return nil, err
	}
	var all []migration
	for _, name := range names {
		number, _, _ := strings.Cut(filepath.Base(name), "_")
		v, err := strconv.Atoi(number)
		if err != nil || v <= 0 {
			return nil, fmt.Errorf("migration %s: the name must begin with a number and an underscore", name)
		}
		text, err := fs.ReadFile(fsys, name)
		if err != nil {
			return nil, err
		}
		all = append(all, migration{v, filepath.Base(name), string(text)})
	}
	sort.Slice(all, func(i, j int) bool { return all[i].version < all[j].version })
	return all, nil
}

// Check reads the whole file and returns what is damaged, or nil. Of PostgreSQL it asks only whether it answers: the server
// has checks of its own.
func (d *DB) Check(ctx context.Context) error {
	if d.shared != nil {
		return d.w.PingContext(ctx)
	}
	var result string
	if err := d.r.QueryRowContext(ctx, "PRAGMA quick_check(1)").Scan(&result); err != nil {
		return unreadable(d.path, fmt.Errorf("check database %s: %w", d.path, err))
	}
	if result != "ok" {
		return fmt.Errorf("check database %s: damaged: %s: put a snapshot back with llm-runner restore FILE", d.path, result)
	}
	return nil
}
