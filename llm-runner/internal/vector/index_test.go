package vector

import (
	"bytes"
	"errors"
	"fmt"
	"math/rand/v2"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"testing"
)

func TestFewPointsAreSearchedExactly(t *testing.T) {
	vectors := made(rescored(0, 128, 1)+20, 128, 0.8, 0.2, 1)
	queries, points := vectors[:20], vectors[20:]
	x := filled(t, t.TempDir(), Stamp{Model: "m", Dimensions: 128}, points)
	for _, q := range queries {
		hits, err := x.Query(t.Context(), Query{Vector: q, Limit: 30})
		if err != nil {
			t.Fatal(err)
		}
		for i, want := range exact(q, points, 30) {
			if hits[i].ID != want {
				t.Fatalf("hit %d is point %d, not %d", i, hits[i].ID, want)
			}
		}
	}
}

func TestAmongThousandsOfPointsTheNearestAreFound(t *testing.T) {
	for _, dimensions := range []int{128, 384, 768} {
		vectors := made(5050, dimensions, 0.8, 0.3, 1)
		x := filled(t, t.TempDir(), Stamp{Model: "m", Dimensions: dimensions}, vectors[50:])
		if r := recall(t, x, vectors[:50], vectors[50:]); r < 0.99 {
			t.Errorf("%d dimensions: recall@10 is %.3f", dimensions, r)
		}
	}
}

// The centre is what makes signs tell something where all vectors point more or less the same way.
func TestTheCentreKeepsWhatIsCommonOutOfTheSigns(t *testing.T) {
	vectors := made(4100, 128, 0.8, 0.9, 1)
	x := filled(t, t.TempDir(), Stamp{Model: "m", Dimensions: 128}, vectors[100:])
	q, with, without := make([]uint64, 2), 0, 0
	none := make([]float32, 128)
	for _, v := range vectors[:100] {
		for _, w := range vectors[100:110] {
			for c, n := range map[*float32]*int{&x.centre[0]: &with, &none[0]: &without} {
				centre, r := x.centre, make([]uint64, 2)
				if c == &none[0] {
					centre = none
				}
				sketch(q, v, centre)
				sketch(r, w, centre)
				d := make([]uint16, 1)
				differ(d, r, q)
				*n += int(d[0])
			}
		}
	}
	if with < 2*without {
		t.Errorf("random points differ in %d bits of 1000 pairs, in %d without a centre", with, without)
	}
}

func TestBitsAreCountedTheSameInEveryWidth(t *testing.T) {
	r := rand.New(rand.NewPCG(1, 1))
	for _, w := range []int{1, 5, 6, 7, 12, 13, 16} {
		q, rows := make([]uint64, w), make([]uint64, 9*w)
		for i := range q {
			q[i] = r.Uint64()
		}
		for i := range rows {
			rows[i] = r.Uint64()
		}
		got := make([]uint16, 9)
		differ(got, rows, q)
		for i := range got {
			want := strings.Count(fmt.Sprintf("%b", xor(rows[i*w:(i+1)*w], q)), "1")
			if int(got[i]) != want {
				t.Errorf("%d words: %d, want %d", w, got[i], want)
			}
		}
	}
}

func xor(a, b []uint64) []uint64 {
	out := make([]uint64, len(a))
	for i := range a {
		out[i] = a[i] ^ b[i]
	}
	return out
}

func TestTheTableAddsSigns(t *testing.T) {
	for _, n := range []int{3, 64, 100, 384} {
		v := made(1, 384, 0.5, 0, 1)[0][:n]
		s := made(1, 384, 0.5, 0, 2)[0][:n]
		row := make([]uint64, words(n))
		sketch(row, s, make([]float32, n))
		var want float64
		for i, x := range v {
			if s[i] > 0 {
				want += float64(x)
			} else {
				want -= float64(x)
			}
		}
		if got := newTable(v).signs(row); float64(got)-want > 1e-5 || want-float64(got) > 1e-5 {
			t.Errorf("%d dimensions: %v, want %v", n, got, want)
		}
	}
}

