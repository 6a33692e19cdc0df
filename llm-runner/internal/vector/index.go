package vector

import (
	"context"
	"crypto/rand"
	"encoding/hex"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"maps"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"sync"
)

// An Index is one collection in one folder of this machine. One process at a time works in a folder.
type Index struct {
	dir string
	// Healed says what Open found damaged and dropped; "" nothing.
	Healed string

	write sync.Mutex // held by the one who changes something, before mu

	mu      sync.RWMutex // guards what follows: searches hold it for reading
	head    header
	journal *os.File
	end     int64 // of the journal's last record
	records int   // in the journal
	vectors *os.File
	rows    int // in vectors, the dead ones included
	live    int // rows of documents that are there
	blocks  []*block
	docs    []kept // what a block's doc counts in
	free    []int32
	byName  map[string]int32
	centre  []float32
	centred int // see snapshot
	closed  error
}

// A kept document, and where its rows are.
type kept struct {
	Document
	first int
	sum   uint32
}

var _ Collection = (*Index)(nil)

// ErrClosed is what a collection answers after its Close, or after a Switch to another one.
var ErrClosed = errors.New("search vectors: the collection is closed; ask for the serving one")

// Open opens the index in dir, or makes an empty one. An index of another stamp is a *StampError and stays as it is. What
// a dead process left half-written is dropped; see Healed.
func Open(dir string, s Stamp) (*Index, error) {
	if err := s.Validate(); err != nil {
		return nil, fmt.Errorf("open vectors: %w", err)
	}
	x := &Index{dir: dir}
	err := x.open(s)
	if err != nil {
		x.release()
		var stamp *StampError
		if !errors.As(err, &stamp) {
			err = fmt.Errorf("open vectors in %s: %w", dir, err)
		}
		return nil, err
	}
	return x, nil
}

func (x *Index) open(s Stamp) error {
	if err := os.MkdirAll(x.dir, 0o700); err != nil {
		return err
	}
	text, err := os.ReadFile(x.path("journal"))
	if errors.Is(err, fs.ErrNotExist) {
		if err = x.create(header{s, newGeneration()}); err == nil {
			text, err = os.ReadFile(x.path("journal"))
		}
	}
	if err != nil {
		return err
	}
	h, rest, err := cutHeader(text)
	if err != nil {
		return fmt.Errorf("read journal: %w; remove the folder and index again", err)
	}
	if h.Stamp != s {
		return &StampError{Have: h.Stamp, Want: s}
	}
	x.head, x.byName, x.end = h, map[string]int32{}, int64(len(text)-len(rest))
	x.tidy()
	if x.journal, err = os.OpenFile(x.path("journal"), os.O_RDWR, 0o600); err != nil {
		return err
	}
	if x.vectors, err = os.OpenFile(x.path("vectors-"+h.Generation), os.O_RDWR, 0o600); err != nil {
		return err
	}
	return x.load(rest)
}

func newGeneration() string {
	var b [8]byte
	rand.Read(b[:]) //nolint:errcheck // it never fails
	return hex.EncodeToString(b[:])
}

func (x *Index) path(name string) string { return filepath.Join(x.dir, name) }

// create makes an empty index: the journal last, because it is what makes the others count.
func (x *Index) create(h header) error {
	f, err := os.OpenFile(x.path("vectors-"+h.Generation), os.O_CREATE|os.O_RDWR|os.O_TRUNC, 0o600)
	if err != nil {
		return err
	}
	if err := f.Close(); err != nil {
		return err
	}
	return replaceFile(x.path("journal"), func(w io.Writer) error {
		_, err := w.Write(appendHeader(nil, h))
		return err
	})
}

// tidy removes what a dead process left: files that never became valid, and those of other generations.
func (x *Index) tidy() {
	files, _ := os.ReadDir(x.dir) // what cannot be listed is not in the way either
	for _, f := range files {
		name := f.Name()
		kind, generation, _ := strings.Cut(name, "-")
		if strings.Contains(name, temporary) || (kind == "vectors" || kind == "bits") && generation != x.head.Generation {
			os.Remove(x.path(name))
		}
	}
}

