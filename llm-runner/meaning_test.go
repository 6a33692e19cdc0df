package main

import (
	"fmt"
	"os"
	"path/filepath"
	"testing"

	"home.arpa/lab/llm-runner/internal/fake/script"
	"home.arpa/lab/llm-runner/internal/library"
)

// When only library.dimensions changes, the vectors of the old length answer until those of the new one are there, whichever of the two is
// the model's own.
func TestVectorsOfTheOldLengthAnswerUntilTheNewAreThere(t *testing.T) {
	for _, model := range []string{"unheard-of", "nomic-embed-text"} { // of the one nobody knows the dimension
		t.Run(model, func(t *testing.T) {
			home := listen(t, "ollama", script.Script{Models: []string{model}})
			notes, data := notesIn(t, map[string]string{"a.md": "# A\n\nThe heat pump.\n", "b.md": "# B\n\nThe boat.\n"}), t.TempDir()
			for i, dimensions := range []int{0, 32, 16, 0} {
				file := filepath.Join(t.TempDir(), "runner.yaml")
				text := fmt.Appendf(nil, "vault: {path: %q}\nproviders: {home: {kind: ollama, url: %s}}\nlibrary: {embed: home/%s, dimensions: %d}\n", notes, home.url, model, dimensions)
				if err := os.WriteFile(file, text, 0o600); err != nil {
					t.Fatal(err)
				}
				c, err := Load(Options{Config: file, Data: data})
				if err != nil {
					t.Fatal(err)
				}
				a, err := assemble(t.Context(), c, quiet(), nil)
				if err != nil {
					t.Fatal(err)
				}
				a.survey(t.Context())
				if i > 0 {
					hits, err := a.library.Find(t.Context(), library.Request{Query: "boat", Limit: 2, Lane: library.Vector})
					if err != nil || len(hits) != 2 {
						t.Errorf("with %d dimensions: %d hits, %v", dimensions, len(hits), err)
					}
				}
				if _, err := a.library.Sync(t.Context()); err != nil {
					t.Error(err)
				}
				if err := a.library.Embed(t.Context()); err != nil {
					t.Error(err)
				}
				serving, err := a.vectors.Serving(t.Context(), library.Notes)
				if n := serving.Stamp().Dimensions; err != nil || dimensions > 0 && n != dimensions {
					t.Errorf("with %d dimensions: those that serve have %d, %v", dimensions, n, err)
				}
				a.close()
			}
		})
	}
}
