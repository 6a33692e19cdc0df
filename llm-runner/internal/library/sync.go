package library

import (
	"bytes"
	"context"
	"crypto/sha256"
	"errors"
	"io/fs"
	"slices"
	"strings"
	"time"
	"unicode/utf8"
)

// A Report is what one Sync did.
type Report struct {
	Added, Changed, Removed, Unchanged int
	Skipped                            []Skip // by path
	Took                               time.Duration
}

// A transaction holds other writers up (a chat's words among them), so it takes no more than this many notes or bytes:
// some tens of milliseconds.
const (
	batchNotes = 32
	batchBytes = 256 << 10
)

// Sync brings the index up to date with the files. Only files whose size or time stamp differ are read, and only those
// whose content differs are indexed again, each note in one transaction: whoever dies in between leaves whole notes. A
// Source that cannot be listed is an error and removes nothing. One Sync runs at a time; a second one waits.
func (l *Library) Sync(ctx context.Context) (Report, error) {
	l.syncing.Lock()
	defer l.syncing.Unlock()
	l.update(func(s *Status) { s.Syncing = true })
	began := time.Now()
	report, err := l.sync(ctx, began)
	report.Took = time.Since(began)
	l.update(func(s *Status) {
		s.Syncing = false
		switch {
		case err == nil:
			s.Error, s.Synced = "", time.Now()
		case ctx.Err() == nil:
			s.Error = err.Error()
		}
	})
	return report, err
}

func (l *Library) sync(ctx context.Context, now time.Time) (r Report, err error) {
	t, done, err := l.source.open()
	if err != nil {
		return r, err
	}
	defer done() //nolint:errcheck // it was only read
	files, unread, err := walk(t, now)
	if err != nil {
		return r, err
	}
	l.update(func(s *Status) { s.Found = len(files) })
	b := batch{lib: l, ctx: ctx}
	seen := make(map[string]bool, len(files))
	for _, e := range files {
		if err := ctx.Err(); err != nil {
			return r, err
		}
		seen[e.path] = true
		old, had := l.index[e.path]
		if had && e.mtime != 0 && old.mtime == e.mtime && old.size == e.size {
			r.Unchanged++
			continue
		}
		c, err := examine(t, e, old)
		switch {
		case errors.Is(err, fs.ErrNotExist): // went while we looked; the next Sync removes it
			continue
		case err != nil:
			unread = append(unread, Skip{e.path, "cannot be read: " + cause(err)})
			continue
		case c.same:
			r.Unchanged++
			if c.mtime == old.mtime {
				continue
			}
		case had:
			r.Changed++
		default:
			r.Added++
		}
		if err := b.add(c); err != nil {
			return r, err
		}
	}
	for path, old := range l.index {
		if !seen[path] && !under(unread, path) {
			r.Removed++
			if err := b.add(&change{entry: entry{path: path}, old: old.id, gone: true}); err != nil {
				return r, err
			}
		}
	}
	if err := b.flush(); err != nil {
		return r, err
	}
	l.count(unread)
	r.Skipped = l.Status().Skipped
	return r, nil
}

// under says that path is, or is below, something that could not be read.
func under(unread []Skip, path string) bool {
	return slices.ContainsFunc(unread, func(s Skip) bool {
		return path == s.Path || strings.HasPrefix(path, s.Path+"/")
	})
}

// examine reads a file and takes it apart, unless its content is what old says.
func examine(t tree, e entry, old known) (*change, error) {
	c := &change{entry: e, old: old.id}
	if e.reason != "" {
		c.same = old.id != 0 && old.skipped == e.reason && old.size == e.size
		return c, nil
	}
	text, err := read(t, e.path)
	if err != nil {
		return nil, err
	}
	sum := sha256.Sum256(text)
	c.size, c.hash = int64(len(text)), sum[:]
	if old.id != 0 && old.hash == string(c.hash) {
		c.same = true
		return c, nil
	}
	if !utf8.Valid(text) {
		c.reason = "is not UTF-8 text"
		if bytes.HasPrefix(text, []byte("\xff\xfe")) || bytes.HasPrefix(text, []byte("\xfe\xff")) {
			c.reason = "is UTF-16 text; save it as UTF-8"
		}
		return c, nil
	}
	c.doc = Split(e.path, text)
	if c.doc.Generated {
		c.reason = "was written by a program (generated: true)"
		return c, nil
	}
	if len(c.doc.Passages) == 0 {
		c.doc.Passages = []Passage{{Line: 1, EndLine: 1}} // an empty note is still found by its name
	}
	c.text = text
	return c, nil
}

// names returns what a note is called, folded.
func names(path string, d Doc) []string {
	all := []string{fold(path), fold(path[strings.LastIndexByte(path, '/')+1:]), fold(d.Title)}
	for _, a := range d.Aliases {
		all = append(all, fold(a))
	}
	slices.Sort(all)
	return slices.DeleteFunc(slices.Compact(all), func(s string) bool { return s == "" })
}

// A batch gathers changes for one transaction.
type batch struct {
	lib     *Library
	ctx     context.Context
	changes []*change
	bytes   int
}

func (b *batch) add(c *change) error {
	b.changes = append(b.changes, c)
	b.bytes += len(c.text)
	if len(b.changes) >= batchNotes || b.bytes >= batchBytes {
		return b.flush()
	}
	return nil
}

func (b *batch) flush() error {
	if len(b.changes) == 0 {
		return nil
	}
	if err := apply(b.ctx, b.lib.db, b.changes); err != nil {
		return err
	}
	l := b.lib
	l.mu.Lock()
	defer l.mu.Unlock()
	for _, c := range b.changes {
		old, had := l.index[c.path]
		if had && old.skipped == "" && !c.same {
			l.status.Notes--
			l.status.Passages -= old.passages
		}
		switch {
		case c.gone:
			delete(l.index, c.path)
			continue
		case c.same:
			old.mtime = c.mtime
			l.index[c.path] = old
			continue
		}
		k := known{id: c.id, size: c.size, mtime: c.mtime, hash: string(c.hash), skipped: c.reason}
		if c.reason == "" {
			k.passages = len(c.doc.Passages)
			l.status.Notes++
			l.status.Passages += k.passages
		}
		l.index[c.path] = k
	}
	b.changes, b.bytes = nil, 0
	return nil
}

func (l *Library) update(f func(*Status)) {
	l.mu.Lock()
	defer l.mu.Unlock()
	f(&l.status)
}

// count sets the sums of Status from the index, and what is skipped; unread is not in the index.
func (l *Library) count(unread []Skip) {
	notes, passages, skipped := 0, 0, append([]Skip{}, unread...)
	for path, k := range l.index {
		if k.skipped != "" {
			skipped = append(skipped, Skip{path, k.skipped})
			continue
		}
		notes++
		passages += k.passages
	}
	slices.SortFunc(skipped, func(a, b Skip) int { return strings.Compare(a.Path, b.Path) })
	l.update(func(s *Status) { s.Notes, s.Passages, s.Skipped = notes, passages, skipped })
}