// load reads the journal's records and the snapshot, and the floats of what the snapshot does not know.
func (x *Index) load(records []byte) error {
	st, err := x.vectors.Stat()
	if err != nil {
		return err
	}
	there := uint64(st.Size()) / uint64(x.stride())
	s := x.readSnapshot()
	if uint64(s.rows) > there {
		s = snapshot{}
	}
	x.centre, x.centred, x.blocks = s.centre, s.centred, s.blocks
	if s.centre == nil {
		x.centre = make([]float32, x.head.Dimensions)
	}
	for len(records) > 0 {
		r, rest, err := cutRecord(records)
		if err == nil {
			err = x.fits(r, there)
		}
		if err == nil && !r.deleted && r.first+uint64(len(r.ids)) > uint64(s.rows) {
			err = x.sketchRows(r)
		}
		if err != nil {
			x.Healed = fmt.Sprintf("%d bytes at the end of the journal were dropped: %v", len(records), err)
			break
		}
		x.apply(r)
		x.end += int64(len(records) - len(rest))
		records = rest
	}
	if x.rows < s.rows { // the journal lost what the snapshot was made of: those rows will be written again
		if err := os.Remove(x.path("bits-" + x.head.Generation)); err != nil {
			return err
		}
	}
	if err := x.journal.Truncate(x.end); err != nil {
		return err
	}
	return x.recentre()
}

func (x *Index) readSnapshot() snapshot {
	f, err := os.Open(x.path("bits-" + x.head.Generation))
	if err != nil {
		return snapshot{} // not saved yet
	}
	defer f.Close()
	s, err := readSnapshot(f, x.head.Generation, x.head.Dimensions)
	if err != nil {
		x.Healed = err.Error() + "; made again from the floats"
	}
	return s
}

// stride is how many bytes a row takes in the vectors file.
func (x *Index) stride() int { return 4 * x.head.Dimensions }

// fits says whether the journal's next record can follow what was read so far; there is how many rows the file has.
func (x *Index) fits(r record, there uint64) error {
	if r.deleted {
		return nil
	}
	if r.first != uint64(x.rows) {
		return fmt.Errorf("the rows of %q begin at %d, not at %d", r.doc.Name, r.first, x.rows)
	}
	if r.first+uint64(len(r.ids)) > there {
		return fmt.Errorf("the floats of %q are not there", r.doc.Name)
	}
	return nil
}

// sketchRows reads the floats of a record, checks them and makes their bits.
func (x *Index) sketchRows(r record) error {
	raw := make([]byte, len(r.ids)*x.stride())
	if _, err := x.vectors.ReadAt(raw, int64(r.first)*int64(x.stride())); err != nil {
		return err
	}
	if checksum(raw) != r.sum {
		return fmt.Errorf("the floats of %q are not those that were written", r.doc.Name)
	}
	v := make([]float32, x.head.Dimensions)
	for i := range r.ids {
		floats(v, raw[i*x.stride():])
		x.sketch(int(r.first)+i, v)
	}
	return nil
}

// sketch sets the bits of a row, in a block that is made if it is not there.
func (x *Index) sketch(row int, v []float32) {
	w := words(x.head.Dimensions)
	for len(x.blocks) <= row/blockRows {
		x.blocks = append(x.blocks, newBlock(w))
	}
	b, i := x.blocks[row/blockRows], row%blockRows
	b.scale[i] = sketch(b.bits[i*w:(i+1)*w], v, x.centre)
}

