package vector

import (
	"context"
	"fmt"
	"io"
	"maps"
	"os"
	"slices"
)

// Check reads all floats of all documents and returns which of them are not as they were written: index those again.
func (x *Index) Check(ctx context.Context) (damaged []string, err error) {
	x.write.Lock()
	defer x.write.Unlock()
	if x.closed != nil {
		return nil, x.closed
	}
	for _, name := range slices.Sorted(maps.Keys(x.byName)) {
		if _, whole := x.floatsOf(x.docs[x.byName[name]]); !whole {
			damaged = append(damaged, name)
		}
		if ctx.Err() != nil {
			return damaged, ctx.Err()
		}
	}
	return damaged, nil
}

// floatsOf reads the floats of a document, and says whether they are those that were written.
func (x *Index) floatsOf(e kept) (raw []byte, whole bool) {
	raw = make([]byte, e.Points*x.stride())
	_, err := x.vectors.ReadAt(raw, int64(e.first)*int64(x.stride()))
	return raw, err == nil && checksum(raw) == e.sum
}

// A DamagedError names documents that are not there any more, because what the disk holds of them is not what was written. Everything else
// is done. Put them again.
type DamagedError struct{ Names []string }

func (e *DamagedError) Error() string {
	return fmt.Sprintf("compact vectors: the floats of %q and %d more were damaged and are dropped; index them again", e.Names[0], len(e.Names)-1)
}

// Compact writes the index anew without the rows that belong to nobody. Searches go on meanwhile, changes wait. Documents whose floats are
// damaged are dropped, and named by a *DamagedError.
func (x *Index) Compact(ctx context.Context) error {
	x.write.Lock()
	defer x.write.Unlock()
	if x.closed != nil {
		return x.closed
	}
	return x.compact(ctx)
}

// wasteful says that more of the files belongs to nobody than to somebody. The caller holds write.
func (x *Index) wasteful() bool {
	return x.rows-x.live > max(x.live, 1024) || x.records-len(x.byName) > max(len(x.byName), 1024)
}

func (x *Index) compact(ctx context.Context) error {
	next, damaged, err := x.copyLive(ctx)
	if err != nil {
		return fmt.Errorf("compact vectors in %s: %w", x.dir, err)
	}
	x.mu.Lock()
	defer x.mu.Unlock()
	x.journal.Close()
	x.vectors.Close()
	x.head.Generation = next.head.Generation // the stamp stays, and is read without a lock
	x.journal, x.end, x.records, x.vectors = next.journal, next.end, next.records, next.vectors
	x.rows, x.live, x.blocks, x.docs, x.free, x.byName = next.rows, next.live, next.blocks, next.docs, nil, next.byName
	x.tidy()
	if len(damaged) > 0 {
		return &DamagedError{damaged}
	}
	return nil
}

// copyLive writes all documents but damaged ones into files of a new generation, makes them durable and lets them count.
func (x *Index) copyLive(ctx context.Context) (next *Index, damaged []string, err error) {
	next = &Index{dir: x.dir, head: header{x.head.Stamp, newGeneration()}, byName: map[string]int32{}, centre: x.centre, centred: x.centred}
	if next.vectors, err = os.OpenFile(x.path("vectors-"+next.head.Generation), os.O_CREATE|os.O_RDWR|os.O_EXCL, 0o600); err != nil {
		return nil, nil, err
	}
	done := false
	defer func() {
		if !done {
			next.release()
			os.Remove(x.path("vectors-" + next.head.Generation))
		}
	}()
	text, damaged, err := x.copyRows(ctx, next)
	if err == nil {
		err = next.vectors.Sync()
	}
	if err == nil { // before the journal: what counts can be read fast
		err = writeSnapshot(x.path("bits-"+next.head.Generation), next.head.Generation, snapshot{next.centre, next.centred, next.rows, next.blocks})
	}
	if err == nil {
		err = replaceFile(x.path("journal"), func(w io.Writer) error {
			_, err := w.Write(text)
			return err
		})
	}
	if err != nil {
		return nil, nil, err
	}
	done = true
	next.end = int64(len(text))
	next.journal, err = os.OpenFile(x.path("journal"), os.O_RDWR, 0o600)
	if err != nil {
		x.closed = ErrClosed // the new files count, and cannot be written: let nobody write the old ones
		next.release()
		return nil, nil, err
	}
	return next, damaged, nil
}

// copyRows copies floats, bits and documents to next, in the order of their rows, and returns next's journal.
func (x *Index) copyRows(ctx context.Context, next *Index) (journal []byte, damaged []string, err error) {
	entries := slices.Collect(maps.Values(x.byName))
	slices.SortFunc(entries, func(a, b int32) int { return x.docs[a].first - x.docs[b].first })
	journal = appendHeader(nil, next.head)
	w := words(x.head.Dimensions)
	for _, at := range entries {
		if err := ctx.Err(); err != nil {
			return nil, nil, err
		}
		e := x.docs[at]
		r := record{doc: e.Document, first: uint64(next.rows), sum: e.sum}
		raw, whole := x.floatsOf(e)
		if !whole {
			damaged = append(damaged, e.Name)
			continue
		}
		if _, err := next.vectors.WriteAt(raw, int64(next.rows)*int64(x.stride())); err != nil {
			return nil, nil, err
		}
		for i := range e.Points {
			from, row := e.first+i, next.rows+i
			if row/blockRows == len(next.blocks) {
				next.blocks = append(next.blocks, newBlock(w))
			}
			b, o := next.blocks[row/blockRows], x.blocks[from/blockRows]
			j, k := row%blockRows, from%blockRows
			copy(b.bits[j*w:(j+1)*w], o.bits[k*w:(k+1)*w])
			b.scale[j] = o.scale[k]
			r.ids = append(r.ids, o.ids[k])
		}
		next.apply(r)
		journal = appendRecord(journal, r)
	}
	return journal, damaged, nil
}
