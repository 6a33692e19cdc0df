package vector

import (
	"errors"
	"os"
	"path/filepath"
	"strings"
	"testing"
)

// A process that dies right after the switch leaves the old collection's folder; the next one removes it.
func TestASwitchThatWasCutShortIsTidiedUp(t *testing.T) {
	dir, s := t.TempDir(), Stamp{Model: "old", Dimensions: 4}
	l := NewLocal(dir)
	if _, err := l.Build(t.Context(), "vault", s); err != nil {
		t.Fatal(err)
	}
	if err := errors.Join(l.Switch(t.Context(), "vault", s), l.Close()); err != nil {
		t.Fatal(err)
	}
	old, kept := filepath.Join(dir, "vault", s.Hash()), filepath.Join(t.TempDir(), "copy")
	if err := os.CopyFS(kept, os.DirFS(old)); err != nil {
		t.Fatal(err)
	}
	l = NewLocal(dir)
	next := Stamp{Model: "new", Dimensions: 4}
	if _, err := l.Build(t.Context(), "vault", next); err != nil {
		t.Fatal(err)
	}
	if err := errors.Join(l.Switch(t.Context(), "vault", next), l.Close()); err != nil {
		t.Fatal(err)
	}
	if err := os.CopyFS(old, os.DirFS(kept)); err != nil { // as if it had not been removed
		t.Fatal(err)
	}
	l = NewLocal(dir)
	defer l.Close()
	c, err := l.Serving(t.Context(), "vault")
	if err != nil || c.Stamp() != next {
		t.Fatal(c, err)
	}
	if _, err := os.Stat(old); !errors.Is(err, os.ErrNotExist) {
		t.Error("the old folder is still there:", err)
	}
	// That was once: the old model is wanted again, and what is built of it stays, in the next process too.
	again, err := l.Build(t.Context(), "vault", s)
	if err != nil {
		t.Fatal(err)
	}
	err = again.Replace(t.Context(), Entry{Document{Name: "a.md"}, []Point{{ID: 1, Vector: []float32{1, 0, 0, 0}}}})
	if err := errors.Join(err, l.Close()); err != nil {
		t.Fatal(err)
	}
	l = NewLocal(dir)
	defer l.Close()
	if again, err = l.Build(t.Context(), "vault", s); err != nil {
		t.Fatal(err)
	}
	if docs, err := again.Documents(t.Context()); err != nil || len(docs) != 1 {
		t.Error(docs, err)
	}
}

func TestAStoreThatCannotTellWhatServesSaysWhatToDo(t *testing.T) {
	dir := t.TempDir()
	if err := errors.Join(os.Mkdir(filepath.Join(dir, "vault"), 0o700), os.WriteFile(filepath.Join(dir, "vault", "serving"), []byte("{"), 0o600)); err != nil {
		t.Fatal(err)
	}
	if _, err := NewLocal(dir).Serving(t.Context(), "vault"); err == nil || !strings.Contains(err.Error(), "index again") {
		t.Error(err)
	}
}

func TestAClosedStoreAndItsCollectionsSaySo(t *testing.T) {
	l, s := NewLocal(t.TempDir()), Stamp{Model: "m", Dimensions: 4}
	c, err := l.Build(t.Context(), "vault", s)
	if err != nil {
		t.Fatal(err)
	}
	if err := errors.Join(l.Close(), l.Close()); err != nil {
		t.Fatal(err)
	}
	_, err = l.Build(t.Context(), "vault", s)
	_, err2 := c.Query(t.Context(), Query{Vector: []float32{1, 0, 0, 0}, Limit: 1})
	_, err3 := c.Documents(t.Context())
	for _, err := range []error{err, err2, err3, c.Save(t.Context()), c.Delete(t.Context(), "a"), c.Replace(t.Context(), Entry{Document: Document{Name: "a"}})} {
		if !errors.Is(err, ErrClosed) {
			t.Error(err)
		}
	}
}
