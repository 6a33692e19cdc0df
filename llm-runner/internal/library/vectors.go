package library

import (
	"context"
	"errors"
	"fmt"
	"maps"
	"slices"
	"strings"
	"time"

	"home.arpa/lab/llm-runner/internal/embed"
	"home.arpa/lab/llm-runner/internal/vector"
)

// A work is one collection whose vectors are kept up to date.
type work struct {
	*mind
	name       string
	collection vector.Collection
	embedder   *embed.Embedder
	serves     bool
	have       map[string]bool // names of the documents that are there
	saved      time.Time
}

// open opens the collection of a stamp, and marks what in it is not as the notes are.
func (m *mind) open(ctx context.Context, name string, stamp vector.Stamp, e *embed.Embedder) (*work, error) {
	w := &work{mind: m, name: name, embedder: e, have: map[string]bool{}, saved: time.Now()}
	before, err := m.Store.Serving(ctx, name)
	if err != nil && !errors.Is(err, vector.ErrNone) {
		return nil, err
	}
	none := err != nil
	if w.collection, err = m.Store.Build(ctx, name, stamp); err != nil {
		return nil, err
	}
	switch {
	case none: // whatever there is already helps
		if err := w.serve(ctx); err != nil {
			return nil, err
		}
	case before.Stamp() == stamp:
		if err := w.serve(ctx); err != nil {
			return nil, err
		}
	default:
		m.update(func(s *MeaningStatus) { s.Serving = before.Stamp().Model })
	}
	if x, ok := w.collection.(*vector.Index); ok && x.Healed != "" {
		m.update(func(s *MeaningStatus) { s.Healed = name + ": " + x.Healed })
	}
	have, err := w.collection.Documents(ctx)
	if err != nil {
		return nil, err
	}
	want, err := versions(ctx, m.lib.db, name)
	if err != nil {
		return nil, err
	}
	hidden := map[string]bool{}
	for _, d := range have {
		hidden[d.Name] = w.hides(d.Name)
	}
	m.mu.Lock()
	defer m.mu.Unlock()
	for _, d := range have {
		w.have[d.Name] = true
		version, l, _ := strings.Cut(d.Version, " ")
		m.lack(name, d.Name, lack(l))
		if want[d.Name] != version || hidden[d.Name] != (lack(l) == withheld) {
			m.mark(name, d.Name)
		}
	}
	for path := range want {
		if !w.have[path] {
			m.mark(name, path)
		}
	}
	return w, nil
}

// hides says that the maker of the vectors must not see a note.
func (w *work) hides(path string) bool {
	return w.Withheld != nil && w.Withheld(w.collection.Stamp().Model, w.name, path)
}

// A lack is what a note has no vectors of, in words for people; "" nothing. It is kept behind the note's version, so that it is known after
// a new start.
type lack string

const withheld lack = "withheld"

// lack notes down what a note lacks. The caller holds mu.
func (m *mind) lack(collection, path string, l lack) {
	if l == "" {
		delete(m.lacks[collection], path)
		return
	}
	if m.lacks[collection] == nil {
		m.lacks[collection] = map[string]lack{}
	}
	m.lacks[collection][path] = l
}

// partly returns what of notes could not be read, here added to what is known already, by path.
func (m *mind) partly(all []Skip) []Skip {
	if m == nil {
		return all
	}
	all = slices.Clone(all)
	m.mu.Lock()
	for collection, paths := range m.lacks {
		for path, l := range paths {
			if l != withheld {
				all = append(all, Skip{readably(collection, path), string(l)})
			}
		}
	}
	m.mu.Unlock()
	slices.SortStableFunc(all, func(a, b Skip) int { return strings.Compare(a.Path, b.Path) })
	return all
}

