package library

import (
	"bytes"
	"encoding/binary"
	"fmt"
	"hash/crc32"
	"math/rand/v2"
	"slices"
	"testing"
)

// built returns segments of about three notes each for notes with words by seed, and one segment of those notes that stay.
func built(seed uint64, notes int, stays func(note uint32) bool) (pieces []*segment, whole *segment) {
	rng := rand.New(rand.NewPCG(seed, 1))
	all, b := newBuilder(), newBuilder()
	passage := uint32(0)
	for n := range uint32(notes) {
		for range 1 + rng.IntN(4) {
			passage++
			var body []string
			for range rng.IntN(300) {
				body = append(body, fmt.Sprintf("w%d", rng.IntN(1+rng.IntN(400))))
			}
			fields := map[uint8][]string{inTitle: {fmt.Sprintf("w%d", n), "note"}, inHeading: body[:min(2, len(body))]}
			b.add(passage, n, body, fields)
			if stays(n) {
				all.add(passage, n, body, fields)
			}
		}
		if n%3 == 2 {
			pieces = append(pieces, b.finish())
			b = newBuilder()
		}
	}
	return append(pieces, b.finish()), all.finish()
}

func TestMergedSegmentsAreAsIfBuiltAtOnce(t *testing.T) {
	for seed := range uint64(20) {
		stays := func(note uint32) bool { return seed == 0 || uint64(note)%(seed+1) != 0 }
		pieces, whole := built(seed, 1+int(seed)*3, stays)
		for i, s := range pieces {
			pieces[i] = s.without(func(note uint32) bool { return !stays(note) })
		}
		one := merge(pieces)
		if !bytes.Equal(one.encode(), whole.encode()) {
			t.Fatalf("seed %d: %d passages and %d stems, want %d and %d", seed, len(one.passages), len(one.stemEnds), len(whole.passages), len(whole.stemEnds))
		}
		read, err := decode(one.encode())
		if err != nil || !bytes.Equal(read.encode(), one.encode()) || read.words != one.words {
			t.Fatalf("seed %d: read back: %v", seed, err)
		}
	}
}

// Whether the words are in one segment or in many, some of them gone, a search finds the same; but for the counts, which take
// what is gone out only when segments are merged.
func TestASearchDoesNotDependOnSegments(t *testing.T) {
	pieces, whole := built(3, 50, func(uint32) bool { return true })
	many, one := newIndex(pieces), newIndex([]*segment{whole})
	terms := []wanted{{stem: "w1", weight: many.idf(many.count("w1"))}, {stem: "w7", weight: 2}, {stem: "note", weight: 0.1}, {stem: "nowhere", weight: 9}}
	a, b := many.best(terms, 20, nil), one.best(terms, 20, nil)
	if many.count("w1") != one.count("w1") || len(a) != 20 || !slices.Equal(a, b) {
		t.Errorf("got  %v\nwant %v", a, b)
	}
	odd := func(note uint32) bool { return note%2 == 1 }
	for _, s := range many.best(terms, 20, odd) {
		if s.note%2 == 0 {
			t.Errorf("note %d was to be left out", s.note)
		}
	}
	for i, s := range pieces {
		pieces[i] = s.without(odd)
	}
	for _, s := range newIndex(pieces).best(terms, 1000, nil) {
		if s.note%2 == 1 {
			t.Errorf("note %d is gone and found", s.note)
		}
	}
}

func TestADamagedIndexIsMadeAgain(t *testing.T) {
	dir := folder(t, map[string]string{"a.md": "apples", "b.md": "bananas"})
	l := open(t, at(t, dir))
	for _, damage := range []string{
		`UPDATE library_segments SET postings = substr(postings, 1, 20)`,
		`DELETE FROM library_segments`,
	} {
		if _, err := l.db.Writer().Exec(damage); err != nil {
			t.Fatal(err)
		}
		again, err := Open(t.Context(), l.db, l.source)
		if err != nil {
			t.Fatal(err)
		}
		if r, err := again.Sync(t.Context()); err != nil || r.Added != 2 {
			t.Errorf("%s: %+v, %v", damage, r, err)
		}
		finds(t, again, "apples", "a.md")
	}
}

// A library that is written to note by note keeps few segments, and after each opening finds what it found before.
func TestSegmentsStayFew(t *testing.T) {
	l := open(t, at(t, t.TempDir()))
	for i := range 300 {
		doc := Document{Path: fmt.Sprintf("%d", i%100), Text: fmt.Appendf(nil, "number%d and some words", i)}
		if err := l.Put(t.Context(), Web, doc); err != nil {
			t.Fatal(err)
		}
	}
	x := l.words.Load()
	if x.notes != 100 || len(x.segments) > 16 {
		t.Errorf("%d notes in %d segments", x.notes, len(x.segments))
	}
	again, err := Open(t.Context(), l.db, l.source)
	if err != nil {
		t.Fatal(err)
	}
	finds(t, again, "number299", "99")
	finds(t, again, "number199")
	if y := again.words.Load(); y.passages != x.passages || y.words != x.words || len(y.segments) != len(x.segments) {
		t.Errorf("opened again: %d passages, %d words, %d segments; were %d, %d, %d", y.passages, y.words, len(y.segments), x.passages, x.words, len(x.segments))
	}
}

// Whatever stands in the database, decode takes it whole or not at all, and what it takes can be searched and merged.
func FuzzDecode(f *testing.F) {
	pieces, whole := built(1, 5, func(uint32) bool { return true })
	f.Add(whole.encode())
	f.Add(pieces[0].encode())
	f.Add([]byte{})
	f.Add(segmentMark)
	f.Fuzz(func(t *testing.T, b []byte) {
		s, err := decode(b)
		if err != nil {
			s, err = decode(sealed(b)) // with a checksum that fits, to get further
		}
		if err != nil {
			return
		}
		newIndex([]*segment{s}).best([]wanted{{stem: "w1", weight: 1}}, 3, nil)
		merge([]*segment{s, s})
	})
}

// sealed replaces the last four bytes of b by the checksum of the rest.
func sealed(b []byte) []byte {
	if len(b) < 4 {
		return b
	}
	b = b[:len(b)-4]
	return binary.LittleEndian.AppendUint32(slices.Clone(b), crc32.ChecksumIEEE(b))
}

// A segment that is written anew comes back under a later row, and still in its place.
func TestSegmentsAreReadInTheOrderOfTheirPassages(t *testing.T) {
	dir := folder(t, map[string]string{"a.md": "apples", "b.md": "bananas"})
	l := open(t, at(t, dir))
	write(t, dir, "c.md", "cherries")
	syncNow(t, l)
	all := l.words.Load().segments
	if len(all) != 2 {
		t.Fatalf("%d segments", len(all))
	}
	if err := replace(t.Context(), l.db, all[:1], merge(all[:1])); err != nil {
		t.Fatal(err)
	}
	x, err := loadIndex(t.Context(), l.db)
	if err != nil {
		t.Fatal(err)
	}
	one := merge(x.segments)
	if !slices.IsSorted(one.passages) {
		t.Errorf("after a start and a merge the passages are %d", one.passages)
	}
}
