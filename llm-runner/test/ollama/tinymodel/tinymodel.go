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
	// Research answers what the retrieval graph asks, about the Kestrel heat pump: its templates read how the system's words begin. It does not know
	// which source says what, so it cites each of the first four for each statement, and is wrong most of the time.
	Research = "tiny-research"
)

// Names are all models, in the order in which they are best created.
var Names = []string{Chat, Slow, Embed, Research}

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

// researchTokens is what Research says after each of its markers.
var researchTokens = map[string]string{
	markPlan:    `{"questions":["How loud is the Kestrel heat pump?","Where does it stand?"],"sections":[]}`,
	markGrade:   `{"useful":[1,2,3,4]}`,
	markNotes:   `{"quotes":["52 decibels at a distance of one metre","under the bedroom window"]}`,
	markDraft:   cited("The outdoor unit reaches 52 decibels", "52 decibels at a distance of one metre") + cited("It stands under the bedroom window", "under the bedroom window"),
	markSupport: `{"supported":true}`,
}

// cited is a statement for each of the first four sources, with the words that it is to rest on.
func cited(statement, words string) (text string) {
	for n := range 4 {
		text += fmt.Sprintf("%s [%d: %q]. ", statement, n+1, words)
	}
	return text
}

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

		Research + ".gguf": llama(Research, chatInner).bytes(),
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
