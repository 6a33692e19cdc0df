//go:build prove

package library

import (
	"errors"
	"io/fs"
	"testing"

	"home.arpa/lab/llm-runner/internal/db"
	"home.arpa/lab/llm-runner/test/postgrestest"
)

func TestProcessesShareDocumentsInPostgres(t *testing.T) {
	url := postgrestest.Start(t).New()
	process := func() *Library {
		shared, err := db.OpenPostgres(t.Context(), url)
		if err != nil {
			t.Fatal(err)
		}
		t.Cleanup(func() { shared.Close() })
		l, err := New(t.Context(), Config{DB: database(t), Documents: shared, Source: at(t, t.TempDir())})
		if err != nil {
			t.Fatal(err)
		}
		return l
	}
	finds := func(l *Library, query string) int {
		t.Helper()
		if _, err := l.Sync(t.Context()); err != nil {
			t.Fatal(err)
		}
		hits, err := l.Search(t.Context(), query, 5)
		if err != nil {
			t.Fatal(err)
		}
		return len(hits)
	}
	a, b := process(), process()
	if _, err := a.Add(t.Context(), Uploads, Upload{Name: "geese.md", Data: []byte("# Geese\n\nThe owner is afraid of geese.\n")}); err != nil {
		t.Fatal(err)
	}
	if n := finds(b, "afraid of geese"); n != 1 {
		t.Errorf("another process finds %d", n)
	}
	if err := b.Put(t.Context(), Uploads, Document{Path: "geese.md", Text: []byte("The owner is fond of swans.\n")}); err != nil {
		t.Fatal(err)
	}
	if finds(a, "swans") != 1 || finds(a, "geese afraid") > 1 {
		t.Error("a change is not seen by the other process")
	}
	if all, err := a.Documents(t.Context(), ""); err != nil || len(all) != 1 || all[0].Bytes != 28 {
		t.Errorf("%+v, %v", all, err)
	}
	if err := a.Forget(t.Context(), Uploads, "geese.md"); err != nil {
		t.Fatal(err)
	}
	if n := finds(b, "swans"); n != 0 {
		t.Errorf("a forgotten document is found %d times", n)
	}
	if _, err := b.Document(t.Context(), Uploads, "geese.md"); !errors.Is(err, fs.ErrNotExist) {
		t.Error(err)
	}
}