// lacking says what a note lacks: passages of which the model read only the beginning, and those that it cannot do, with what it answers.
func lacking(model string, cut, lost int, why string) lack {
	var all []string
	if cut > 0 {
		all = append(all, fmt.Sprintf("%s reads only the beginning of %s: words alone find the rest", model, passagesOf(cut)))
	}
	if lost > 0 {
		why = strings.Join(strings.Fields(why), " ")
		all = append(all, fmt.Sprintf("%s makes no vector of %s, which words alone find: %s", model, passagesOf(lost), strings.ToValidUTF8(why[:min(len(why), 200)], "")))
	}
	return lack(strings.Join(all, "; "))
}

func passagesOf(n int) string {
	if n == 1 {
		return "one passage"
	}
	return fmt.Sprintf("%d passages", n)
}

// close keeps what was made. w may be nil.
func (w *work) close(ctx context.Context) {
	if w != nil {
		w.collection.Save(context.WithoutCancel(ctx)) //nolint:errcheck // what is lost is made again from the cache
	}
}

// serve has the collection answer from now on.
func (w *work) serve(ctx context.Context) error {
	if err := w.Store.Switch(ctx, w.name, w.collection.Stamp()); err != nil {
		return err
	}
	w.serves = true
	_, err := w.mind.serve(ctx, w.name, w.collection, w.embedder)
	return err
}

// serve has the lane ask a collection from now on.
func (m *mind) serve(ctx context.Context, name string, c vector.Collection, e *embed.Embedder) (serving, error) {
	t, _, err := readTrust(ctx, m.lib.db, name, c.Stamp().Model)
	s := serving{c, e, t.weight}
	if err == nil {
		m.mu.Lock()
		defer m.mu.Unlock()
		m.serving[name] = s
	}
	return s, err
}

// How much is embedded before it is stored: what a death in between costs, and how much text is in memory.
const (
	portionNotes = 32
	portionBytes = 256 << 10
	saveEvery    = time.Minute
)

// catchUp makes the vectors that are missing, and then has the collection serve.
func (w *work) catchUp(ctx context.Context) error {
	changed := false
	for {
		paths := w.next()
		if len(paths) == 0 {
			break
		}
		changed = true
		if err := w.portion(ctx, paths); err != nil {
			return err
		}
		if time.Since(w.saved) > saveEvery {
			if err := w.save(ctx); err != nil {
				return err
			}
		}
	}
	if changed {
		if err := w.save(ctx); err != nil {
			return err
		}
		if len(w.next()) > 0 { // it found damage
			return w.catchUp(ctx)
		}
	}
	if err := w.gauge(ctx, w.name, w.collection, w.embedder, len(w.have)); err != nil {
		return err
	}
	if changed || !w.serves {
		return w.serve(ctx)
	}
	return nil
}

// save makes durable what was made, and has what is found damaged made again.
func (w *work) save(ctx context.Context) error {
	w.saved = time.Now()
	return w.mended(w.name, w.collection.Save(ctx))
}

// next returns the next paths to see to; they stay marked until they are seen to.
func (w *work) next() []string {
	w.mu.Lock()
	defer w.mu.Unlock()
	var paths []string
	for path := range w.dirty[w.name] {
		if paths = append(paths, path); len(paths) == portionNotes {
			break
		}
	}
	if len(paths) > 0 && w.done == 0 {
		w.began = time.Now()
	}
	return paths
}

// portion brings the vectors of some notes up to date: each wholly, or not at all.
func (w *work) portion(ctx context.Context, paths []string) error {
	w.mu.Lock()
	for _, p := range paths {
		delete(w.dirty[w.name], p) // whoever changes one from now on marks it again
		w.making = append(w.making, readably(w.name, p))
	}
	w.status.State = MeaningMaking
	w.status.Notes, w.status.Of = len(w.have), len(w.have)+len(w.dirty[w.name])+len(paths)
	w.mu.Unlock()
	left := slices.Clone(paths)
	defer func() {
		w.mu.Lock()
		defer w.mu.Unlock()
		w.making = nil
		for _, p := range left { // it failed
			w.mark(w.name, p)
		}
	}()
	gone := map[string]bool{}
	for _, p := range paths {
		gone[p] = true
	}
	for at := 0; at < len(paths); {
		notes, n, err := meant(ctx, w.lib.db, w.name, paths[at:], portionBytes)
		if err != nil {
			return err
		}
		if err := w.put(ctx, notes); err != nil {
			return err
		}
		for _, note := range notes {
			delete(gone, note.path)
			w.have[note.path] = true
		}
		at += n
	}
	if len(gone) > 0 {
		names := slices.Sorted(maps.Keys(gone))
		if err := w.collection.Delete(ctx, names...); err != nil {
			return err
		}
		if w.name == Memory {
			if err := w.mended(w.name, compact(ctx, w.collection)); err != nil {
				return err
			}
		}
		for _, name := range names {
			delete(w.have, name)
		}
	}
	left = nil
	w.mu.Lock()
	defer w.mu.Unlock()
	for name := range gone {
		w.lack(w.name, name, "")
	}
	w.done += len(paths)
	return nil
}