func TestOnlyKeptIDsAreFound(t *testing.T) {
	vectors := made(6000, 128, 0.8, 0.2, 1)
	x := filled(t, t.TempDir(), Stamp{Model: "m", Dimensions: 128}, vectors)
	var kept [][]float32
	for i := 0; i < len(vectors); i += 100 {
		kept = append(kept, vectors[i])
	}
	asked := 0
	hits, err := x.QueryIDs(t.Context(), Query{Vector: vectors[7], Limit: 20}, func(id uint64) bool { asked++; return id%100 == 0 })
	if err != nil {
		t.Fatal(err)
	}
	for i, want := range exact(vectors[7], kept, 20) {
		if hits[i].ID != want*100 {
			t.Fatalf("hit %d is point %d, not %d", i, hits[i].ID, want*100)
		}
	}
	asked = 0
	if _, err := x.QueryIDs(t.Context(), Query{Vector: vectors[7], Limit: 20}, func(uint64) bool { asked++; return true }); err != nil || asked > leastWeighed {
		t.Errorf("asked about %d points where all are kept: %v", asked, err)
	}
}

// answers are what an index says, for comparing.
func answers(t *testing.T, x *Index, queries [][]float32) string {
	t.Helper()
	var b strings.Builder
	docs, err := x.Documents(t.Context())
	fmt.Fprintln(&b, docs, err)
	for _, q := range queries {
		hits, err := x.Query(t.Context(), Query{Vector: q, Limit: 10})
		fmt.Fprintln(&b, hits, err)
	}
	return b.String()
}

// TestTheSameAnswersWhateverHappened puts, replaces and deletes documents at random and now and then compacts, saves, closes
// and opens, or only opens as after a crash; the answers are those of a new index that got the same documents in order.
func TestTheSameAnswersWhateverHappened(t *testing.T) {
	s := Stamp{Model: "m", Dimensions: 128}
	vectors := made(3000, 128, 0.8, 0.2, 1)
	queries := vectors[:5]
	for seed := range uint64(4) {
		r := rand.New(rand.NewPCG(seed, 9))
		dir := t.TempDir()
		x, err := Open(dir, s)
		if err != nil {
			t.Fatal(err)
		}
		truth := map[string]Entry{}
		for step := range 250 {
			name := fmt.Sprint(r.IntN(60))
			switch what := r.IntN(100); {
			case what < 70:
				e := Entry{Document: Document{Name: name, Version: fmt.Sprint(step), Tags: []string{"t" + name}}}
				for i := range r.IntN(8) {
					e.Points = append(e.Points, Point{ID: uint64(step*10 + i), Vector: vectors[r.IntN(len(vectors))]})
				}
				err, truth[name] = x.Replace(t.Context(), e), e
			case what < 90:
				err = x.Delete(t.Context(), name)
				delete(truth, name)
			case what < 92:
				err = x.Compact(t.Context())
			case what < 94:
				err = x.Save(t.Context())
			case what < 97:
				if err = x.Close(); err == nil {
					x, err = Open(dir, s)
				}
			default: // the process died
				x.discard()
				x, err = Open(dir, s)
			}
			if err != nil || x.Healed != "" {
				t.Fatal(seed, step, err, x.Healed)
			}
		}
		fresh, err := Open(t.TempDir(), s)
		if err != nil {
			t.Fatal(err)
		}
		for _, e := range truth {
			if err := fresh.Replace(t.Context(), e); err != nil {
				t.Fatal(err)
			}
		}
		if got, want := answers(t, x, queries), answers(t, fresh, queries); got != want {
			t.Fatalf("seed %d: got\n%.2000s\nwant\n%.2000s", seed, got, want)
		}
		if damaged, err := x.Check(t.Context()); len(damaged) > 0 || err != nil {
			t.Fatal(damaged, err)
		}
		x.Close()
		fresh.Close()
	}
}

func TestCompactingFreesWhatBelongsToNobody(t *testing.T) {
	s, dir := Stamp{Model: "m", Dimensions: 128}, t.TempDir()
	vectors := made(1000, 128, 0.8, 0.2, 1)
	x := filled(t, dir, s, vectors)
	filledAgain := func() {
		for i := range 50 {
			e := Entry{Document: Document{Name: fmt.Sprintf("folder %d/a note with a usual name %d.md", 10*i%7, 10*i)}}
			if err := x.Replace(t.Context(), e); err != nil {
				t.Fatal(err)
			}
		}
	}
	filledAgain()
	if live, dead := x.Rows(); live != 500 || dead != 500 {
		t.Fatal(live, dead)
	}
	before := answers(t, x, vectors[:10])
	if err := x.Compact(t.Context()); err != nil {
		t.Fatal(err)
	}
	if live, dead := x.Rows(); live != 500 || dead != 0 {
		t.Fatal(live, dead)
	}
	if got := answers(t, x, vectors[:10]); got != before {
		t.Error("other answers than before")
	}
	files, _ := filepath.Glob(filepath.Join(dir, "*"))
	if len(files) != 3 {
		t.Error(files)
	}
	if st, err := os.Stat(x.path("vectors-" + x.head.Generation)); err != nil || st.Size() != 500*4*128 {
		t.Error(st, err)
	}
}

