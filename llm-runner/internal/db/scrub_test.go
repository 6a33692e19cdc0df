package db_test

import (
	"bytes"
	"database/sql"
	"fmt"
	"os"
	"path/filepath"
	"testing"

	"home.arpa/lab/llm-runner/internal/db"
)

func TestScrubLeavesNoByteOfWhatWasDeleted(t *testing.T) {
	path := filepath.Join(t.TempDir(), db.Name)
	d, err := db.Open(t.Context(), path)
	if err != nil {
		t.Fatal(err)
	}
	defer d.Close()
	do := func(query string, args ...any) {
		t.Helper()
		if err := d.Tx(t.Context(), func(tx *sql.Tx) error {
			_, err := tx.ExecContext(t.Context(), query, args...)
			return err
		}); err != nil {
			t.Fatal(err)
		}
	}
	for i := range 200 {
		do(`INSERT INTO library_documents (collection, path, rev, added_at, text) VALUES ('memory', ?, 1, 0, ?)`, fmt.Sprint(i), fmt.Sprintf("kanarie number %d sings", i))
	}
	do(`UPDATE library_documents SET text = 'nothing' WHERE CAST(path AS INTEGER) % 2 = 0`)
	do(`DELETE FROM library_documents WHERE text LIKE 'kanarie%'`)
	holds := func() (n int) {
		files, err := filepath.Glob(path + "*")
		if err != nil {
			t.Fatal(err)
		}
		for _, f := range files {
			b, err := os.ReadFile(f)
			if err != nil {
				t.Fatal(err)
			}
			n += bytes.Count(b, []byte("kanarie"))
		}
		return n
	}
	if holds() == 0 {
		t.Fatal("nothing of it was left before, so this test proves nothing")
	}
	rows, err := d.Read().Query(`SELECT path FROM library_documents`) // a reader that is done in time
	if err != nil {
		t.Fatal(err)
	}
	rows.Next()
	rows.Close()
	if err := d.Scrub(t.Context(), "library_documents"); err != nil {
		t.Fatal(err)
	}
	if n := holds(); n > 0 {
		t.Errorf("%d are left", n)
	}
	do(`INSERT INTO library_documents (collection, path, rev, added_at, text) VALUES ('memory', 'x', 1, 0, 'x')`)
	if err := d.Check(t.Context()); err != nil {
		t.Error(err)
	}
}
