package tinymodel

import (
	"bytes"
	"os"
	"path/filepath"
	"strings"
	"testing"
)

// Ollama finds the files by the names in the Modelfiles, and the same model is the same file everywhere, so that its digest
// may be relied on.
func TestWriteIsCompleteAndRepeatable(t *testing.T) {
	one, two := t.TempDir(), t.TempDir()
	for _, dir := range []string{one, two} {
		if err := Write(dir); err != nil {
			t.Fatal(err)
		}
	}
	read := func(dir, file string) []byte {
		b, err := os.ReadFile(filepath.Join(dir, file))
		if err != nil {
			t.Fatal(err)
		}
		return b
	}
	for _, name := range Names {
		if !strings.Contains(string(read(one, name+".Modelfile")), "FROM ./"+name+".gguf\n") {
			t.Errorf("%s.Modelfile does not name %s.gguf", name, name)
		}
		gguf := read(one, name+".gguf")
		if !bytes.HasPrefix(gguf, []byte("GGUF\x03\x00\x00\x00")) || len(gguf)%alignment != 0 {
			t.Errorf("%s.gguf has no header or an odd size", name)
		}
		if !bytes.Equal(gguf, read(two, name+".gguf")) {
			t.Errorf("%s.gguf differs from one time to the next", name)
		}
	}
}

// The answers are told twice, as texts and as tokens.
func TestTokensSpellTheAnswers(t *testing.T) {
	for want, tokens := range map[string][]string{
		Hello: helloTokens, AfterTool: afterTokens, JSON: jsonTokens, Count(): countTokens(),
		`{"name": "` + ToolName + `", "parameters": ` + ToolArguments + `} `: callTokens,
	} {
		if got := strings.Join(tokens, ""); got != want {
			t.Errorf("%q, want %q", got, want)
		}
	}
}