func TestSavingCompactsWhatIsMostlyWaste(t *testing.T) {
	x := filled(t, t.TempDir(), Stamp{Model: "m", Dimensions: 128}, made(2200, 128, 0.8, 0.2, 1))
	for i := 0; i < 1100; i += 10 {
		if err := x.Delete(t.Context(), fmt.Sprintf("folder %d/a note with a usual name %d.md", i%7, i)); err != nil {
			t.Fatal(err)
		}
	}
	for _, want := range []int{1100, 0} {
		if err := x.Save(t.Context()); err != nil {
			t.Fatal(err)
		}
		if _, dead := x.Rows(); dead != want {
			t.Errorf("%d rows belong to nobody, want %d", dead, want)
		}
		if err := x.Delete(t.Context(), "folder 1/a note with a usual name 1100.md"); err != nil {
			t.Fatal(err)
		}
	}
	for range 3000 { // no rows, but records
		if err := x.Replace(t.Context(), Entry{Document: Document{Name: "again and again"}}); err != nil {
			t.Fatal(err)
		}
	}
	before := x.end
	if err := x.Save(t.Context()); err != nil || x.end >= before/2 {
		t.Error(before, x.end, err)
	}
}

// TestSearchesGoOnWhileTheIndexChanges is for the race detector, and for answers that are never of a half-changed index.
func TestSearchesGoOnWhileTheIndexChanges(t *testing.T) {
	vectors := made(1200, 128, 0.8, 0.2, 1)
	x := filled(t, t.TempDir(), Stamp{Model: "m", Dimensions: 128}, vectors)
	done := make(chan struct{})
	var readers sync.WaitGroup
	for i := range 3 {
		readers.Go(func() {
			for n := i; ; n++ {
				select {
				case <-done:
					return
				default:
				}
				hits, err := x.Query(t.Context(), Query{Vector: vectors[n%1000], Limit: 5, Filter: Filter{Tags: [][]string{{"one"}}}})
				if err != nil || len(hits) != 5 || hits[0].Score < hits[4].Score {
					t.Error(hits, err)
					return
				}
				_, _ = x.Documents(t.Context())
				_ = x.Stamp()
			}
		})
	}
	for i := range 20 {
		e := Entry{Document: Document{Name: "changing", Tags: []string{"one"}}, Points: []Point{{ID: uint64(5000 + i), Vector: vectors[i]}}}
		err := x.Replace(t.Context(), e)
		switch {
		case i%7 == 3:
			err = errors.Join(err, x.Compact(t.Context()))
		case i%5 == 2:
			err = errors.Join(err, x.Save(t.Context()), x.Delete(t.Context(), "changing"))
		}
		if err != nil {
			t.Fatal(err)
		}
	}
	close(done)
	readers.Wait()
}

func TestAnIndexOfAnotherModelIsRefused(t *testing.T) {
	dir := t.TempDir()
	s := Stamp{Model: "nomic-embed-text", Dimensions: 8, Prefix: "search_document: "}
	x, err := Open(dir, s)
	if err != nil {
		t.Fatal(err)
	}
	x.Close()
	for _, other := range []Stamp{{"bge-m3", 8, "search_document: "}, {"nomic-embed-text", 16, "search_document: "}, {"nomic-embed-text", 8, ""}} {
		var e *StampError
		if _, err := Open(dir, other); !errors.As(err, &e) || e.Have != s || e.Want != other {
			t.Errorf("%v: %v", other, err)
		}
	}
	if x, err = Open(dir, s); err != nil {
		t.Fatal(err)
	}
	x.Close()
}

// torn makes an index of five documents and returns the folder, its files and the answers.
func torn(t *testing.T, saved bool) (files map[string][]byte, s Stamp, queries [][]float32) {
	t.Helper()
	dir := t.TempDir()
	s = Stamp{Model: "m", Dimensions: 128}
	vectors := made(50, 128, 0.8, 0.2, 1)
	x := filled(t, dir, s, vectors)
	if saved {
		if err := x.Save(t.Context()); err != nil {
			t.Fatal(err)
		}
	}
	x.discard()
	files = map[string][]byte{}
	all, _ := os.ReadDir(dir)
	for _, f := range all {
		b, err := os.ReadFile(filepath.Join(dir, f.Name()))
		if err != nil {
			t.Fatal(err)
		}
		files[f.Name()] = b
	}
	return files, s, vectors[:3]
}

