package db_test

import (
	"database/sql"
	"encoding/json"
	"path/filepath"
	"strings"
	"testing"

	"home.arpa/lab/llm-runner/internal/db"
)

func TestBlankFindsWordsInJSONWithinJSON(t *testing.T) {
	d, err := db.Open(t.Context(), filepath.Join(t.TempDir(), db.Name))
	if err != nil {
		t.Fatal(err)
	}
	defer d.Close()
	const fact = `The user's <café> is 100% "äöü"_\`
	inner, err := json.Marshal(map[string]string{"fact": fact})
	if err != nil {
		t.Fatal(err)
	}
	outer, err := json.Marshal(map[string]string{"arguments": string(inner)})
	if err != nil {
		t.Fatal(err)
	}
	texts := []string{"so: " + fact + ".", string(inner), string(outer), `{"fact":"The user\u0027s <caf\u00e9> is 100% \"\u00e4\u00f6\u00fc\"_\\"}`, "The user's 100X is another"}
	err = d.Tx(t.Context(), func(tx *sql.Tx) error {
		for i, text := range texts {
			if _, err := tx.Exec(`INSERT INTO library_documents (collection, path, rev, added_at, text) VALUES ('x', ?, 1, 0, ?)`, i, text); err != nil {
				return err
			}
		}
		return d.Blank(t.Context(), tx, "library_documents", []string{"title", "text"}, fact, " ")
	})
	if err != nil {
		t.Fatal(err)
	}
	all, err := db.All(t.Context(), d.Read(), "", db.Column[string], `SELECT text FROM library_documents ORDER BY path`)
	if err != nil {
		t.Fatal(err)
	}
	for i, text := range all {
		if i < 4 && (strings.Contains(text, "caf") || !strings.Contains(text, "(forgotten)")) || i == 4 && text != texts[4] {
			t.Errorf("%s became %s", texts[i], text)
		}
	}
}
