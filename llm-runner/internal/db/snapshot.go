package db

import (
	"bytes"
	"context"
	"crypto/sha256"
	"database/sql"
	"encoding/hex"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"syscall"
	"time"

	"modernc.org/sqlite"
	sqlite3 "modernc.org/sqlite/lib"
)

// Info describes a database file that was read from its first byte to its last.
type Info struct {
	Path   string  `json:"path"`
	Bytes  int64   `json:"bytes"`
	Schema int     `json:"schema"` // the newest migration that ran on it; 0: none did
	SHA256 string  `json:"sha256"` // lower-case hex
	Tables []Table `json:"tables"` // in the order of their names, without those that SQLite keeps for its indexes
}

// A Table is one table's name and how many rows it holds.
type Table struct {
	Name string `json:"name"`
	Rows int64  `json:"rows"`
}

// SnapshotOptions say how a snapshot is written. The zero value overwrites nothing and tells nobody.
type SnapshotOptions struct {
	Overwrite bool
	// Progress, where it is not nil, is called twice a second while the copy is written: bytes so far, and about how many
	// there will be.
	Progress func(done, estimate int64)
}

// Snapshot writes one state of the database, as it was between two commits, into a new file at path, while others read
// and write. The file stands alone (no write-ahead log), has mode 0600, and is on disk and checked (PRAGMA
// integrity_check, which includes quick_check) before it gets its name; until then it is called path.part.PID. After an
// error nothing of it is left, and what stood at path still stands there. One process writes one snapshot to one path at
// a time.
func (d *DB) Snapshot(ctx context.Context, path string, o SnapshotOptions) (info Info, err error) {
	if path, err = filepath.Abs(path); err != nil {
		return Info{}, fmt.Errorf("write snapshot: %w", err)
	}
	if err := d.vacant(path, o.Overwrite); err != nil {
		return Info{}, err
	}
	sweep(path)
	part := path + ".part." + strconv.Itoa(os.Getpid())
	f, err := os.OpenFile(part, os.O_RDWR|os.O_CREATE|os.O_EXCL, 0o600)
	if err != nil {
		return Info{}, fmt.Errorf("write snapshot: %w: name a file in a folder that is there and that this user may write to", err)
	}
	defer func() {
		f.Close()
		if err != nil {
			discard(part)
		}
	}()
	if err := d.vacuum(ctx, f, o.Progress); err != nil {
		return Info{}, fmt.Errorf("write snapshot %s: %w", path, cured(err, filepath.Dir(path)))
	}
	if err := f.Sync(); err != nil {
		return Info{}, fmt.Errorf("write snapshot: %w", cured(err, filepath.Dir(path)))
	}
	if info, err = inspect(ctx, part, path); err != nil {
		return Info{}, err
	}
	if err := d.vacant(path, o.Overwrite); err != nil { // it took a while
		return Info{}, err
	}
	if err := os.Rename(part, path); err != nil {
		return Info{}, fmt.Errorf("write snapshot: %w", err)
	}
	return info, syncDir(path)
}

// vacant says whether a snapshot may be written to path.
func (d *DB) vacant(path string, overwrite bool) error {
	st, err := os.Stat(path)
	switch {
	case err == nil && st.IsDir():
		return fmt.Errorf("write snapshot: %s is a folder: name a file in it", path)
	case sameFile(path, d.path), slices.ContainsFunc(companions, func(s string) bool { return sameFile(path, d.path+s) }):
		return fmt.Errorf("write snapshot: %s is the database itself: name another file", path)
	}
	if _, err := os.Lstat(path); err == nil && !overwrite {
		return fmt.Errorf("write snapshot: %s is there already: name another file, or overwrite it with --force", path)
	}
	for _, suffix := range []string{"-wal", "-journal"} {
		if _, err := os.Lstat(path + suffix); err == nil {
			return fmt.Errorf("write snapshot: %s lies there and would be taken for the snapshot's log: name another file", path+suffix)
		}
	}
	return nil
}

// sweep removes what snapshots to path left that were killed.
func sweep(path string) {
	entries, err := os.ReadDir(filepath.Dir(path))
	if err != nil {
		return // whoever creates the file meets the same error
	}
	for _, e := range entries {
		rest, ok := strings.CutPrefix(e.Name(), filepath.Base(path)+".part.")
		number, _, _ := strings.Cut(rest, "-")
		pid, err := strconv.Atoi(number)
		if ok && err == nil && pid > 0 && (pid == os.Getpid() || errors.Is(syscall.Kill(pid, 0), syscall.ESRCH)) {
			os.Remove(filepath.Join(filepath.Dir(path), e.Name()))
		}
	}
}

