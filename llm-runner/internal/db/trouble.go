package db

import (
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"syscall"
	"time"

	"github.com/jackc/pgx/v5/pgconn"
	"modernc.org/sqlite"
	sqlite3 "modernc.org/sqlite/lib"
)

// A Fault is why a database cannot be written.
type Fault string

const (
	Full     Fault = "full"      // there is no space left
	ReadOnly Fault = "read-only" // the file or its file system takes no writes
	Locked   Fault = "locked"    // another program holds it for longer than anybody waits
	Damaged  Fault = "damaged"   // the file is not what was written
	Broken   Fault = "broken"    // the disk answers with an error
)

// FaultOf returns the fault that an error comes of; "" where it comes of something else.
func FaultOf(err error) Fault {
	var e *sqlite.Error
	var pg *pgconn.PgError
	switch {
	case err == nil:
		return ""
	case errors.As(err, &e):
		return faults[e.Code()&0xff]
	case away(err):
		return Away
	case errors.As(err, &pg):
		return postgresFaults[pg.Code]
	case errors.Is(err, syscall.ENOSPC), errors.Is(err, syscall.EDQUOT):
		return Full
	case errors.Is(err, syscall.EROFS):
		return ReadOnly
	case errors.Is(err, syscall.EIO):
		return Broken
	}
	text := err.Error() // the engine passes on SQLite's words only
	switch {
	case strings.Contains(text, "database or disk is full"):
		return Full
	case strings.Contains(text, "readonly database"):
		return ReadOnly
	case strings.Contains(text, "database is locked"):
		return Locked
	case strings.Contains(text, "disk I/O error"):
		return Broken
	}
	return ""
}

// faults by SQLite's primary result codes (sqlite.org/rescode.html).
var faults = map[int]Fault{
	sqlite3.SQLITE_FULL: Full, sqlite3.SQLITE_READONLY: ReadOnly, sqlite3.SQLITE_BUSY: Locked, sqlite3.SQLITE_LOCKED: Locked,
	sqlite3.SQLITE_CORRUPT: Damaged, sqlite3.SQLITE_NOTADB: Damaged, sqlite3.SQLITE_IOERR: Broken, sqlite3.SQLITE_CANTOPEN: Broken,
}

// postgresFaults by SQLSTATE (postgresql.org/docs/current/errcodes-appendix.html): disk_full, read_only_sql_transaction,
// io_error.
var postgresFaults = map[string]Fault{"53100": Full, "25006": ReadOnly, "58030": Broken}

// Told says that an error comes of a fault that Watch tells of, once, so that nobody else has to. Of PostgreSQL's it tells nothing but
// that its server is away, and not of each connection that breaks.
func Told(err error) bool {
	var pg *pgconn.PgError
	fault := FaultOf(err)
	return fault != "" && fault != Away && !errors.As(err, &pg)
}

// Refusal is why something was not taken, and what to do before it is sent again.
func (f Fault) Refusal() string {
	switch f {
	case Full:
		return "the disk is full, so it was not taken: free some space and send it again"
	case ReadOnly:
		return "the disk is read-only, so it was not taken: mount it for writing and send it again"
	case Locked:
		return "another program keeps the database locked, so it was not taken: end that program and send it again"
	case Away:
		return "PostgreSQL does not answer, so it was not taken: see that it runs and can be reached from here, and send it again"
	case Damaged:
		return "the database is damaged, so it was not taken: stop the server, put a snapshot back with llm-runner restore, and send it again"
	}
	return "the disk answers with errors, so it was not taken: look into the kernel's log, then send it again"
}

// A Trouble is that the database cannot be written at present.
type Trouble struct {
	Fault Fault
	Since time.Time
	Path  string // of the database
	Err   error
}

// Says is what is wrong, as a sentence without an end.
func (t *Trouble) Says() string {
	dir := filepath.Dir(t.Path)
	switch t.Fault {
	case Full:
		return "the disk of " + dir + " is full"
	case ReadOnly:
		return dir + " cannot be written: it is read-only"
	case Locked:
		return "another program keeps " + t.Path + " locked"
	case Away:
		return "PostgreSQL at " + t.Path + " does not answer"
	case Damaged:
		return t.Path + " is damaged"
	}
	return "the disk of " + dir + " answers with errors"
}

