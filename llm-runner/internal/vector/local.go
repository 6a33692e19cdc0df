package vector

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path/filepath"
	"sync"
)

// A Local is a Store in a folder of this machine: NAME/STAMP/ holds the Index of one stamp, and the file NAME/serving says
// which of them serves. One process at a time works in it.
type Local struct {
	dir  string
	mu   sync.Mutex
	open map[string]*Index // by folder, relative to dir
	shut bool
}

var _ Store = (*Local)(nil)

// NewLocal returns the Store in dir, which need not be there yet.
func NewLocal(dir string) *Local { return &Local{dir: dir, open: map[string]*Index{}} }

// serving is the content of the file of that name.
type serving struct {
	Stamp   Stamp  `json:"stamp"`
	Folder  string `json:"folder"`
	Removed string `json:"removed,omitempty"` // the folder that served before; who reads this first removes it, and then says so here
}

// Serving implements Store.
func (l *Local) Serving(_ context.Context, name string) (Collection, error) {
	l.mu.Lock()
	defer l.mu.Unlock()
	s, err := l.serving(name)
	if err != nil {
		return nil, err
	}
	return l.index(name, s.Stamp)
}

func (l *Local) serving(name string) (s serving, err error) {
	if err := CheckName(name); err != nil {
		return s, err
	}
	text, err := os.ReadFile(filepath.Join(l.dir, name, "serving"))
	if errors.Is(err, fs.ErrNotExist) {
		return s, ErrNone
	}
	if err == nil {
		err = json.Unmarshal(text, &s)
	}
	if err != nil {
		return s, fmt.Errorf("open vectors: read which of %s serve: %w; remove %s and index again", name, err, filepath.Join(l.dir, name))
	}
	if s.Removed == "" {
		return s, nil
	}
	if s.Removed != s.Folder && filepath.IsLocal(s.Removed) {
		os.RemoveAll(filepath.Join(l.dir, name, s.Removed)) // what a dead process did not get to
	}
	s.Removed = "" // once: from now on a folder of that name is one that is built anew
	if err := l.write(name, s); err != nil {
		return s, fmt.Errorf("open vectors: write which of %s serve: %w", name, err)
	}
	return s, nil
}

func (l *Local) write(name string, s serving) error {
	return replaceFile(filepath.Join(l.dir, name, "serving"), func(w io.Writer) error { return json.NewEncoder(w).Encode(s) })
}

// index returns the open index of a stamp; the caller holds mu.
func (l *Local) index(name string, s Stamp) (*Index, error) {
	if l.shut {
		return nil, ErrClosed
	}
	folder := filepath.Join(name, s.Hash())
	if x := l.open[folder]; x != nil {
		return x, nil
	}
	x, err := Open(filepath.Join(l.dir, folder), s)
	if err == nil {
		l.open[folder] = x
	}
	return x, err
}

// Build implements Store.
func (l *Local) Build(_ context.Context, name string, s Stamp) (Collection, error) {
	if err := errors.Join(CheckName(name), s.Validate()); err != nil {
		return nil, fmt.Errorf("build vectors: %w", err)
	}
	l.mu.Lock()
	defer l.mu.Unlock()
	if _, err := l.serving(name); err != nil && !errors.Is(err, ErrNone) { // before anything is opened: it may have folders to remove
		return nil, err
	}
	return l.index(name, s)
}

// Switch implements Store.
func (l *Local) Switch(ctx context.Context, name string, s Stamp) error {
	l.mu.Lock()
	defer l.mu.Unlock()
	before, err := l.serving(name)
	if err != nil && !errors.Is(err, ErrNone) {
		return err
	}
	if _, err := os.Stat(filepath.Join(l.dir, name, s.Hash(), "journal")); err != nil {
		return fmt.Errorf("switch %s to %s: %w", name, s, ErrNone)
	}
	if before.Stamp == s {
		return nil
	}
	x, err := l.index(name, s)
	if err == nil {
		err = x.Save(ctx) // what serves must survive a power cut
	}
	if err == nil {
		err = l.write(name, serving{s, s.Hash(), before.Folder})
	}
	if err != nil {
		return fmt.Errorf("switch %s to %s: %w", name, s, err)
	}
	l.removeOthers(name, s.Hash())
	return nil
}

// removeOthers removes all folders of name but one. What cannot be removed takes room, and is no error.
func (l *Local) removeOthers(name, keep string) {
	folders, _ := os.ReadDir(filepath.Join(l.dir, name))
	for _, f := range folders {
		if !f.IsDir() || f.Name() == keep {
			continue
		}
		folder := filepath.Join(name, f.Name())
		if x := l.open[folder]; x != nil {
			x.discard()
			delete(l.open, folder)
		}
		os.RemoveAll(filepath.Join(l.dir, folder))
	}
}

// Close saves and closes all collections.
func (l *Local) Close() error {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.shut = true
	var errs []error
	for folder, x := range l.open {
		errs = append(errs, x.Close())
		delete(l.open, folder)
	}
	return errors.Join(errs...)
}