// vacuum copies the database into the empty file f. For its source it is a reader, so writers go on beside it.
func (d *DB) vacuum(ctx context.Context, f *os.File, progress func(done, estimate int64)) error {
	h, err := open(d.path, 1, "") // a connection of its own: query_only, which the read pool has, forbids VACUUM INTO
	if err != nil {
		return err
	}
	defer h.Close()
	if progress != nil {
		var estimate int64
		if err := h.QueryRowContext(ctx, "SELECT (page_count - freelist_count) * page_size FROM pragma_page_count, pragma_freelist_count, pragma_page_size").Scan(&estimate); err != nil {
			return err
		}
		quit, done := make(chan struct{}), make(chan struct{})
		defer func() { close(quit); <-done }()
		go func() {
			defer close(done)
			tick := time.NewTicker(500 * time.Millisecond)
			defer tick.Stop()
			for {
				select {
				case <-quit:
					return
				case <-tick.C:
					if st, err := f.Stat(); err == nil {
						progress(st.Size(), max(estimate, st.Size()))
					}
				}
			}
		}()
	}
	_, err = h.ExecContext(ctx, "VACUUM INTO ?", f.Name())
	return err
}

// Verify reads a snapshot from its first byte to its last and says what it holds. It is an error where the file is not a
// database, is damaged, was made by a newer program, or lacks tables that a database of ours has. Nothing is written,
// not even beside the file, which nobody may write to meanwhile.
func Verify(ctx context.Context, path string) (Info, error) { return verify(ctx, path, path) }

// verify is Verify of a file that errors call name.
func verify(ctx context.Context, path, name string) (Info, error) {
	info, err := inspect(ctx, path, name)
	if err != nil {
		return Info{}, err
	}
	all, err := load(migrations, sqliteDir)
	if err != nil {
		return Info{}, err
	}
	if newest := all[len(all)-1].version; info.Schema > newest {
		return Info{}, fmt.Errorf("%s was made by a newer version of this program (schema %d, this one knows %d): use that version", name, info.Schema, newest)
	}
	missing, err := lacks(ctx, path, all, info.Schema)
	if err != nil {
		return Info{}, fmt.Errorf("check %s: %w", name, err)
	}
	if info.Schema == 0 {
		missing = []string{"schema version"}
	}
	if len(missing) > 0 {
		return Info{}, fmt.Errorf("%s is a database, but not one of llm-runner (it has no %s): name a file that llm-runner snapshot wrote",
			name, strings.Join(missing, ", "))
	}
	return info, nil
}

// inspect reads and checks the whole file at path, which errors and the result call name.
func inspect(ctx context.Context, path, name string) (Info, error) {
	info := Info{Path: name}
	var err error
	if info.Bytes, info.SHA256, err = digest(ctx, path); err != nil {
		return Info{}, fmt.Errorf("read %s: %w", name, err)
	}
	h, err := open(path, 1, "&mode=ro&immutable=1")
	if err != nil {
		return Info{}, err
	}
	defer h.Close()
	if err := integrity(ctx, h); err != nil {
		return Info{}, fmt.Errorf("check %s: %w", name, err)
	}
	if err := h.QueryRowContext(ctx, "PRAGMA user_version").Scan(&info.Schema); err != nil {
		return Info{}, fmt.Errorf("check %s: %w", name, err)
	}
	names, err := tables(ctx, h, "table")
	if err != nil {
		return Info{}, fmt.Errorf("check %s: %w", name, err)
	}
	for _, t := range names {
		row := Table{Name: t}
		if err := h.QueryRowContext(ctx, `SELECT count(*) FROM "`+strings.ReplaceAll(t, `"`, `""`)+`"`).Scan(&row.Rows); err != nil {
			return Info{}, fmt.Errorf("check %s: count %s: %w", name, t, err)
		}
		info.Tables = append(info.Tables, row)
	}
	return info, nil
}

// magic begins every SQLite file (sqlite.org/fileformat2.html).
var magic = []byte("SQLite format 3\x00")

// begins says whether a file begins like a database.
func begins(path string) (bool, error) {
	f, err := os.Open(path)
	if err != nil {
		return false, err
	}
	defer f.Close()
	head := make([]byte, len(magic))
	if _, err := io.ReadFull(f, head); err != nil && err != io.EOF && err != io.ErrUnexpectedEOF {
		return false, err
	}
	return bytes.Equal(head, magic), nil
}

// digest returns the size and the SHA-256 of a file that begins like a database.
func digest(ctx context.Context, path string) (int64, string, error) {
	if ok, err := begins(path); err != nil {
		return 0, "", err
	} else if !ok {
		return 0, "", errors.New("it is not a database: name a file that llm-runner snapshot wrote")
	}
	f, err := os.Open(path)
	if err != nil {
		return 0, "", err
	}
	defer f.Close()
	sum := sha256.New()
	n, err := io.Copy(sum, reader{ctx, f})
	return n, hex.EncodeToString(sum.Sum(nil)), err
}

