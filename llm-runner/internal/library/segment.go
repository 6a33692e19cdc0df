package library

import (
	"bytes"
	"encoding/binary"
	"errors"
	"hash/crc32"
	"runtime"
	"slices"
	"sort"
)

// A segment is a part of the index that never changes: for each stem, in which passages it stands and how often. The passages of
// a note are neighbours in one segment. It is one row of library_segments, written in the transaction that writes its passages.
type segment struct {
	row  int64 // in library_segments
	size int   // bytes of the row

	passages []uint32 // ids of the passages, by ordinal
	lengths  []uint16 // words of the body, by ordinal
	noteOf   []uint32 // index into notes, by ordinal
	notes    []uint32 // ids of the notes

	noteWords []uint32 // words of all bodies of a note, by index into notes; made by settle

	stems    string   // all stems one after the other, sorted
	stemEnds []uint32 // where each ends in stems
	counts   []uint32 // in how many passages each stands
	listEnds []uint32 // where the postings of each end in lists
	lists    *postings

	dead  []uint64 // bit set of the ordinals whose passages are gone; replaced, never written to
	lost  int      // how many those are
	words int      // sum of the lengths of those that are not gone
}

// postings are the lists of a segment, one after the other. Copies of a segment share them.
type postings struct{ bytes []byte }

// The fields of a note around the body, as bits of a posting.
const (
	inTitle uint8 = 1 << iota
	inAlias
	inHeading
	inPath
	inTags
)

// A posting says that a stem stands tf times in the body of a passage, and in which fields around it.
type posting struct {
	ordinal uint32
	tf      uint16
	fields  uint8
}

// A list of postings is a series of varints: the distance to the ordinal before, times four, plus how the rest is written.
const (
	once  = iota // once in the body, in no field
	twice        // twice in the body, in no field
	often        // tf follows
	whole        // tf and the fields follow
)

func (p posting) append(b []byte, before uint32) []byte {
	form := uint64(whole)
	switch {
	case p.fields != 0:
	case p.tf == 1:
		form = once
	case p.tf == 2:
		form = twice
	default:
		form = often
	}
	b = binary.AppendUvarint(b, uint64(p.ordinal-before)<<2|form)
	if form >= often {
		b = binary.AppendUvarint(b, uint64(p.tf))
	}
	if form == whole {
		b = append(b, p.fields)
	}
	return b
}

// each calls f with every posting of list. Damaged bytes end it; decode has looked at the whole by its checksum.
func each(list []byte, f func(posting)) {
	var p posting
	for i := 0; i < len(list); {
		v := uint64(list[i])
		i++
		if v >= 0x80 {
			var n int
			if v, n = binary.Uvarint(list[i-1:]); n <= 0 {
				return
			}
			i += n - 1
		}
		p.ordinal += uint32(v >> 2)
		p.tf, p.fields = uint16(v&3+1), 0
		if form := v & 3; form >= often {
			tf, n := binary.Uvarint(list[i:])
			if n <= 0 {
				return
			}
			i += n
			p.tf = uint16(tf)
			if form == whole {
				if i >= len(list) {
					return
				}
				p.fields = list[i]
				i++
			}
		}
		f(p)
	}
}

// find returns the number of a stem in the segment.
func (s *segment) find(stem string) (n int, ok bool) {
	n = sort.Search(len(s.stemEnds), func(i int) bool { return s.stem(i) >= stem })
	return n, n < len(s.stemEnds) && s.stem(n) == stem
}

func (s *segment) stem(i int) string {
	from := uint32(0)
	if i > 0 {
		from = s.stemEnds[i-1]
	}
	return s.stems[from:s.stemEnds[i]]
}

// list returns the postings of a stem. It is valid as long as s is: see offHeap.
func (s *segment) list(i int) []byte {
	from := uint32(0)
	if i > 0 {
		from = s.listEnds[i-1]
	}
	return s.lists.bytes[from:s.listEnds[i]]
}

func (s *segment) gone(ordinal uint32) bool {
	return s.dead != nil && s.dead[ordinal>>6]&(1<<(ordinal&63)) != 0
}

// without returns the segment with the passages of the notes for which dead is true gone.
func (s *segment) without(dead func(note uint32) bool) *segment {
	c := *s
	c.dead, c.lost, c.words = make([]uint64, (len(s.passages)+63)/64), 0, 0
	for i := range s.passages {
		if !s.gone(uint32(i)) && !dead(s.notes[s.noteOf[i]]) {
			c.words += int(s.lengths[i])
			continue
		}
		c.dead[i>>6] |= 1 << (i & 63)
		c.lost++
	}
	if c.lost == 0 {
		c.dead = nil
	}
	return &c
}

