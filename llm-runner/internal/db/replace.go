package db

import (
	"context"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path/filepath"
	"strings"
	"time"

	sqlite3 "modernc.org/sqlite/lib"
)

// Replaced says what Replace did.
type Replaced struct {
	Info           // of the snapshot
	Kept    string // where the database is that stood there before; "" where there was none
	Applied []int  // the migrations that the snapshot lacked
}

// Replace puts the content of a snapshot in the place of the database at path. The caller owns the data directory. The
// snapshot is copied beside the database, verified, migrated and checked there. Only then the present database is folded
// into one file and gets a second name, path.before-restore-UTC, and the copy is renamed over the first. So there is a
// whole database at path at every moment, whenever the process dies, and nothing to recover: the old one up to the
// rename, the new one after it. After an error the old one is there. The snapshot itself is only read.
//
// A present database that is damaged is kept as it is, its log with it. One that another process reads is not replaced:
// that process would go on with the log of another file (sqlite.org/howtocorrupt.html, section 1.4).
func Replace(ctx context.Context, path, snapshot string) (done Replaced, err error) {
	if err := restorable(path, snapshot); err != nil {
		return Replaced{}, err
	}
	fresh := path + restoring
	discard(fresh)
	defer discard(fresh) // after the rename there is nothing of that name
	if err := copyFile(ctx, fresh, snapshot); err != nil {
		return Replaced{}, fmt.Errorf("copy %s: %w", snapshot, cured(err, filepath.Dir(path)))
	}
	reached("copied")
	if done.Info, err = verify(ctx, fresh, snapshot); err != nil {
		return Replaced{}, err
	}
	if done.Applied, err = settle(ctx, fresh); err != nil {
		return Replaced{}, fmt.Errorf("bring %s up to date: %w", snapshot, cured(err, filepath.Dir(path)))
	}
	if exists(fresh + "-wal") { // closing removed it, unless somebody else has the copy open
		return Replaced{}, fmt.Errorf("another program has %s open: end it and try again", fresh)
	}
	reached("settled")
	old, err := setAside(ctx, path)
	if err != nil {
		return Replaced{}, errors.Join(err, old.putBack(path))
	}
	reached("set aside")
	if err := os.Rename(fresh, path); err != nil {
		return Replaced{}, errors.Join(fmt.Errorf("put snapshot in place: %w", err), old.putBack(path))
	}
	reached("renamed")
	err = syncDir(path)
	if err == nil {
		reached("synced")
		_, err = settle(ctx, path)
	}
	if err != nil {
		return Replaced{}, errors.Join(fmt.Errorf("open restored database: %w", err), old.putBack(path))
	}
	reached("opened")
	if old.there {
		done.Kept = old.kept
	}
	return done, nil
}

// What the names of files end with that Open or Replace is still writing.
const (
	copying   = ".copying"   // the copy before a migration
	restoring = ".restoring" // the copy of the snapshot
	keeping   = ".keeping"   // the copy of the old database, where it cannot have two names
)

// Tests set these: reached is called between the steps of Replace, so that one can die there; link fails on file systems
// without second names.
var (
	reached = func(step string) {}
	link    = os.Link
)

// restorable says what speaks against a snapshot before it is read.
func restorable(path, snapshot string) error {
	st, err := os.Stat(snapshot)
	switch {
	case err != nil:
		return fmt.Errorf("read snapshot: %w", err)
	case !st.Mode().IsRegular():
		return fmt.Errorf("read snapshot: %s is not a file", snapshot)
	case sameFile(path+restoring, snapshot):
		return fmt.Errorf("read snapshot: %s is what a killed restore left, and may be half of a file: name the snapshot that was restored", snapshot)
	case sameFile(path, snapshot):
		return fmt.Errorf("read snapshot: %s is the database itself: name a file that llm-runner snapshot wrote", snapshot)
	}
	for _, suffix := range []string{"-wal", "-journal"} {
		if st, err := os.Stat(snapshot + suffix); err == nil && st.Size() > 0 {
			return fmt.Errorf("read snapshot: %s lies beside it, so %s alone is not the whole database: make one file of them with "+
				"llm-runner snapshot --data (the folder that holds them as %s and %s-wal)", snapshot+suffix, snapshot, Name, Name)
		}
	}
	if ok, err := begins(snapshot); err != nil {
		return fmt.Errorf("read snapshot: %w", err)
	} else if !ok {
		return fmt.Errorf("read %s: it is not a database: name a file that llm-runner snapshot wrote", snapshot)
	}
	return nil
}

// copyFile copies a file and puts it on disk.
func copyFile(ctx context.Context, to, from string) error {
	in, err := os.Open(from)
	if err != nil {
		return err
	}
	defer in.Close()
	out, err := os.OpenFile(to, os.O_WRONLY|os.O_CREATE|os.O_EXCL, 0o600)
	if err != nil {
		return err
	}
	defer out.Close()
	if _, err := io.Copy(out, reader{ctx, in}); err != nil {
		return err
	}
	if err := out.Sync(); err != nil {
		return err
	}
	return out.Close()
}