// A reader reads until ctx ends.
type reader struct {
	ctx context.Context
	io.Reader
}

func (r reader) Read(p []byte) (int, error) {
	if err := r.ctx.Err(); err != nil {
		return 0, err
	}
	return r.Reader.Read(p)
}

// integrity reads every page, index and full-text index.
func integrity(ctx context.Context, h *sql.DB) error {
	var first string
	if err := h.QueryRowContext(ctx, "PRAGMA integrity_check(1)").Scan(&first); err != nil {
		if damaged(err) {
			return fmt.Errorf("it is damaged: %w", err)
		}
		return err
	}
	if first != "ok" {
		return fmt.Errorf("it is damaged: %s", strings.ReplaceAll(first, "\n", " "))
	}
	return nil
}

// tables lists tables of the given kinds ("table", "virtual") by name.
func tables(ctx context.Context, h *sql.DB, kinds ...string) ([]string, error) {
	var names []string
	err := Each(ctx, h, "", func(row *sql.Rows) error {
		var name, kind string
		err := row.Scan(&name, &kind)
		if slices.Contains(kinds, kind) {
			names = append(names, name)
		}
		return err
	}, "SELECT name, type FROM pragma_table_list WHERE schema = 'main' AND name NOT LIKE 'sqlite\\_%' ESCAPE '\\' ORDER BY name")
	return names, err
}

// lacks returns the tables that the migrations up to schema make and that the file does not have.
func lacks(ctx context.Context, path string, all []migration, schema int) ([]string, error) {
	model, err := sql.Open("sqlite", ":memory:")
	if err != nil {
		return nil, err
	}
	defer model.Close()
	model.SetMaxOpenConns(1)
	for _, m := range all {
		if m.version <= schema {
			if _, err := model.ExecContext(ctx, m.sql); err != nil {
				return nil, err
			}
		}
	}
	want, err := tables(ctx, model, "table", "virtual")
	if err != nil {
		return nil, err
	}
	h, err := open(path, 1, "&mode=ro&immutable=1")
	if err != nil {
		return nil, err
	}
	defer h.Close()
	have, err := tables(ctx, h, "table", "virtual")
	if err != nil {
		return nil, err
	}
	return slices.DeleteFunc(want, func(name string) bool { return slices.Contains(have, name) }), nil
}

// code returns SQLite's primary result code, 0 for other errors.
func code(err error) int {
	var e *sqlite.Error
	if errors.As(err, &e) {
		return e.Code() & 0xff
	}
	return 0
}

// damaged says that a file is not a whole database, whatever is tried with it.
func damaged(err error) bool {
	return code(err) == sqlite3.SQLITE_CORRUPT || code(err) == sqlite3.SQLITE_NOTADB
}

// cured adds to an error of writing into dir what the operator can do about it.
func cured(err error, dir string) error {
	switch {
	case code(err) == sqlite3.SQLITE_FULL, errors.Is(err, syscall.ENOSPC), errors.Is(err, syscall.EDQUOT):
		return fmt.Errorf("%w: there is no room left in %s: free some space, or use another disk", err, dir)
	case damaged(err):
		return fmt.Errorf("%w: the database is damaged: llm-runner doctor says more, llm-runner restore puts an older snapshot back", err)
	case code(err) == sqlite3.SQLITE_CANTOPEN, code(err) == sqlite3.SQLITE_PERM, code(err) == sqlite3.SQLITE_READONLY, errors.Is(err, fs.ErrPermission):
		return fmt.Errorf("%w: may this user read the database and write to %s?", err, dir)
	}
	return err
}

// companions are the files that SQLite keeps beside a database.
var companions = []string{"-wal", "-shm", "-journal"}

// discard removes a database file that is not wanted, and what lies beside it.
func discard(path string) {
	for _, suffix := range append([]string{""}, companions...) {
		os.Remove(path + suffix)
	}
}

func sameFile(a, b string) bool {
	x, err := os.Stat(a)
	if err != nil {
		return false
	}
	y, err := os.Stat(b)
	return err == nil && os.SameFile(x, y)
}

// syncDir puts the names in path's folder on disk.
func syncDir(path string) error {
	f, err := os.Open(filepath.Dir(path))
	if err != nil {
		return fmt.Errorf("write folder: %w", err)
	}
	defer f.Close()
	if err := f.Sync(); err != nil && !errors.Is(err, syscall.EINVAL) { // some network drives cannot
		return fmt.Errorf("write folder: %w", err)
	}
	return nil
}