// put embeds notes and stores their vectors.
func (w *work) put(ctx context.Context, notes []meantNote) error {
	var texts []string
	lacks := make([]lack, len(notes))
	for i := range notes {
		n := &notes[i]
		if w.hides(n.path) {
			n.passages, lacks[i] = nil, withheld
		}
		for _, p := range n.passages {
			texts = append(texts, n.text(p))
		}
	}
	x := w.lib.words.Load()
	average := float64(x.words) / float64(max(x.passages, 1))
	embedded := w.embedder.Documents
	if w.name == Memory {
		embedded = w.embedder.Uncached
	}
	vectors, err := embedded(ctx, texts)
	if err != nil {
		return err
	}
	entries := make([]vector.Entry, len(notes))
	for i, n := range notes {
		entries[i] = vector.Entry{Document: vector.Document{Name: n.path, Type: n.kind, Tags: trimmed(strings.Split(n.tags, "\n")), Modified: n.modified()}}
		cut, lost, why := 0, 0, ""
		for _, p := range n.passages {
			v, text := vectors[0], texts[0]
			vectors, texts = vectors[1:], texts[1:]
			if v.Values == nil {
				lost, why = lost+1, v.Why
				continue
			}
			if v.Covers < len(text) {
				cut++
			}
			point := vector.Point{ID: uint64(p.id), Vector: v.Values}
			if w.Words != nil {
				point.Words = w.Words(stems(text, languageOf(text)), average)
			}
			entries[i].Points = append(entries[i].Points, point)
		}
		if cut+lost > 0 {
			lacks[i] = lacking(w.collection.Stamp().Model, cut, lost, why)
		}
		entries[i].Version = strings.TrimSpace(n.version + " " + string(lacks[i]))
	}
	if err := w.collection.Replace(ctx, entries...); err != nil {
		return err
	}
	w.mu.Lock()
	defer w.mu.Unlock()
	for i, n := range notes {
		w.lack(w.name, n.path, lacks[i])
	}
	return nil
}

// A meantNote is a note whose passages get vectors.
type meantNote struct {
	path, version, title, kind, tags, day string

	passages []meantPassage
}

type meantPassage struct {
	id      int64
	heading string
	body    string
}

func (n *meantNote) modified() time.Time {
	day, _ := time.Parse(time.DateOnly, n.day) //nolint:errcheck // then it has none
	return day
}

// text is what the model reads of a passage: what it is about, and the passage. A title that is only the file's name is left out, so that
// a rename changes nothing.
func (n *meantNote) text(p meantPassage) string {
	body := strings.TrimSpace(p.body)
	first, _, _ := strings.Cut(body, "\n")
	first = strings.TrimSpace(strings.TrimLeft(first, "# "))
	var b strings.Builder
	last := ""
	add := func(s string) {
		if s != "" && s != last && s != first {
			b.WriteString(s + "\n")
			last = s
		}
	}
	if n.title != withoutExt(n.path[strings.LastIndexByte(n.path, '/')+1:]) {
		add(n.title)
	}
	for h := range strings.SplitSeq(p.heading, "\n") {
		add(h)
	}
	b.WriteString(body)
	return b.String()
}