// lay writes files into a new folder.
func lay(t *testing.T, files map[string][]byte) string {
	t.Helper()
	dir := t.TempDir()
	for name, b := range files {
		if err := os.WriteFile(filepath.Join(dir, name), b, 0o600); err != nil {
			t.Fatal(err)
		}
	}
	return dir
}

// healed opens what is in dir and says which documents are there, each with all of its ten points; then a document is put,
// and is there after opening again.
func healed(t *testing.T, dir string, s Stamp) (names []string, said string) {
	t.Helper()
	x, err := Open(dir, s)
	if err != nil {
		t.Fatal(err)
	}
	said = x.Healed
	docs, _ := x.Documents(t.Context())
	hits, err := x.Query(t.Context(), Query{Vector: made(1, 128, 0.8, 0.2, 5)[0], Limit: 1000})
	if err != nil || len(hits) != 10*len(docs) {
		t.Fatalf("%d points of %d documents: %v", len(hits), len(docs), err)
	}
	for _, d := range docs {
		names = append(names, d.Name)
	}
	if damaged, err := x.Check(t.Context()); len(damaged) > 0 || err != nil {
		t.Fatal(damaged, err)
	}
	if err := x.Replace(t.Context(), Entry{Document{Name: "zz"}, []Point{{ID: 1000, Vector: made(1, 128, 0.8, 0.2, 5)[0]}}}); err != nil {
		t.Fatal(err)
	}
	want := answers(t, x, made(3, 128, 0.8, 0.2, 5))
	x.discard()
	if x, err = Open(dir, s); err != nil || x.Healed != "" {
		t.Fatal(err, x.Healed)
	}
	if got := answers(t, x, made(3, 128, 0.8, 0.2, 5)); got != want {
		t.Fatalf("got\n%s\nwant\n%s", got, want)
	}
	x.discard()
	return names, said
}

func TestATornJournalEndsAtItsLastWholeDocument(t *testing.T) {
	for _, saved := range []bool{false, true} {
		files, s, _ := torn(t, saved)
		whole := files["journal"]
		_, records, err := cutHeader(whole)
		if err != nil {
			t.Fatal(err)
		}
		for n := len(whole) - len(records); n <= len(whole); n += 7 {
			files["journal"] = whole[:n]
			names, said := healed(t, lay(t, files), s)
			ends, rest := 0, records[:n-len(whole)+len(records)]
			for len(rest) > 0 {
				if _, rest, err = cutRecord(rest); err != nil {
					break
				}
				ends++
			}
			if len(names) != ends || (said == "") != (len(rest) == 0) {
				t.Fatalf("cut at %d: %d documents of %d, %q", n, len(names), ends, said)
			}
		}
	}
}

func TestTornFloatsAreFoundByTheirChecksum(t *testing.T) {
	files, s, _ := torn(t, false)
	var name string
	for n := range files {
		if strings.HasPrefix(n, "vectors-") {
			name = n
		}
	}
	whole := files[name]
	for _, at := range []int{0, 128*4*10 - 1, 128 * 4 * 25, len(whole) - 1} {
		files[name] = bytes.Clone(whole)
		files[name][at] ^= 0x40
		names, said := healed(t, lay(t, files), s)
		if want := at / (128 * 4 * 10); len(names) != want || said == "" {
			t.Errorf("byte %d: %d documents, want %d: %q", at, len(names), want, said)
		}
	}
	files[name] = whole[:128*4*35]
	if names, said := healed(t, lay(t, files), s); len(names) != 3 || said == "" {
		t.Error(names, said)
	}
}

func TestDamagedBitsAreMadeAgain(t *testing.T) {
	files, s, queries := torn(t, true)
	x, err := Open(lay(t, files), s)
	if err != nil {
		t.Fatal(err)
	}
	want := answers(t, x, queries)
	x.discard()
	var name string
	for n := range files {
		if strings.HasPrefix(n, "bits-") {
			name = n
		}
	}
	whole := files[name]
	for at := 0; at < len(whole); at += len(whole) / 50 {
		for _, b := range [][]byte{whole[:at], append(bytes.Clone(whole[:at]), append([]byte{whole[at] + 1}, whole[at+1:]...)...)} {
			files[name] = b
			x, err := Open(lay(t, files), s)
			if err != nil || x.Healed == "" {
				t.Fatal(at, err)
			}
			if got := answers(t, x, queries); got != want {
				t.Fatal(at, "other answers")
			}
			x.discard()
		}
	}
}

