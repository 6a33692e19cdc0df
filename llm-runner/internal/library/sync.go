package library

import (
	"cmp"
	"context"
	"crypto/sha256"
	"errors"
	"io/fs"
	"runtime/debug"
	"slices"
	"strings"
	"time"

	"home.arpa/lab/llm-runner/internal/extract"
)

// A Report is what one Sync did.
type Report struct {
	Added, Changed, Removed, Unchanged int
	Skipped                            []Skip // by path
	Took                               time.Duration
}

// manyNotes is how many must have changed for the memory that indexing took to be given back at once.
const manyNotes = 500

// A transaction holds other writers up (a chat's words among them), so it takes no more than this many notes or bytes:
// some tens of milliseconds.
const (
	batchNotes = 32
	batchBytes = 256 << 10
)

// Sync brings the index up to date with the files. Only files whose size or time stamp differ are read, and only those
// whose content differs are indexed again, each note in one transaction: whoever dies in between leaves whole notes. A
// Source that cannot be listed is an error and removes nothing. One Sync runs at a time; a second one waits.
func (l *Library) Sync(ctx context.Context) (Report, error) { return l.look(ctx, false) }

// Reindex is Sync, but reads and indexes every file, whatever is known of it. Searches find the old state of each note until its new
// one takes its place.
func (l *Library) Reindex(ctx context.Context) (Report, error) {
	report, err := l.look(ctx, true)
	if err == nil {
		l.mind.tend()
	}
	return report, err
}

func (l *Library) look(ctx context.Context, all bool) (Report, error) {
	l.syncing.Lock()
	defer l.syncing.Unlock()
	l.update(func(s *Status) { s.Syncing = true })
	began := time.Now()
	report, err := l.sync(ctx, began, all)
	if report.Added+report.Changed >= manyNotes {
		debug.FreeOSMemory() // much was taken for it that is not needed again
	}
	report.Took = time.Since(began)
	l.update(func(s *Status) {
		s.Syncing, s.Reading = false, ""
		switch {
		case err == nil:
			s.Error, s.Synced = "", time.Now()
		case ctx.Err() == nil:
			s.Error = err.Error()
		}
	})
	return report, err
}

