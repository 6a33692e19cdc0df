package vector

import (
	"bytes"
	"encoding/binary"
	"encoding/json"
	"errors"
	"fmt"
	"hash/crc32"
	"slices"
	"time"
)

// An index is three files in one folder:
//
//	journal           what documents there are: a header, then one record for each document put or deleted. The truth.
//	vectors-GEN       the floats of all rows, little-endian, one after the other. A record names its rows.
//	bits-GEN          a copy of what memory holds, so that a start need not read the floats. Can be made again.
//
// A record is written after its floats and holds their checksum, so it counts wholly or not at all. Whatever stands behind
// the last good record was never acknowledged; Open cuts it off. GEN is a random number in the journal's header: compaction
// writes new files with a new one, and renaming the new journal over the old is the moment when they count.
const (
	journalMagic = "LRVJ0001" // the version is part of it
	bitsMagic    = "LRVB0001"
)

var crcTable = crc32.MakeTable(crc32.Castagnoli) // in hardware on amd64 and arm64

func checksum(b []byte) uint32 { return crc32.Checksum(b, crcTable) }

// A header begins the journal.
type header struct {
	Stamp
	Generation string `json:"generation"`
}

// maxRecord bounds a record. A document of a million points has one of about 2 MB.
const maxRecord = 64 << 20

// A record is one document put (its points take the rows [first, first+len(ids))), or deleted.
type record struct {
	deleted bool
	doc     Document
	first   uint64
	ids     []uint64
	sum     uint32 // of the bytes of the rows
}

// appendFrame appends body with its length and checksum before it.
func appendFrame(dst, body []byte) []byte {
	dst = binary.LittleEndian.AppendUint32(dst, uint32(len(body)))
	dst = binary.LittleEndian.AppendUint32(dst, checksum(body))
	return append(dst, body...)
}

var errTorn = errors.New("the file ends in the middle of something")

// cutFrame returns the first frame's body and what follows it.
func cutFrame(b []byte) (body, rest []byte, err error) {
	if len(b) < 8 {
		return nil, b, errTorn
	}
	n, sum := binary.LittleEndian.Uint32(b), binary.LittleEndian.Uint32(b[4:])
	if n > maxRecord || int(n) > len(b)-8 {
		return nil, b, errTorn
	}
	if body = b[8 : 8+n]; checksum(body) != sum {
		return nil, b, errors.New("a checksum does not fit")
	}
	return body, b[8+n:], nil
}

func appendHeader(dst []byte, h header) []byte {
	body, err := json.Marshal(h)
	if err != nil {
		panic("vector: " + err.Error()) // strings and numbers always can be written
	}
	return appendFrame(append(dst, journalMagic...), body)
}

// cutHeader reads a journal's header and returns what follows it.
func cutHeader(b []byte) (h header, rest []byte, err error) {
	b, ok := bytes.CutPrefix(b, []byte(journalMagic))
	if !ok {
		return h, nil, errors.New("it does not begin like one of this version")
	}
	body, rest, err := cutFrame(b)
	if err != nil {
		return h, nil, err
	}
	if err := json.Unmarshal(body, &h); err != nil {
		return h, nil, err
	}
	if len(h.Generation) != 16 {
		return h, nil, errors.New("its generation is not 16 letters long")
	}
	return h, rest, h.Validate()
}

func appendRecord(dst []byte, r record) []byte {
	b := []byte{0}
	if r.deleted {
		b[0] = 1
		return appendFrame(dst, appendText(b, r.doc.Name))
	}
	b = appendText(b, r.doc.Name)
	b = appendText(b, r.doc.Version)
	b = appendText(b, r.doc.Type)
	b = binary.AppendUvarint(b, uint64(len(r.doc.Tags)))
	for _, t := range r.doc.Tags {
		b = appendText(b, t)
	}
	modified := int64(0)
	if !r.doc.Modified.IsZero() {
		modified = r.doc.Modified.UnixMilli()
	}
	b = binary.AppendVarint(b, modified)
	b = binary.AppendUvarint(b, r.first)
	b = binary.LittleEndian.AppendUint32(b, r.sum)
	b = binary.AppendUvarint(b, uint64(len(r.ids)))
	before := uint64(0)
	for _, id := range r.ids {
		b = binary.AppendVarint(b, int64(id-before)) // wraps around and back
		before = id
	}
	return appendFrame(dst, b)
}

func appendText(b []byte, s string) []byte {
	return append(binary.AppendUvarint(b, uint64(len(s))), s...)
}

// cutRecord reads the first record of b and returns what follows it. Nothing of it points into b.
func cutRecord(b []byte) (r record, rest []byte, err error) {
	body, rest, err := cutFrame(b)
	if err != nil {
		return r, b, err
	}
	d := decoder{b: body}
	kind := d.byte()
	r.deleted = kind == 1
	r.doc.Name = d.text()
	if !r.deleted {
		r.doc.Version, r.doc.Type = d.text(), d.text()
		for range d.count() {
			r.doc.Tags = append(r.doc.Tags, d.text())
		}
		if ms := d.varint(); ms != 0 {
			r.doc.Modified = time.UnixMilli(ms).UTC()
		}
		r.first, r.sum = d.uvarint(), d.uint32()
		n := d.count()
		r.ids = slices.Grow(r.ids, n)
		before := uint64(0)
		for range n {
			before += uint64(d.varint())
			r.ids = append(r.ids, before)
		}
		r.doc.Points = n
	}
	if d.bad || len(d.b) > 0 || kind > 1 || r.doc.Name == "" {
		return r, b, fmt.Errorf("a record of %d bytes makes no sense", len(body))
	}
	return r, rest, nil
}

// A decoder reads numbers and texts; bad is set once something is not there.
type decoder struct {
	b   []byte
	bad bool
}

func (d *decoder) take(n int) []byte {
	if d.bad || n < 0 || n > len(d.b) {
		d.bad, d.b = true, nil
		return make([]byte, min(max(n, 0), 8))
	}
	out := d.b[:n]
	d.b = d.b[n:]
	return out
}

func (d *decoder) byte() byte     { return d.take(1)[0] }
func (d *decoder) uint32() uint32 { return binary.LittleEndian.Uint32(d.take(4)) }

func (d *decoder) uvarint() uint64 {
	v, n := binary.Uvarint(d.b)
	if n <= 0 {
		n = -1
	}
	d.take(n)
	return v
}

func (d *decoder) varint() int64 {
	v, n := binary.Varint(d.b)
	if n <= 0 {
		n = -1
	}
	d.take(n)
	return v
}

// count reads how many things of at least one byte follow.
func (d *decoder) count() int {
	n := d.uvarint()
	if n > uint64(len(d.b)) {
		d.bad, d.b = true, nil
		return 0
	}
	return int(n)
}

func (d *decoder) text() string { return string(d.take(d.count())) }