// Cure is what a person can do, as a sentence.
func (t *Trouble) Cure() string {
	switch t.Fault {
	case Full:
		return "Free some space; the rest happens by itself."
	case ReadOnly:
		return "Look into the kernel's log, mount it for writing, and see that this user may write there; the rest happens by itself."
	case Locked:
		return "End the program that has the file open; the rest happens by itself."
	case Away:
		return "Start it, and see that it can be reached from here; the rest happens by itself."
	case Damaged:
		return "Stop the server and put a snapshot back: llm-runner restore FILE."
	}
	return "Look into the kernel's log: the disk may be dying. Copy what is there."
}

// Trouble is why the database could not be written when that was tried last; nil where it could.
func (d *DB) Trouble() *Trouble { return d.trouble.Load() }

// Noted takes the error of a write, remembers what trouble it tells of, and returns it. For owners that do not use Tx. A
// database that is shared has its own server, which somebody else watches.
func (d *DB) Noted(err error) error {
	fault := FaultOf(err)
	if fault == "" || d.shared != nil || d.trouble.Load() != nil {
		return err
	}
	if free, readOnly, known := d.disk(); fault == Broken && known { // SQLite has one word for all that the system says
		switch {
		case readOnly:
			fault = ReadOnly
		case free < enough:
			fault = Full
		}
	}
	d.trouble.CompareAndSwap(nil, &Trouble{Fault: fault, Since: time.Now(), Path: d.path, Err: err})
	return err
}

// enough is the free space in bytes with which a full disk counts as having room again: small writes succeed now and then
// before, into pages that are there already.
const enough = 1 << 20

// disk says how the file system of the database is.
func (d *DB) disk() (free int64, readOnly, known bool) {
	var st syscall.Statfs_t
	if err := syscall.Statfs(filepath.Dir(d.path), &st); err != nil {
		return 0, false, false
	}
	const flag = 1                                                             // ST_RDONLY of statfs(2) in Linux, MNT_RDONLY of statfs(2) in macOS
	return int64(st.Bavail) * int64(st.Bsize), int64(st.Flags)&flag != 0, true //nolint:unconvert // their types differ between systems
}

// Watch tells of trouble, and with nil of its end, until ctx ends. While there is trouble it writes a page once a second,
// so that its end is noticed without anybody who writes. Of a shared database it tells that it is Away, and that it is back.
func (d *DB) Watch(ctx context.Context, tell func(*Trouble)) error {
	tick := time.NewTicker(time.Second)
	defer tick.Stop()
	told := false
	for {
		t := d.trouble.Load()
		if t != nil && told && d.writable(ctx) {
			d.trouble.Store(nil)
			t = nil
		}
		if d.shared != nil {
			t = d.Away()
		}
		if (t != nil) != told {
			told = t != nil
			tell(t)
		}
		select {
		case <-tick.C:
		case <-ctx.Done():
			return ctx.Err()
		}
	}
}

// writable says whether the database takes a write, and has room for more.
func (d *DB) writable(ctx context.Context) bool {
	if free, _, known := d.disk(); known && free < enough {
		return false
	}
	ctx, cancel := context.WithTimeout(ctx, time.Second)
	defer cancel()
	return d.writePage(ctx) == nil
}

// writePage writes the first page of the file as it is.
func (d *DB) writePage(ctx context.Context) error {
	tx, err := d.w.BeginTx(ctx, nil)
	if err != nil {
		return err
	}
	defer tx.Rollback() //nolint:errcheck // after Commit it does nothing
	var version int
	if err := tx.QueryRowContext(ctx, "PRAGMA user_version").Scan(&version); err != nil {
		return err
	}
	if _, err := tx.ExecContext(ctx, fmt.Sprintf("PRAGMA user_version = %d", version)); err != nil {
		return err
	}
	return tx.Commit()
}

// unreadable adds the cure to why a database cannot be opened.
func unreadable(path string, err error) error {
	switch FaultOf(err) {
	case Damaged:
		return fmt.Errorf("%w: put a snapshot back with llm-runner restore FILE; the damaged file is kept beside it", err)
	case Full:
		return fmt.Errorf("%w: free some space on the disk of %s", err, filepath.Dir(path))
	case ReadOnly, Broken:
		return fmt.Errorf("%w: is %s writable for this user, and its disk mounted for writing?", err, filepath.Dir(path))
	}
	if errors.Is(err, os.ErrPermission) {
		return fmt.Errorf("%w: make it writable for this user", err)
	}
	return err
}
