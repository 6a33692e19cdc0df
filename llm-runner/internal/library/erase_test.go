package library

import (
	"bytes"
	"encoding/binary"
	"fmt"
	"io/fs"
	"math"
	"os"
	"path/filepath"
	"testing"

	"home.arpa/lab/llm-runner/internal/llm"
	"home.arpa/lab/llm-runner/internal/vector"
)

// bytesIn counts how often bytes stand in the files of a folder.
func bytesIn(t *testing.T, dir string, what []byte) (n int) {
	t.Helper()
	err := filepath.WalkDir(dir, func(path string, d fs.DirEntry, err error) error {
		if err != nil || d.IsDir() {
			return err
		}
		b, err := os.ReadFile(path)
		n += bytes.Count(b, what)
		return err
	})
	if err != nil {
		t.Fatal(err)
	}
	return n
}

// vectorsIn counts where a vector stands in the files of a folder, as floats of four bytes, of length 1 and rounded a little.
func vectorsIn(t *testing.T, dir string, v []float32) (n int) {
	t.Helper()
	v = vector.Unit(v)
	err := filepath.WalkDir(dir, func(path string, d fs.DirEntry, err error) error {
		if err != nil || d.IsDir() {
			return err
		}
		b, err := os.ReadFile(path)
		for at := range max(len(b)-4*len(v)+1, 0) {
			same := 0
			for i := range v {
				if x := math.Float32frombits(binary.LittleEndian.Uint32(b[at+4*i:])); math.Abs(float64(x-v[i])) < 0.002 {
					same++
				}
			}
			if same == len(v) {
				n++
			}
		}
		return err
	})
	if err != nil {
		t.Fatal(err)
	}
	return n
}

func TestErasedDocumentsLeaveNoByte(t *testing.T) {
	l := open(t, at(t, folder(t, map[string]string{"a.md": "# Bread\n\nThe bakery opens at six.\n"})))
	files, vectors := filepath.Dir(l.db.Path()), t.TempDir()
	c := &concepts{}
	minded(t, l, c, "m", vectors)
	for i := range 6 { // several segments, some of them merged
		d := Document{Path: fmt.Sprint(i), Text: fmt.Appendf(nil, "The user kept a kanarienvogel%d and a cat.", i)}
		if i == 3 {
			d = Document{Path: PrivateFacts + "3", Text: []byte("The user kept a kanarienvogel3, a car, a guitar and a garden.")}
		}
		if err := l.Put(t.Context(), Memory, d); err != nil {
			t.Fatal(err)
		}
	}
	embedNow(t, l)
	gone := []string{PrivateFacts + "3", "4", "no such fact"}
	rows := func() (live, dead int) {
		t.Helper()
		x, err := l.mind.Store.Serving(t.Context(), Memory)
		if err != nil {
			t.Fatal(err)
		}
		return x.(*vector.Index).Rows()
	}
	if bytesIn(t, files, []byte("kanarienvogel3")) == 0 || bytesIn(t, files, []byte("kanarienvogel4")) == 0 || bytesIn(t, vectors, []byte("private/3")) == 0 {
		t.Fatal("nothing was there before, so this test proves nothing")
	}
	one, err := c.Embed(t.Context(), llm.EmbedRequest{Model: "m", Texts: []string{"a car, a guitar and a garden"}})
	if err != nil {
		t.Fatal(err)
	}
	if n := vectorsIn(t, vectors, one.Vectors[0]) + vectorsIn(t, files, one.Vectors[0]); n != 1 {
		t.Fatalf("the vector of the private fact stands %d times in the files, so this test proves nothing", n)
	}
	var cached int
	if err := l.db.Read().QueryRow(`SELECT count(*) FROM embeddings`).Scan(&cached); err != nil || cached != 2 { // of the note, and of a word that tells the dimension
		t.Errorf("the cache has %d vectors, %v", cached, err)
	}
	if !l.NeverSent(Memory, gone[0]) || l.NeverSent(Memory, "4") || l.NeverSent(Uploads, gone[0]) {
		t.Error("what is never sent is something else")
	}
	if err := l.Erase(t.Context(), Memory, gone...); err != nil {
		t.Fatal(err)
	}
	if err := l.db.Scrub(t.Context()); err != nil {
		t.Fatal(err)
	}
	for _, word := range []string{"kanarienvogel3", "kanarienvogel4", "private/3"} {
		if n := bytesIn(t, files, []byte(word)) + bytesIn(t, vectors, []byte(word)); n > 0 {
			t.Errorf("%q is left %d times", word, n)
		}
	}
	if n := vectorsIn(t, vectors, one.Vectors[0]) + vectorsIn(t, files, one.Vectors[0]); n > 0 {
		t.Errorf("the vector of what is forgotten is left %d times", n)
	}
	if live, dead := rows(); live != 4 || dead != 0 { // the files have a vector for each row, and no other bytes of them
		t.Errorf("%d vectors, and %d that are left", live, dead)
	}
	for query, want := range map[string]int{"kanarienvogel3": 0, "kanarienvogel5": 1, "bakery": 1} {
		if hits, err := l.Find(t.Context(), Request{Query: query, Limit: 5, Lane: Words}); err != nil || len(hits) != want {
			t.Errorf("%s finds %d, %v", query, len(hits), err)
		}
	}
	embedNow(t, l)
	if hits, err := l.Find(t.Context(), Request{Query: "kitten", Limit: 9, Lane: Vector, Filter: Filter{Collection: Memory}}); err != nil || len(hits) != 4 {
		t.Errorf("%d by meaning, %v", len(hits), err)
	}
}