// apply makes a record count in memory. Its bits are there already.
func (x *Index) apply(r record) {
	x.records++
	x.drop(r.doc.Name)
	if r.deleted {
		return
	}
	at := int32(len(x.docs))
	if n := len(x.free); n > 0 {
		at, x.free = x.free[n-1], x.free[:n-1]
	} else {
		x.docs = append(x.docs, kept{})
	}
	x.docs[at] = kept{r.doc, int(r.first), r.sum}
	x.byName[r.doc.Name] = at
	for i, id := range r.ids {
		row := int(r.first) + i
		b := x.blocks[row/blockRows]
		b.ids[row%blockRows], b.doc[row%blockRows] = id, at
	}
	x.rows += len(r.ids)
	x.live += len(r.ids)
}

// drop removes a document from memory.
func (x *Index) drop(name string) {
	at, ok := x.byName[name]
	if !ok {
		return
	}
	e := x.docs[at]
	for row := e.first; row < e.first+e.Points; row++ {
		x.blocks[row/blockRows].doc[row%blockRows] = dead
	}
	x.live -= e.Points
	x.docs[at] = kept{}
	x.free = append(x.free, at)
	delete(x.byName, name)
}

// Stamp returns what the vectors are made with.
func (x *Index) Stamp() Stamp { return x.head.Stamp }

// Replace implements Collection. When it returns, the documents survive the death of this process; see Save.
func (x *Index) Replace(ctx context.Context, entries ...Entry) error {
	if err := x.head.Check(entries); err != nil {
		return err
	}
	x.write.Lock()
	defer x.write.Unlock()
	for _, e := range entries {
		if err := ctx.Err(); err != nil {
			return err
		}
		if err := x.put(e); err != nil {
			return fmt.Errorf("store vectors of %q: %w", e.Name, err)
		}
	}
	if x.live >= 2*x.centred && x.live >= minCentred {
		return x.recentre()
	}
	return nil
}

func (x *Index) put(e Entry) error {
	if x.closed != nil {
		return x.closed
	}
	r := record{doc: e.Document, first: uint64(x.rows), ids: make([]uint64, len(e.Points))}
	r.doc.Points, r.doc.Tags = len(e.Points), slices.Clone(e.Tags)
	raw := make([]byte, 0, len(e.Points)*x.stride())
	unitary := make([][]float32, len(e.Points))
	for i, p := range e.Points {
		unitary[i] = Unit(p.Vector)
		raw, r.ids[i] = appendFloats(raw, unitary[i]), p.ID
	}
	r.sum = checksum(raw)
	if _, err := x.vectors.WriteAt(raw, int64(x.rows)*int64(x.stride())); err != nil {
		return err
	}
	return x.record(r, func() {
		for i, v := range unitary {
			x.sketch(x.rows+i, v)
		}
	})
}

// record writes r to the journal, and then has it count in memory, after prepare.
func (x *Index) record(r record, prepare func()) error {
	b := appendRecord(nil, r)
	if len(b) > maxRecord {
		return fmt.Errorf("its record of %d bytes is too long; split the document", len(b))
	}
	if _, err := x.journal.WriteAt(b, x.end); err != nil {
		return errors.Join(err, x.journal.Truncate(x.end))
	}
	x.mu.Lock()
	defer x.mu.Unlock()
	prepare()
	x.apply(r)
	x.end += int64(len(b))
	return nil
}

// Delete implements Collection.
func (x *Index) Delete(_ context.Context, names ...string) error {
	x.write.Lock()
	defer x.write.Unlock()
	for _, name := range names {
		if x.closed != nil {
			return x.closed
		}
		if _, ok := x.byName[name]; !ok {
			continue
		}
		if err := x.record(record{deleted: true, doc: Document{Name: name}}, func() {}); err != nil {
			return fmt.Errorf("delete vectors of %q: %w", name, err)
		}
	}
	return nil
}

// Documents implements Collection.
func (x *Index) Documents(context.Context) ([]Document, error) {
	x.mu.RLock()
	defer x.mu.RUnlock()
	if x.closed != nil {
		return nil, x.closed
	}
	out := make([]Document, 0, len(x.byName))
	for _, name := range slices.Sorted(maps.Keys(x.byName)) {
		d := x.docs[x.byName[name]].Document
		d.Tags = slices.Clone(d.Tags)
		out = append(out, d)
	}
	return out, nil
}

