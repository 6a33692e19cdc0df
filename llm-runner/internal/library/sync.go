package library

import (
	"context"
	"crypto/sha256"
	"errors"
	"io/fs"
	"maps"
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

	walked time.Duration // listing the files took
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
func (l *Library) Reindex(ctx context.Context) (Report, error) { return l.look(ctx, true) }

func (l *Library) look(ctx context.Context, all bool) (Report, error) {
	began := time.Now()
	report, err := l.pass(ctx, all)
	if err == nil {
		err = l.readBooks(ctx, &report)
	}
	report.Skipped, report.Took = l.Status().Skipped, time.Since(began)
	return report, err
}

// working does a part of the work, and has Status tell of it.
func (l *Library) working(ctx context.Context, report *Report, work func() error) error {
	l.update(func(s *Status) {
		l.busy++
		s.Syncing = true
	})
	err := work()
	if err == nil {
		err = l.finish(ctx)
	}
	if report.Added+report.Changed >= manyNotes {
		debug.FreeOSMemory() // much was taken for it that is not needed again
	}
	l.update(func(s *Status) {
		l.busy--
		s.Syncing = l.busy > 0
		switch {
		case err == nil:
			s.Error = ""
			if len(l.books) == 0 {
				s.Synced = time.Now()
			}
		case ctx.Err() == nil:
			s.Error = err.Error()
		}
	})
	return err
}

// finish notes down that everything was read again, once the books are.
func (l *Library) finish(ctx context.Context) error {
	l.mu.Lock()
	over := l.renewing && len(l.books) == 0
	l.mu.Unlock()
	if !over {
		return nil
	}
	now := time.Now()
	if err := writeRenewed(ctx, l.db, now); err != nil {
		return err
	}
	l.mu.Lock()
	l.renewing, l.renewed = false, now
	l.mu.Unlock()
	l.mind.tend()
	return nil
}

// pass looks at all files, reads those that are notes, and leaves the books for readBooks.
func (l *Library) pass(ctx context.Context, all bool) (r Report, err error) {
	err = l.working(ctx, &r, func() error {
		if err := l.syncing.Lock(ctx); err != nil {
			return err
		}
		defer l.syncing.Unlock()
		return l.sync(ctx, time.Now(), all, &r)
	})
	return r, err
}

func (l *Library) sync(ctx context.Context, now time.Time, all bool, r *Report) error {
	if err := l.syncDocuments(ctx, all); err != nil { // they need no file, and are few
		return err
	}
	t, done, err := l.source.open()
	if err != nil {
		return err
	}
	defer done() //nolint:errcheck // it was only read
	files, unread, err := l.source.walk(t, now)
	r.walked = time.Since(now)
	if err != nil {
		return err
	}
	l.update(func(s *Status) { s.Found = len(files) })
	b := batch{lib: l, ctx: ctx, collection: Notes}
	seen, books := make(map[string]bool, len(files)), map[string]book{}
	for _, e := range files {
		if err := ctx.Err(); err != nil {
			return err
		}
		seen[e.path] = true
		old, had := l.files[e.path]
		if all {
			old = known{id: old.id}
		}
		if had && e.mtime != 0 && old.mtime == e.mtime && old.size == e.size && !l.books[e.path].anew {
			r.Unchanged++
			continue
		}
		if isDocument(e.path) && e.reason == "" {
			books[e.path] = book{e, all || l.books[e.path].anew}
			continue
		}
		c, err := l.examine(ctx, t, e, old)
		switch {
		case errors.Is(err, fs.ErrNotExist): // went while we looked; the next Sync removes it
			continue
		case err != nil:
			unread = append(unread, Skip{e.path, "cannot be read: " + cause(err)})
			continue
		}
		if !r.counts(c, old, had) {
			continue
		}
		if err := b.add(c); err != nil {
			return err
		}
	}
	for path, old := range l.files {
		if !seen[path] && !under(unread, path) {
			r.Removed++
			if err := b.add(&change{entry: entry{path: path}, old: old.id, gone: true}); err != nil {
				return err
			}
		}
	}
	if err := b.flush(); err != nil {
		return err
	}
	l.mu.Lock()
	for _, s := range l.unread { // tried again, and told of until that went well
		if _, is := books[s.Path]; is {
			unread = append(unread, s)
		}
	}
	l.books, l.renewing = books, l.renewing || all
	l.mu.Unlock()
	l.count(unread)
	return nil
}

// counts takes a change into the report, and says whether there is anything to write.
func (r *Report) counts(c *change, old known, had bool) bool {
	switch {
	case c.same:
		r.Unchanged++
		return c.mtime != old.mtime
	case had:
		r.Changed++
	default:
		r.Added++
	}
	return true
}

// A book is a file whose text has to be read out of it.
type book struct {
	entry
	anew bool // whatever is known of it
}

// readBooks reads the books that looks have left, one after the other. While one is read nothing else waits for it.
func (l *Library) readBooks(ctx context.Context, r *Report) error {
	if err := l.reading.Lock(ctx); err != nil {
		return err
	}
	defer l.reading.Unlock()
	l.mu.Lock()
	n := len(l.books)
	l.mu.Unlock()
	if n == 0 {
		return nil
	}
	return l.working(ctx, r, func() error {
		defer l.update(func(s *Status) { s.Reading = "" })
		t, done, err := l.source.open()
		if err != nil {
			return err
		}
		defer done() //nolint:errcheck // it was only read
		for {
			l.mu.Lock()
			paths := slices.Sorted(maps.Keys(l.books))
			l.mu.Unlock()
			if len(paths) == 0 {
				return nil
			}
			for _, path := range paths {
				if err := l.readBook(ctx, t, path, r); err != nil {
					return err
				}
			}
		}
	})
}

func (l *Library) readBook(ctx context.Context, t tree, path string, r *Report) error {
	l.mu.Lock()
	b, is := l.books[path]
	old, had := l.files[path]
	l.mu.Unlock()
	if !is {
		return nil
	}
	seen := old
	if b.anew {
		seen = known{id: old.id}
	}
	c, fault := l.examine(ctx, t, b.entry, seen)
	if err := l.syncing.Lock(ctx); err != nil { // what was read for one who no longer waits is not what is wrong with the book
		return err
	}
	defer l.syncing.Unlock()
	l.mu.Lock()
	now, is := l.books[path]
	if is && now == b {
		delete(l.books, path) // else a look saw it change meanwhile, and it is read once more
	}
	same := l.files[path].id == old.id
	unread := slices.DeleteFunc(slices.Clone(l.unread), func(s Skip) bool { return s.Path == path })
	l.mu.Unlock()
	if !is || !same { // it went, or is excluded now
		return nil
	}
	if fault != nil && !errors.Is(fault, fs.ErrNotExist) {
		unread = append(unread, Skip{path, "cannot be read: " + cause(fault)})
	}
	if fault == nil && r.counts(c, seen, had) {
		one := batch{lib: l, ctx: ctx, collection: Notes}
		if err := one.add(c); err != nil {
			return err
		}
		if err := one.flush(); err != nil {
			return err
		}
	}
	l.count(unread)
	return nil
}

// under says that path is, or is below, something that could not be read.
func under(unread []Skip, path string) bool {
	return slices.ContainsFunc(unread, func(s Skip) bool {
		return path == s.Path || strings.HasPrefix(path, s.Path+"/")
	})
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