// first is the segment's first passage.
func (s *segment) first() uint32 {
	if len(s.passages) == 0 {
		return 0
	}
	return s.passages[0]
}

// A builder gathers the passages of one segment.
type builder struct {
	segment
	found map[string][]posting
}

func newBuilder() *builder { return &builder{found: map[string][]posting{}} }

// add takes in a passage: the words of its body, and those of the fields around it. The passages of a note follow one another.
func (b *builder) add(passage, note uint32, body []string, fields map[uint8][]string) {
	n := uint32(len(b.passages))
	if len(b.notes) == 0 || b.notes[len(b.notes)-1] != note {
		b.notes = append(b.notes, note)
	}
	b.passages = append(b.passages, passage)
	b.lengths = append(b.lengths, uint16(min(len(body), 1<<16-1)))
	b.noteOf = append(b.noteOf, uint32(len(b.notes)-1))
	at := func(stem string) *posting {
		list := b.found[stem]
		if len(list) == 0 || list[len(list)-1].ordinal != n {
			list = append(list, posting{ordinal: n})
			b.found[stem] = list
		}
		return &list[len(list)-1]
	}
	for _, stem := range body {
		if stem == "" { // a mark that belongs to no letter
			continue
		}
		if p := at(stem); p.tf < 1<<16-1 {
			p.tf++
		}
	}
	for bit, stems := range fields {
		for _, stem := range stems {
			if stem == "" {
				continue
			}
			at(stem).fields |= bit
		}
	}
}

// finish returns the segment.
func (b *builder) finish() *segment {
	stems := make([]string, 0, len(b.found))
	for stem := range b.found {
		stems = append(stems, stem)
	}
	slices.Sort(stems)
	w := writing{segment: b.segment}
	for _, stem := range stems {
		for _, p := range b.found[stem] {
			w.posting(p)
		}
		w.end(stem)
	}
	return w.finish()
}

// writing is a segment whose lists are written one stem after the other.
type writing struct {
	segment
	names  []byte
	bytes  []byte // of the lists
	before uint32
	n      uint32
}

func (w *writing) posting(p posting) {
	w.bytes = p.append(w.bytes, w.before)
	w.before = p.ordinal
	w.n++
}

func (w *writing) end(stem string) {
	if w.n == 0 {
		return
	}
	w.names = append(w.names, stem...)
	w.stemEnds = append(w.stemEnds, uint32(len(w.names)))
	w.listEnds = append(w.listEnds, uint32(len(w.bytes)))
	w.counts = append(w.counts, w.n)
	w.before, w.n = 0, 0
}

func (w *writing) finish() *segment {
	s := w.segment
	s.stems = string(w.names)
	s.settle(w.bytes)
	return &s
}

// settle takes the lists, and makes what follows from the rest; what grew to its size gives back what it does not need.
func (s *segment) settle(lists []byte) {
	s.lists = &postings{}
	s.lists.bytes = offHeap(s.lists, lists)
	s.passages, s.lengths, s.noteOf, s.notes = slices.Clone(s.passages), slices.Clone(s.lengths), slices.Clone(s.noteOf), slices.Clone(s.notes)
	s.stemEnds, s.listEnds, s.counts = slices.Clone(s.stemEnds), slices.Clone(s.listEnds), slices.Clone(s.counts)
	s.noteWords = make([]uint32, len(s.notes))
	for i, n := range s.lengths {
		s.words += int(n)
		s.noteWords[s.noteOf[i]] += uint32(n)
	}
}

// merge makes one segment of several, what is gone left out.
func merge(all []*segment) *segment {
	var w writing
	moved := make([][]int32, len(all)) // new ordinals; -1: gone
	for i, s := range all {
		moved[i] = make([]int32, len(s.passages))
		last := -1
		for j := range s.passages {
			if s.gone(uint32(j)) {
				moved[i][j] = -1
				continue
			}
			if int(s.noteOf[j]) != last {
				last = int(s.noteOf[j])
				w.notes = append(w.notes, s.notes[last])
			}
			moved[i][j] = int32(len(w.passages))
			w.passages = append(w.passages, s.passages[j])
			w.lengths = append(w.lengths, s.lengths[j])
			w.noteOf = append(w.noteOf, uint32(len(w.notes)-1))
		}
	}
	at := make([]int, len(all))
	for {
		least, any := "", false
		for i, s := range all {
			if at[i] < len(s.stemEnds) && (!any || s.stem(at[i]) < least) {
				least, any = s.stem(at[i]), true
			}
		}
		if !any {
			one := w.finish()
			runtime.KeepAlive(all)
			return one
		}
		for i, s := range all {
			if at[i] == len(s.stemEnds) || s.stem(at[i]) != least {
				continue
			}
			each(s.list(at[i]), func(p posting) {
				if to := moved[i][p.ordinal]; to >= 0 {
					p.ordinal = uint32(to)
					w.posting(p)
				}
			})
			at[i]++
		}
		w.end(least)
	}
}

