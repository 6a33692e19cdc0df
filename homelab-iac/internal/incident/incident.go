// Package incident remembers what is wrong, so that people are told once when it begins and once when it is over.
package incident

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"maps"
	"os"
	"path/filepath"
	"slices"
	"syscall"
	"time"
)

// A Book is the file in which open incidents are kept. One process at a time works with it: a backup and a watch tell at any time,
// and neither may lose what the other noted.
type Book struct {
	path string
	lock *os.File
	open map[string]*entry
}

type entry struct {
	Since time.Time `json:"since"`
	Text  string    `json:"text"`
	Told  bool      `json:"told"` // somebody has been told that it began
	Over  time.Time `json:"over"` // zero while it lasts; kept until somebody has been told
}

// patience bounds how long Open waits for another process, which may be telling Discord meanwhile.
const patience = 30 * time.Second

// Open waits for the book and reads it; Close gives it back. A file that cannot be read as one begins a new book: an alert twice is
// better than none. The same holds on a full disk, and after a process that does not give it back: then nobody waits any longer.
func Open(ctx context.Context, path string) (*Book, error) {
	b := &Book{path: path, open: map[string]*entry{}}
	b.take(ctx)
	if err := b.read(); err != nil {
		b.Close()
		return nil, err
	}
	return b, nil
}

// Close gives the book to the next one.
func (b *Book) Close() { b.lock.Close() } //nolint:errcheck // nothing was written through it, and it may be nil

// take takes the book's lock, which the kernel gives back whatever becomes of this process.
func (b *Book) take(ctx context.Context) {
	if os.MkdirAll(filepath.Dir(b.path), 0o700) != nil {
		return
	}
	var err error
	if b.lock, err = os.OpenFile(b.path+".lock", os.O_CREATE|os.O_RDWR, 0o600); err != nil {
		return
	}
	for end := time.Now().Add(patience); time.Now().Before(end) && ctx.Err() == nil; {
		if syscall.Flock(int(b.lock.Fd()), syscall.LOCK_EX|syscall.LOCK_NB) == nil {
			return
		}
		t := time.NewTimer(20 * time.Millisecond)
		select {
		case <-t.C:
		case <-ctx.Done():
			t.Stop()
		}
	}
}

func (b *Book) read() error {
	text, err := os.ReadFile(b.path)
	if errors.Is(err, fs.ErrNotExist) {
		return nil
	}
	if err != nil {
		return fmt.Errorf("read incidents: %w", err)
	}
	if json.Unmarshal(text, &b.open) != nil || b.open == nil {
		b.open = map[string]*entry{}
	}
	return nil
}

// Note says how something is now: trouble names what is wrong, "" means that nothing is.
func (b *Book) Note(key, trouble string, now time.Time) {
	e := b.open[key]
	switch {
	case trouble != "" && e == nil:
		b.open[key] = &entry{Since: now, Text: trouble}
	case trouble != "": // it lasts, or is back before anybody was told that it was over
		e.Over = time.Time{}
	case e != nil && !e.Told: // began and ended while nobody could be told
		e.Over = now
	case e != nil && e.Over.IsZero():
		e.Over = now
	}
}

// Tell hands what is new to send, one message per beginning and end, and remembers what was sent. What could not be sent is tried
// the next time; the error is send's.
func (b *Book) Tell(ctx context.Context, send func(context.Context, string) error) error {
	var failed error
	for _, key := range slices.Sorted(maps.Keys(b.open)) {
		e := b.open[key]
		text := e.message(key)
		if text == "" {
			continue
		}
		if err := send(ctx, text); err != nil {
			failed = err
			break // the others would not get through either
		}
		e.Told = true
		if !e.Over.IsZero() {
			delete(b.open, key)
		}
	}
	return errors.Join(failed, b.save())
}

func (e *entry) message(key string) string {
	lasted := e.Over.Sub(e.Since).Round(time.Minute)
	switch {
	case e.Over.IsZero() && !e.Told:
		return fmt.Sprintf("🔴 %s: %s", key, e.Text)
	case !e.Over.IsZero() && e.Told:
		return fmt.Sprintf("🟢 %s: is well again after %s", key, lasted)
	case !e.Over.IsZero():
		return fmt.Sprintf("🟢 %s: is well again after %s; nobody could be told that it was not: %s", key, lasted, e.Text)
	}
	return ""
}

func (b *Book) save() error {
	text, err := json.MarshalIndent(b.open, "", "  ")
	if err != nil {
		return err
	}
	if err := os.MkdirAll(filepath.Dir(b.path), 0o700); err != nil {
		return fmt.Errorf("write incidents: %w", err)
	}
	part := b.path + ".part"
	err = os.WriteFile(part, text, 0o600)
	if errors.Is(err, syscall.ENOSPC) { // in its own place there is room; half a book would be a new one
		os.Remove(part) //nolint:errcheck // there may be none
		err = os.WriteFile(b.path, text, 0o600)
	} else if err == nil {
		err = os.Rename(part, b.path)
	}
	if err != nil {
		return fmt.Errorf("write incidents: %w", err)
	}
	return nil
}