// Rows returns how many points there are, and how many rows of the file belong to nobody any more: Compact frees those.
func (x *Index) Rows() (live, dead int) {
	x.mu.RLock()
	defer x.mu.RUnlock()
	return x.live, x.rows - x.live
}

// minCentred is the least number of points that a centre is taken of: a mean of fewer says more about them than about
// the model.
const minCentred = 256

// recentre takes the centre of all points anew and makes all bits again, once there are twice as many points as the centre
// was taken of. So all of it costs about two readings of the file, however it grew. The caller holds write, or is Open.
func (x *Index) recentre() error {
	if x.live < 2*x.centred || x.live < minCentred {
		return nil
	}
	sum, n := make([]float64, x.head.Dimensions), 0
	err := x.eachRow(func(_ int, v []float32) {
		n++
		for i, f := range v {
			sum[i] += float64(f)
		}
	})
	if err != nil {
		return err
	}
	next := &Index{head: x.head, centre: make([]float32, x.head.Dimensions)}
	for i := range sum {
		next.centre[i] = float32(sum[i] / float64(n))
	}
	if err := x.eachRow(next.sketch); err != nil {
		return err
	}
	x.mu.Lock()
	defer x.mu.Unlock()
	for i, b := range next.blocks {
		b.ids, b.doc = x.blocks[i].ids, x.blocks[i].doc
	}
	x.blocks, x.centre, x.centred = next.blocks, next.centre, x.live
	return nil
}

// eachRow reads the floats of all live rows, in order. v is good until f returns.
func (x *Index) eachRow(f func(row int, v []float32)) error {
	raw := make([]byte, 64*x.stride())
	v := make([]float32, x.head.Dimensions)
	for at := 0; at < x.rows; at += 64 {
		n := min(64, x.rows-at)
		if _, err := x.vectors.ReadAt(raw[:n*x.stride()], int64(at)*int64(x.stride())); err != nil {
			return fmt.Errorf("read vectors: %w", err)
		}
		for i := range n {
			if row := at + i; x.blocks[row/blockRows].doc[row%blockRows] != dead {
				floats(v, raw[i*x.stride():])
				f(row, v)
			}
		}
	}
	return nil
}

// Save implements Collection, and writes down what memory holds, so that the next Open is fast. Once more of the files belongs
// to nobody than to somebody, it compacts them.
func (x *Index) Save(ctx context.Context) error {
	x.write.Lock()
	defer x.write.Unlock()
	switch {
	case x.closed != nil:
		return x.closed
	case x.wasteful():
		return x.compact(ctx)
	}
	return x.save()
}

func (x *Index) save() error {
	err := errors.Join(x.vectors.Sync(), x.journal.Sync())
	if err == nil {
		err = writeSnapshot(x.path("bits-"+x.head.Generation), x.head.Generation, snapshot{x.centre, x.centred, x.rows, x.blocks})
	}
	if err != nil {
		return fmt.Errorf("save vectors in %s: %w", x.dir, err)
	}
	return nil
}

// Close saves and closes the index.
func (x *Index) Close() error {
	x.write.Lock()
	defer x.write.Unlock()
	if x.closed != nil {
		return nil
	}
	err := x.save()
	x.mu.Lock()
	defer x.mu.Unlock()
	x.release()
	return err
}

// discard closes the index without saving: its files are about to go.
func (x *Index) discard() {
	x.write.Lock()
	defer x.write.Unlock()
	x.mu.Lock()
	defer x.mu.Unlock()
	x.release()
}

// release closes the files and forgets the rest.
func (x *Index) release() {
	x.closed = ErrClosed
	for _, f := range []*os.File{x.journal, x.vectors} {
		if f != nil {
			f.Close()
		}
	}
	x.blocks, x.docs, x.byName, x.rows, x.live = nil, nil, nil, 0, 0
}
