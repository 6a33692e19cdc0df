// Package tinymodel writes small models that a real Ollama loads and runs, so that tests can talk to the
// real server without a download, a GPU or patience. Their answers are fixed: the same words every time, at any
// temperature and with any seed.
package tinymodel

import (
	"embed"
	"fmt"
	"os"
	"path/filepath"
	"strconv"
	"strings"
)

// The models' names in Ollama.
const (
	Chat  = "tiny-chat"  // says Hello; calls a tool where tools are offered; says JSON where a format is asked for
	Slow  = "tiny-slow"  // counts to CountTo, slowly enough to be interrupted
	Embed = "tiny-embed" // makes vectors: texts that share words are near each other
)

// Names are all models, in the order in which they are best created.
var Names = []string{Chat, Slow, Embed}

// What the chat models say. A part of a list is one token.
const (
	Hello     = "Hello from a tiny model that says the same words every time."
	AfterTool = "The tool has answered, and that is all there is to say."
	JSON      = `{"answer": 42, "unit": "none"}`

	ToolName      = "get_weather"
	ToolArguments = `{"city": "Paris"}`

	CountTo = 500
)

var (
	helloTokens = []string{"Hello", " from", " a", " tiny", " model", " that", " says", " the", " same", " words", " every", " time."}
	afterTokens = []string{"The", " tool", " has", " answered,", " and", " that is", " all", " there", " is", " to", " say."}
	jsonTokens  = []string{`{"answer":`, ` 42,`, ` "unit":`, ` "none"`, `}`}
	callTokens  = []string{`{"name": "` + ToolName + `", "parameters":`, ` {"city":`, ` "Paris"}`, `} `}
)

// Count is what Slow says: "1 2 3 ...", one token a number.
func Count() string { return strings.Join(countTokens(), "") }

func countTokens() []string {
	tokens := make([]string, CountTo)
	for i := range tokens {
		tokens[i] = " " + strconv.Itoa(i+1)
	}
	tokens[0] = "1"
	return tokens
}

//go:embed *.Modelfile
var modelfiles embed.FS

// Write puts the models into dir: NAME.gguf and NAME.Modelfile for each of Names, ready for
// `ollama create NAME -f NAME.Modelfile`. The files are the same on every machine.
func Write(dir string) error {
	files := map[string][]byte{
		Chat + ".gguf":  llama(Chat, chatInner).bytes(),
		Slow + ".gguf":  llama(Slow, slowInner).bytes(),
		Embed + ".gguf": bert(Embed).bytes(),
	}
	for _, name := range Names {
		text, err := modelfiles.ReadFile(name + ".Modelfile")
		if err != nil {
			return fmt.Errorf("write tiny models: %w", err)
		}
		files[name+".Modelfile"] = text
	}
	for name, data := range files {
		if err := os.WriteFile(filepath.Join(dir, name), data, 0o644); err != nil {
			return fmt.Errorf("write tiny models: %w", err)
		}
	}
	return nil
}
