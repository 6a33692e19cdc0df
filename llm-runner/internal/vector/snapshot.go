package vector

import (
	"bufio"
	"encoding/binary"
	"errors"
	"fmt"
	"hash"
	"hash/crc32"
	"io"
	"math"
	"os"
	"path/filepath"
)

// blockRows is how many rows a block has: small enough that growing costs no copy of what is there.
const blockRows = 4096

// A block is what memory holds of blockRows rows.
type block struct {
	bits  []uint64           // words of each row
	scale [blockRows]float32 // see sketch
	ids   [blockRows]uint64  // of the points
	doc   [blockRows]int32   // whose points they are; dead where nobody's
}

// dead is the document of rows that were replaced or deleted.
const dead = -1

func newBlock(words int) *block {
	b := &block{bits: make([]uint64, blockRows*words)}
	for i := range b.doc {
		b.doc[i] = dead
	}
	return b
}

// A snapshot is what the bits file holds: centre, and bits and scale of the rows [0, rows).
type snapshot struct {
	centre  []float32
	centred int // how many points the centre was taken of; 0: there is none yet
	rows    int
	blocks  []*block
}

// writeSnapshot writes s beside path and renames it there, so that path is the old file or the new one.
func writeSnapshot(path, generation string, s snapshot) error {
	return replaceFile(path, func(f io.Writer) error {
		w := &sumWriter{w: bufio.NewWriterSize(f, 256<<10), sum: crc32.New(crcTable)}
		w.bytes([]byte(bitsMagic))
		w.bytes([]byte(generation))
		for _, n := range []int{len(s.centre), s.centred, s.rows} {
			w.uint64(uint64(n))
		}
		w.floats(s.centre)
		for at := 0; at < s.rows; at += blockRows {
			b, n := s.blocks[at/blockRows], min(blockRows, s.rows-at)
			w.floats(b.scale[:n])
			for _, x := range b.bits[:n*words(len(s.centre))] {
				w.uint64(x)
			}
		}
		sum := w.sum.Sum32()
		w.bytes(binary.LittleEndian.AppendUint32(nil, sum))
		return errors.Join(w.err, w.w.Flush())
	})
}

type sumWriter struct {
	w   *bufio.Writer
	sum hash.Hash32
	err error
	buf [8]byte
}

func (w *sumWriter) bytes(b []byte) {
	if w.err == nil {
		w.sum.Write(b) //nolint:errcheck // a hash has no errors
		_, w.err = w.w.Write(b)
	}
}

func (w *sumWriter) uint64(n uint64) {
	binary.LittleEndian.PutUint64(w.buf[:], n)
	w.bytes(w.buf[:])
}

func (w *sumWriter) floats(v []float32) {
	for _, x := range v {
		binary.LittleEndian.PutUint32(w.buf[:4], math.Float32bits(x))
		w.bytes(w.buf[:4])
	}
}

// readSnapshot reads what writeSnapshot wrote for an index of this generation and dimension.
func readSnapshot(r io.Reader, generation string, dimensions int) (s snapshot, err error) {
	in := &sumReader{r: bufio.NewReaderSize(r, 256<<10), sum: crc32.New(crcTable)}
	if string(in.bytes(len(bitsMagic))) != bitsMagic || string(in.bytes(len(generation))) != generation {
		return s, errors.New("read bits: it does not belong to the journal")
	}
	n, centred, rows := in.uint64(), in.uint64(), in.uint64()
	if n != uint64(dimensions) || centred > math.MaxInt32 || rows > math.MaxInt32 {
		return s, errors.New("read bits: its sizes make no sense")
	}
	s.centred, s.rows, s.centre = int(centred), int(rows), make([]float32, dimensions)
	in.floats(s.centre)
	for at := 0; at < s.rows && in.err == nil; at += blockRows {
		b, n := newBlock(words(dimensions)), min(blockRows, s.rows-at)
		in.floats(b.scale[:n])
		in.uint64s(b.bits[:n*words(dimensions)])
		s.blocks = append(s.blocks, b)
	}
	sum := in.sum.Sum32()
	if got := in.bytes(4); in.err == nil && binary.LittleEndian.Uint32(got) != sum {
		in.err = errors.New("its checksum does not fit")
	}
	if in.err != nil {
		return snapshot{}, fmt.Errorf("read bits: %w", in.err)
	}
	return s, nil
}

// A sumReader reads and sums; after the first error it gives zeros.
type sumReader struct {
	r   io.Reader
	sum hash.Hash32
	err error
	buf [32 << 10]byte
}

// bytes returns the next n bytes, n <= len(buf), good until the next call.
func (r *sumReader) bytes(n int) []byte {
	b := r.buf[:n]
	if r.err == nil {
		_, r.err = io.ReadFull(r.r, b)
	}
	if r.err != nil {
		clear(b)
	}
	r.sum.Write(b) //nolint:errcheck // a hash has no errors
	return b
}

func (r *sumReader) uint64() uint64 { return binary.LittleEndian.Uint64(r.bytes(8)) }

func (r *sumReader) floats(dst []float32) {
	for len(dst) > 0 && r.err == nil {
		n := min(len(dst), len(r.buf)/4)
		floats(dst[:n], r.bytes(4*n))
		dst = dst[n:]
	}
}

func (r *sumReader) uint64s(dst []uint64) {
	for len(dst) > 0 && r.err == nil {
		n := min(len(dst), len(r.buf)/8)
		b := r.bytes(8 * n)
		for i := range n {
			dst[i] = binary.LittleEndian.Uint64(b[8*i:])
		}
		dst = dst[n:]
	}
}

// replaceFile writes a file beside path, makes it durable and renames it over path.
func replaceFile(path string, write func(io.Writer) error) error {
	f, err := os.CreateTemp(filepath.Dir(path), filepath.Base(path)+temporary+"*")
	if err != nil {
		return err
	}
	defer os.Remove(f.Name()) // once renamed, it is not there
	err = write(f)
	if err == nil {
		err = f.Sync()
	}
	if err = errors.Join(err, f.Close()); err != nil {
		return err
	}
	if err := os.Rename(f.Name(), path); err != nil {
		return err
	}
	return syncDir(filepath.Dir(path))
}

// temporary marks files that a rename has not made valid; Open removes those that a dead process left.
const temporary = ".new-"

// syncDir makes renames in a folder durable. Where folders cannot be synced (Windows) there is nothing to do.
func syncDir(dir string) error {
	d, err := os.Open(dir)
	if err != nil {
		return err
	}
	defer d.Close()
	if err := d.Sync(); err != nil && !errors.Is(err, errors.ErrUnsupported) && !os.IsPermission(err) {
		return err
	}
	return nil
}