// segmentMark begins every encoded segment: a name and the version of the form.
var segmentMark = []byte("words1\n")

// encode returns the segment as bytes: the mark, its numbers as varints, stems, lists, and a checksum of it all.
func (s *segment) encode() []byte {
	b := slices.Clone(segmentMark)
	b = binary.AppendUvarint(b, uint64(len(s.passages)))
	b = binary.AppendUvarint(b, uint64(len(s.notes)))
	b = binary.AppendUvarint(b, uint64(len(s.stemEnds)))
	b = binary.AppendUvarint(b, uint64(len(s.stems)))
	b = binary.AppendUvarint(b, uint64(len(s.lists.bytes)))
	for i := range s.passages {
		b = binary.AppendUvarint(b, uint64(s.passages[i]))
		b = binary.AppendUvarint(b, uint64(s.lengths[i]))
		b = binary.AppendUvarint(b, uint64(s.noteOf[i]))
	}
	for _, n := range s.notes {
		b = binary.AppendUvarint(b, uint64(n))
	}
	stem, list := uint32(0), uint32(0)
	for i := range s.stemEnds {
		b = binary.AppendUvarint(b, uint64(s.stemEnds[i]-stem))
		b = binary.AppendUvarint(b, uint64(s.listEnds[i]-list))
		b = binary.AppendUvarint(b, uint64(s.counts[i]))
		stem, list = s.stemEnds[i], s.listEnds[i]
	}
	b = append(b, s.stems...)
	b = append(b, s.lists.bytes...)
	runtime.KeepAlive(s)
	return binary.LittleEndian.AppendUint32(b, crc32.ChecksumIEEE(b))
}

var errSegment = errors.New("the index of words is damaged")

// decode reads what encode wrote. Whatever else it is given is an error; it keeps no reference to b.
func decode(b []byte) (*segment, error) {
	n := len(b) - 4
	if n < 0 || !bytes.HasPrefix(b, segmentMark) || binary.LittleEndian.Uint32(b[n:]) != crc32.ChecksumIEEE(b[:n]) {
		return nil, errSegment
	}
	s := &segment{size: len(b)}
	b = b[len(segmentMark):n]
	bad := false
	number := func() uint64 {
		v, n := binary.Uvarint(b)
		if n <= 0 {
			bad = true
			return 0
		}
		b = b[n:]
		return v
	}
	passages, notes, stems, names, lists := number(), number(), number(), number(), number()
	if most := uint64(len(b)); bad || passages > most || notes > most || stems > most || names > most || lists > most {
		return nil, errSegment
	}
	s.passages, s.lengths, s.noteOf = make([]uint32, passages), make([]uint16, passages), make([]uint32, passages)
	for i := range s.passages {
		s.passages[i], s.lengths[i], s.noteOf[i] = uint32(number()), uint16(number()), uint32(number())
		bad = bad || uint64(s.noteOf[i]) >= notes
	}
	s.notes = make([]uint32, notes)
	for i := range s.notes {
		s.notes[i] = uint32(number())
	}
	s.stemEnds, s.listEnds, s.counts = make([]uint32, stems), make([]uint32, stems), make([]uint32, stems)
	var stem, list uint64
	for i := range s.stemEnds {
		stem, list = stem+number(), list+number()
		if stem > names || list > lists {
			return nil, errSegment
		}
		s.stemEnds[i], s.listEnds[i], s.counts[i] = uint32(stem), uint32(list), uint32(number())
	}
	if bad || stem != names || list != lists || uint64(len(b)) != names+lists {
		return nil, errSegment
	}
	s.stems = string(b[:names])
	s.settle(b[names:])
	for i := range s.stemEnds {
		each(s.list(i), func(p posting) { bad = bad || uint64(p.ordinal) >= passages })
	}
	if bad {
		return nil, errSegment
	}
	return s, nil
}