// settle opens the database at path as the program will, which migrates it, checks it, and folds it into one file.
func settle(ctx context.Context, path string) (applied []int, err error) {
	d, err := openFile(ctx, path, false)
	if err != nil {
		return nil, err
	}
	err = integrity(ctx, d.r)
	if err = errors.Join(err, d.Close()); err != nil {
		return nil, err
	}
	return d.Applied, nil
}

// aside is where the old database is while a new one takes its place.
type aside struct {
	kept  string   // its second name
	there bool     // there was one
	logs  []string // the suffixes of the logs that went with it
}

// setAside gives the database at path a second name and clears the way of logs that a new database would take for its
// own. path itself stays what it was.
func setAside(ctx context.Context, path string) (old aside, err error) {
	stamp := path + ".before-restore-" + time.Now().UTC().Format("20060102T150405Z")
	old.kept = stamp
	for n := 2; exists(old.kept) || exists(old.kept+"-wal") || exists(old.kept+"-journal"); n++ {
		old.kept = fmt.Sprintf("%s-%d", stamp, n)
	}
	if exists(path) {
		if err := fold(ctx, path); err != nil && !damaged(err) {
			return aside{}, err
		}
		reached("folded")
		if err := link(path, old.kept); err != nil { // some file systems have no second names
			copied := path + keeping
			os.Remove(copied)
			if err = copyFile(ctx, copied, path); err == nil {
				err = os.Rename(copied, old.kept)
			}
			if err != nil {
				os.Remove(copied)
				return aside{}, fmt.Errorf("keep the present database: %w", cured(err, filepath.Dir(path)))
			}
		}
		old.there = true
		reached("linked")
	}
	for _, suffix := range companions {
		if !exists(path + suffix) {
			continue
		}
		if suffix == "-shm" { // an index of the log, made again at need
			err = os.Remove(path + suffix)
		} else if err = os.Rename(path+suffix, old.kept+suffix); err == nil {
			old.logs = append(old.logs, suffix)
		}
		if err != nil {
			return old, fmt.Errorf("keep the present database: %w", err)
		}
	}
	return old, syncDir(path)
}

// putBack undoes setAside, whether or not a new database has taken the place.
func (old aside) putBack(path string) error {
	var err error
	switch {
	case !old.there && old.kept == "": // nothing was set aside
		return nil
	case old.there && sameFile(old.kept, path):
		err = os.Remove(old.kept)
	case old.there:
		for _, suffix := range companions {
			os.Remove(path + suffix) // the new one's
		}
		err = os.Rename(old.kept, path)
	default:
		discard(path)
	}
	for _, suffix := range old.logs {
		err = errors.Join(err, os.Rename(old.kept+suffix, path+suffix))
	}
	if err = errors.Join(err, syncDir(path)); err != nil {
		return fmt.Errorf("put the old database back: %w: it is %s", err, old.kept)
	}
	return nil
}

// fold writes the log of the database at path into the file and ends logging, which SQLite does only for one who is
// alone with the file. What is committed is in the one file then; the next Open turns the log on again. A file that does
// not begin like a database is left alone: SQLite would throw its log away.
func fold(ctx context.Context, path string) error {
	if st, err := os.Stat(path); err == nil && st.Size() > 0 {
		if ok, err := begins(path); err != nil || !ok {
			return err
		}
	}
	h, err := open(path, 1, "")
	if err != nil {
		return err
	}
	defer h.Close()
	var mode string
	if err := h.QueryRowContext(ctx, "PRAGMA journal_mode = delete").Scan(&mode); code(err) == sqlite3.SQLITE_BUSY || err == nil && mode != "delete" {
		return fmt.Errorf("another program has %s open, a backup or a query perhaps: try again when it has ended", path)
	} else if err != nil {
		return fmt.Errorf("fold %s: %w", path, cured(err, filepath.Dir(path)))
	}
	return nil
}

// tidy removes what a migration or a restore left that was killed: their copies, and a second name of the database that is in place.
func tidy(path string) {
	discard(path + restoring)
	discard(path + copying)
	os.Remove(path + keeping)
	entries, err := os.ReadDir(filepath.Dir(path))
	if err != nil {
		return // Open meets it too
	}
	for _, e := range entries {
		name := filepath.Join(filepath.Dir(path), e.Name())
		if strings.HasPrefix(e.Name(), filepath.Base(path)+".before-restore-") && sameFile(name, path) && !exists(name+"-wal") && !exists(name+"-journal") {
			os.Remove(name)
		}
	}
}

func exists(path string) bool {
	_, err := os.Lstat(path)
	return !errors.Is(err, fs.ErrNotExist)
}