func TestDamagedFloatsAreNamedByCheckAndDroppedByCompact(t *testing.T) {
	dir := t.TempDir()
	x := filled(t, dir, Stamp{Model: "m", Dimensions: 128}, made(50, 128, 0.8, 0.2, 1))
	if _, err := x.vectors.WriteAt([]byte("rotten"), 128*4*12); err != nil {
		t.Fatal(err)
	}
	name := "folder 3/a note with a usual name 10.md"
	if damaged, err := x.Check(t.Context()); !slices.Equal(damaged, []string{name}) || err != nil {
		t.Fatal(damaged, err)
	}
	before, err := x.Documents(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	err = x.Compact(t.Context())
	if d := (*DamagedError)(nil); !errors.As(err, &d) || !slices.Equal(d.Names, []string{name}) || !strings.Contains(err.Error(), name) {
		t.Fatal(err)
	}
	after, err := x.Documents(t.Context())
	if err != nil || len(after) != len(before)-1 || slices.ContainsFunc(after, func(d Document) bool { return d.Name == name }) {
		t.Fatal(len(before), len(after), err)
	}
	if damaged, err := x.Check(t.Context()); len(damaged) > 0 || err != nil {
		t.Fatal(damaged, err)
	}
	if err := x.Compact(t.Context()); err != nil {
		t.Fatal(err)
	}
	files, _ := filepath.Glob(filepath.Join(dir, "vectors-*"))
	if len(files) != 1 {
		t.Error(files)
	}
}

// TestWhatCannotBeWrittenIsNotThere closes the journal under the index: like a full disk, the write fails.
func TestWhatCannotBeWrittenIsNotThere(t *testing.T) {
	x := filled(t, t.TempDir(), Stamp{Model: "m", Dimensions: 128}, made(20, 128, 0.8, 0.2, 1))
	q := made(2, 128, 0.8, 0.2, 5)
	want := answers(t, x, q)
	x.journal.Close()
	if err := x.Replace(t.Context(), Entry{Document{Name: "new"}, []Point{{ID: 99, Vector: q[0]}}}); err == nil {
		t.Fatal("no error")
	}
	if got := answers(t, x, q); got != want {
		t.Errorf("got\n%s\nwant\n%s", got, want)
	}
}

// FuzzJournal reads strangers' bytes as a journal: no panic, and what is read is written the same way.
func FuzzJournal(f *testing.F) {
	b := appendHeader(nil, header{Stamp{"m", 8, "p: "}, "0123456789abcdef"})
	f.Add(b)
	b = appendRecord(b, record{doc: Document{Name: "a", Version: "v", Tags: []string{"x", "y"}, Points: 2}, ids: []uint64{5, 1 << 63}, sum: 7})
	b = appendRecord(b, record{deleted: true, doc: Document{Name: "a"}})
	f.Add(b)
	f.Fuzz(func(t *testing.T, b []byte) {
		h, rest, err := cutHeader(b)
		if err != nil {
			// Checksums keep a fuzzer out: it gets in without them.
			d := appendFrame(nil, b)
			r, _, err := cutRecord(d)
			if err == nil {
				if again, _, err := cutRecord(appendRecord(nil, r)); err != nil || fmt.Sprint(again) != fmt.Sprint(r) {
					t.Fatal(r, again, err)
				}
			}
			return
		}
		if err := h.Validate(); err != nil {
			t.Fatal(err)
		}
		for len(rest) > 0 {
			if _, rest, err = cutRecord(rest); err != nil {
				break
			}
		}
	})
}

// FuzzBits reads strangers' bytes as a bits file.
func FuzzBits(f *testing.F) {
	path := filepath.Join(f.TempDir(), "bits")
	b := newBlock(1)
	s := snapshot{make([]float32, 8), 3, 2, []*block{b}}
	if err := writeSnapshot(path, "0123456789abcdef", s); err != nil {
		f.Fatal(err)
	}
	text, err := os.ReadFile(path)
	if err != nil {
		f.Fatal(err)
	}
	f.Add(text)
	f.Fuzz(func(t *testing.T, b []byte) {
		s, err := readSnapshot(bytes.NewReader(b), "0123456789abcdef", 8)
		if err == nil && (len(s.centre) != 8 || len(s.blocks) != (s.rows+blockRows-1)/blockRows) {
			t.Fatal(s)
		}
	})
}
