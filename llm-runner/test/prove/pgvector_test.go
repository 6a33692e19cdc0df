//go:build prove

package prove

import (
	"fmt"
	"net/url"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"home.arpa/lab/llm-runner/internal/db"
	"home.arpa/lab/llm-runner/internal/library"
	"home.arpa/lab/llm-runner/test/postgrestest"
)

// inPostgres is a runner whose vectors are kept in the PostgreSQL database at url.
func inPostgres(t *testing.T, url, vault string, e *embedder) *runner {
	return newRunner(t, fmt.Sprintf("database: %q\nvault: {path: %q, jobs: false}\nproviders:\n  small: {kind: openai, url: %q, health: /models}\n"+
		"library: {embed: small/nomic-embed-text, store: pgvector}\n", strings.Replace(url, ":secret@", "@", 1), vault, e.url))
}

// meaning waits until the lane of meaning is as it should be.
func (r *runner) meaning(is func(s library.MeaningStatus) bool) {
	r.t.Helper()
	err := poll(30*time.Second, 20*time.Millisecond, func() error {
		var s library.Status
		if err := r.get("/api/library", &s); err != nil {
			return err
		}
		if !is(s.Meaning) {
			return fmt.Errorf("%+v", s.Meaning)
		}
		return nil
	})
	if err != nil {
		r.t.Fatal(err)
	}
}

// TestVectorsMayBeKeptInPostgres has two data directories keep vectors in one database.
func TestVectorsMayBeKeptInPostgres(t *testing.T) {
	const notes = 20
	e, vault, at := newEmbedder(t), bigVault(t, notes), postgrestest.StartWithVector(t).New()
	d, err := db.OpenPostgres(t.Context(), at)
	if err != nil {
		t.Fatal(err)
	}
	defer d.Close()
	all := func(n int) func(library.MeaningStatus) bool {
		return func(s library.MeaningStatus) bool { return s.State == library.MeaningReady && s.Of == n }
	}
	counted := func(query string, want int) {
		t.Helper()
		err := poll(10*time.Second, 20*time.Millisecond, func() error {
			var have int
			if err := d.Read().QueryRowContext(t.Context(), query).Scan(&have); err != nil || have != want {
				return fmt.Errorf("%s is %d, not %d, %v", query, have, want, err)
			}
			return nil
		})
		if err != nil {
			t.Error(err)
		}
	}
	first := inPostgres(t, at, vault, e)
	first.start()
	first.meaning(all(notes))
	first.searches(5) // each looks whether the lane of vectors found something
	counted(`SELECT count(*) FROM pgvector_documents`, notes)
	if _, err := os.Stat(filepath.Join(first.dir, "vectors")); err == nil {
		t.Error("there are vectors in the data directory too")
	}

	made := e.texts.Load()
	second := inPostgres(t, at, vault, e)
	second.start()
	second.meaning(all(notes))
	second.searches(5)
	counted(`SELECT count(DISTINCT place) FROM pgvector_collections WHERE serving`, 2)
	counted(`SELECT count(*) FROM pgvector_documents`, 2*notes)
	if n := e.texts.Load() - made; n > 10 { // the questions
		t.Errorf("the second machine had %d texts embedded", n)
	}

	if err := os.Remove(filepath.Join(vault, "f07", "note-7.md")); err != nil {
		t.Fatal(err)
	}
	first.meaning(all(notes - 1))
	second.meaning(all(notes - 1))
	counted(`SELECT count(*) FROM pgvector_documents`, 2*(notes-1))

	first.kill()
	made = e.texts.Load()
	first.start()
	first.meaning(all(notes - 1))
	first.searches(5)
	if n := e.texts.Load() - made; n > 5 {
		t.Errorf("a new start had %d texts embedded", n)
	}
}

// Where the server lacks the extension, words answer, and the status says what to do.
func TestAPostgresWithoutVectorsSaysWhatIsMissing(t *testing.T) {
	if postgrestest.HasVector(t) {
		t.Skip("this server has the extension")
	}
	r := inPostgres(t, postgrestest.Start(t).New(), bigVault(t, 3), newEmbedder(t))
	r.start()
	r.meaning(func(s library.MeaningStatus) bool {
		return s.State == library.MeaningWaiting && strings.Contains(s.Says, "CREATE EXTENSION vector")
	})
	var found library.Shown
	if err := r.get("/api/library/search?"+url.Values{"q": {"note about"}}.Encode(), &found); err != nil || found.Lanes[0].Found == 0 {
		t.Errorf("%+v, %v", found.Lanes, err)
	}
}
