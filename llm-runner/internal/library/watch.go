package library

import (
	"context"
	"errors"
	"io/fs"
	"path/filepath"
	"time"

	"github.com/fsnotify/fsnotify"
)

// quiet is how long nothing may have changed before the files are looked at: editors and Syncthing write in several steps.
const quiet = 250 * time.Millisecond

// watch nudges the library shortly after files have changed, until ctx ends. It only hastens what Run's looks find anyway: where the
// system cannot tell of changes (network mounts, too many folders: fs.inotify.max_user_watches), those must do.
func (l *Library) watch(ctx context.Context) {
	w, err := fsnotify.NewWatcher()
	if err != nil {
		return
	}
	defer w.Close() //nolint:errcheck // nothing is written to it
	l.watchBelow(w, l.source.dir)
	timer := time.NewTimer(0)
	defer timer.Stop()
	for {
		select {
		case <-ctx.Done():
			return
		case <-timer.C:
			l.nudge()
		case _, ok := <-w.Errors:
			if !ok {
				return
			}
			l.nudge() // events were lost
		case e, ok := <-w.Events:
			if !ok {
				return
			}
			if e.Op == fsnotify.Chmod {
				continue
			}
			if e.Has(fsnotify.Create) {
				l.watchBelow(w, e.Name)
			}
			timer.Reset(quiet)
		}
	}
}

// watchBelow watches dir and the folders below it that hold notes. What cannot be watched is left to Run's looks.
func (l *Library) watchBelow(w *fsnotify.Watcher, dir string) {
	filepath.WalkDir(dir, func(p string, d fs.DirEntry, err error) error { //nolint:errcheck // as far as it goes
		if err != nil || !d.IsDir() {
			return nil //nolint:nilerr // gone, or not for us to read
		}
		rel, err := filepath.Rel(l.source.dir, p)
		if err != nil || rel != "." && l.source.hidden(filepath.ToSlash(rel)) {
			return fs.SkipDir
		}
		if err := w.Add(p); errors.Is(err, fs.ErrNotExist) {
			return fs.SkipDir
		}
		return nil
	})
}