func (l *Library) sync(ctx context.Context, now time.Time, all bool) (r Report, err error) {
	if err := l.syncDocuments(ctx, all); err != nil { // they need no file, and are few
		return r, err
	}
	t, done, err := l.source.open()
	if err != nil {
		return r, err
	}
	defer done() //nolint:errcheck // it was only read
	files, unread, err := l.source.walk(t, now)
	if err != nil {
		return r, err
	}
	l.update(func(s *Status) { s.Found = len(files) })
	slices.SortStableFunc(files, func(a, b entry) int { return cmp.Compare(late(a.path), late(b.path)) })
	b := batch{lib: l, ctx: ctx, collection: Notes}
	seen := make(map[string]bool, len(files))
	for _, e := range files {
		if err := ctx.Err(); err != nil {
			return r, err
		}
		seen[e.path] = true
		old, had := l.files[e.path]
		if all {
			old = known{id: old.id}
		}
		if had && e.mtime != 0 && old.mtime == e.mtime && old.size == e.size {
			r.Unchanged++
			continue
		}
		c, err := l.examine(ctx, t, e, old)
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
	for path, old := range l.files {
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

// late is 1 for what takes long to read: notes can be found before the first book is open.
func late(path string) int {
	if isDocument(path) {
		return 1
	}
	return 0
}

// examine reads a file and takes it apart, unless its content is what old says.
func (l *Library) examine(ctx context.Context, t tree, e entry, old known) (*change, error) {
	c := &change{entry: e, old: old.id}
	if e.reason != "" {
		c.same = old.id != 0 && old.skipped == e.reason && old.size == e.size
		return c, nil
	}
	text, err := l.source.read(t, e.path)
	if err != nil {
		return nil, err
	}
	sum := sha256.Sum256(text)
	c.size, c.hash = int64(len(text)), sum[:]
	if old.id != 0 && old.hash == string(c.hash) {
		c.same = true
		return c, nil
	}
	if isDocument(e.path) {
		return c, l.extract(ctx, c, text)
	}
	if err := faultOf(text); err != nil {
		c.reason = err.Error()
		return c, nil //nolint:nilerr // it is the note's state
	}
	c.doc = splitNote(e.path, text)
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

// extract reads the text out of a document.
func (l *Library) extract(ctx context.Context, c *change, data []byte) error {
	l.update(func(s *Status) { s.Reading = c.path })
	text, err := l.read(ctx, extract.ByName(c.path), data)
	var bad extract.Unreadable
	if errors.As(err, &bad) {
		c.reason = bad.Error()
		return nil
	}
	if err != nil {
		return err
	}
	c.text, c.pages, c.remarks = []byte(text.Body), text.Pages, text.Remarks
	c.doc = splitPages(c.path, c.text, c.pages)
	if text.Title != "" {
		c.doc.Title = text.Title
	}
	if text.Day != "" {
		c.doc.Day = text.Day
	}
	return nil
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
	lib        *Library
	ctx        context.Context
	collection string
	changes    []*change
	bytes      int
}

func (b *batch) add(c *change) error {
	c.collection = b.collection
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
	added, err := apply(b.ctx, b.lib.db, b.changes)
	if err != nil {
		return err
	}
	l := b.lib
	l.take(added, b.changes)
	if b.collection == Notes {
		l.remember(b.changes)
	}
	l.mind.changed(b.collection, b.changes)
	b.changes, b.bytes = nil, 0
	return l.tidy(b.ctx)
}

// take puts a new segment into the index, and what it replaces out of it.
func (l *Library) take(added *segment, changes []*change) {
	gone := map[uint32]bool{}
	for _, c := range changes {
		if c.old != 0 && !c.same {
			gone[uint32(c.old)] = true
		}
	}
	var all []*segment
	for _, s := range l.words.Load().segments {
		if len(gone) > 0 && slices.ContainsFunc(s.notes, func(n uint32) bool { return gone[n] }) {
			s = s.without(func(note uint32) bool { return gone[note] })
		}
		all = append(all, s)
	}
	if len(added.passages) > 0 {
		all = append(all, added)
	}
	l.words.Store(newIndex(all))
}

// Segments are merged when this many of about the same size have gathered, up to this many bytes: a search goes through few of
// them, and no transaction takes long.
const (
	gathered   = 4
	maxSegment = 16 << 20
)

// tidy merges segments.
func (l *Library) tidy(ctx context.Context) error {
	for {
		all := l.words.Load().segments
		from, to := untidy(all)
		if from == to {
			return nil
		}
		one := merge(all[from:to])
		if err := replace(ctx, l.db, all[from:to], one); err != nil {
			return err
		}
		next := slices.Clone(all[:from])
		if len(one.passages) > 0 {
			next = append(next, one)
		}
		l.words.Store(newIndex(append(next, all[to:]...)))
	}
}

// untidy returns which segments to merge next: one of which a third is gone, or the last ones, as many as are together at least
// twice as large as each of them. from == to: none.
func untidy(all []*segment) (from, to int) {
	for i, s := range all {
		if s.lost > len(s.passages)/3 {
			return i, i + 1
		}
	}
	sum := 0
	for i := len(all) - 1; i >= 0; i-- {
		if len(all)-i > 1 && all[i].size > 2*sum || sum+all[i].size > maxSegment {
			break
		}
		sum += all[i].size
		if n := len(all) - i; n >= gathered && (i == 0 || all[i-1].size > 2*sum || sum+all[i-1].size > maxSegment) {
			return i, len(all)
		}
	}
	return 0, 0
}

// remember notes down what the index now holds of the files.
func (l *Library) remember(changes []*change) {
	l.mu.Lock()
	defer l.mu.Unlock()
	for _, c := range changes {
		old, had := l.files[c.path]
		if had && old.skipped == "" && !c.same {
			l.status.Notes--
			l.status.Passages -= old.passages
		}
		switch {
		case c.gone:
			delete(l.files, c.path)
			continue
		case c.same:
			old.mtime = c.mtime
			l.files[c.path] = old
			continue
		}
		k := known{id: c.id, size: c.size, mtime: c.mtime, hash: string(c.hash), skipped: c.reason, remarks: strings.Join(c.remarks, "\n")}
		if c.reason == "" {
			k.passages = len(c.doc.Passages)
			l.status.Notes++
			l.status.Passages += k.passages
		}
		l.files[c.path] = k
	}
}

func (l *Library) update(f func(*Status)) {
	l.mu.Lock()
	defer l.mu.Unlock()
	f(&l.status)
}

// count sets the sums of Status from the index, and what is skipped; unread is not in the index.
func (l *Library) count(unread []Skip) {
	notes, passages, skipped, partly := 0, 0, append([]Skip{}, unread...), []Skip{}
	collections, paths := map[string]int{}, map[string][]string{}
	for path, k := range l.files {
		if k.skipped != "" {
			skipped = append(skipped, Skip{path, k.skipped})
			continue
		}
		if k.remarks != "" {
			partly = append(partly, Skip{path, strings.ReplaceAll(k.remarks, "\n", "; ")})
		}
		paths[Notes] = append(paths[Notes], path)
		notes++
		passages += k.passages
	}
	for collection, documents := range l.kept {
		collections[collection] = len(documents)
		for path, k := range documents {
			paths[collection] = append(paths[collection], path)
			if k.remarks != "" {
				partly = append(partly, Skip{collection + ": " + path, strings.ReplaceAll(k.remarks, "\n", "; ")})
			}
		}
	}
	byPath := func(a, b Skip) int { return strings.Compare(a.Path, b.Path) }
	slices.SortFunc(skipped, byPath)
	slices.SortFunc(partly, byPath)
	hidden := l.private.count(paths)
	l.update(func(s *Status) {
		l.unread = unread
		s.Notes, s.Passages, s.Skipped, s.Partly, s.Collections, s.NeverSend = notes, passages, skipped, partly, collections, hidden
	})
}
