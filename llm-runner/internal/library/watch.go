package library

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"io/fs"
	"path/filepath"
	"syscall"
	"time"

	"github.com/fsnotify/fsnotify"
)

// quiet is how long nothing may have changed before the files are looked at: editors and Syncthing write in several steps. Where something
// always changes, they are looked at after atMost all the same.
const (
	quiet  = 250 * time.Millisecond
	atMost = 500 * time.Millisecond
)

// A watcher is told of changes by the system.
type watcher struct {
	lib     *Library
	root    string // without links, for those are not followed
	add     func(dir string) error
	refused map[string]error // folders that cannot be watched
}

// watch nudges the library shortly after files have changed, until ctx ends. It only hastens what Run's looks find anyway: where the
// system cannot tell of changes (network mounts, too many folders: fs.inotify.max_user_watches), those must do, and Status says so.
func (l *Library) watch(ctx context.Context) {
	w, err := fsnotify.NewWatcher()
	if err != nil {
		l.update(func(s *Status) { s.Unwatched = "any folder: " + unwatched(err) })
		return
	}
	defer w.Close() //nolint:errcheck // nothing is written to it
	root, err := filepath.EvalSymlinks(l.source.dir)
	if err != nil {
		root = l.source.dir // it may come
	}
	on := &watcher{lib: l, root: root, add: w.Add, refused: map[string]error{}}
	on.below(root)
	timer := time.NewTimer(0)
	defer timer.Stop()
	var first time.Time // change that was not looked at yet
	for {
		select {
		case <-ctx.Done():
			return
		case <-timer.C:
			first = time.Time{}
			l.nudge()
		case _, ok := <-w.Errors:
			if !ok {
				return
			}
			on.below(root) // events were lost, and folders with them
			l.nudge()
		case e, ok := <-w.Events:
			if !ok {
				return
			}
			if !on.tells(e) {
				continue
			}
			if e.Has(fsnotify.Create) {
				on.below(e.Name)
			}
			if first.IsZero() {
				first = time.Now()
			}
			timer.Reset(min(quiet, atMost-time.Since(first)))
		}
	}
}

// tells says that an event may be about a note or a folder of notes.
func (w *watcher) tells(e fsnotify.Event) bool {
	rel, err := filepath.Rel(w.root, e.Name)
	switch {
	case e.Op == fsnotify.Chmod, e.Op == fsnotify.Write && !isNote(e.Name), err != nil:
		return false
	}
	return rel == "." || !w.lib.source.hidden(filepath.ToSlash(rel))
}

// below watches dir and the folders below it that hold notes. What cannot be watched is left to Run's looks.
func (w *watcher) below(dir string) {
	filepath.WalkDir(dir, func(p string, d fs.DirEntry, err error) error { //nolint:errcheck // as far as it goes
		if err != nil || !d.IsDir() {
			return nil //nolint:nilerr // gone, or not for us to read
		}
		rel, err := filepath.Rel(w.root, p)
		if err != nil || rel != "." && w.lib.source.hidden(filepath.ToSlash(rel)) {
			return fs.SkipDir
		}
		switch err := w.add(p); {
		case errors.Is(err, fs.ErrNotExist):
			return fs.SkipDir
		case err != nil:
			w.refused[p] = err
		default:
			delete(w.refused, p)
		}
		return nil
	})
	says := ""
	for _, err := range w.refused {
		says = fmt.Sprintf("%d folders: %s", len(w.refused), unwatched(err))
		break
	}
	w.lib.update(func(s *Status) { s.Unwatched = says })
}

// unwatched says why changes are not told of, and what helps.
func unwatched(err error) string {
	var limit syscall.Errno
	errors.As(err, &limit)
	help := map[syscall.Errno]string{syscall.ENOSPC: "raise fs.inotify.max_user_watches", syscall.EMFILE: "raise fs.inotify.max_user_instances"}[limit]
	return cmp.Or(help, err.Error())
}
