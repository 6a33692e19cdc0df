package scripted_test

import (
	"os"
	"path/filepath"
	"reflect"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"home.arpa/lab/llm-runner/internal/fake/script"
	"home.arpa/lab/llm-runner/internal/llm"
	"home.arpa/lab/llm-runner/internal/provider/scripted"
)

// load writes src to a file and opens it.
func load(t *testing.T, src string) (*scripted.Provider, error) {
	path := filepath.Join(t.TempDir(), "script.yaml")
	if err := os.WriteFile(path, []byte(src), 0o600); err != nil {
		t.Fatal(err)
	}
	c := scripted.Config{Path: path}
	p, err := scripted.New(c)
	if (err == nil) != (c.Validate() == nil) {
		t.Errorf("New says %v, Validate %v", err, c.Validate())
	}
	return p, err
}

func ask(t *testing.T, p llm.Provider, words string) (llm.Answer, error) {
	return llm.Collect(p.Stream(t.Context(), llm.Request{Model: "m", Messages: []llm.Message{llm.Says(llm.User, words)}}))
}

// example returns the script in the comment of the package.
func example(t *testing.T) string {
	src, err := os.ReadFile("scripted.go")
	if err != nil {
		t.Fatal(err)
	}
	_, rest, _ := strings.Cut(string(src), "reads:\n//\n")
	block, _, _ := strings.Cut(rest, "\n//\n// Faults")
	return strings.Replace(strings.ReplaceAll("\n"+block, "\n//\t", "\n"), "storyteller", "m", 1)
}

func TestTheDocumentedExampleWorks(t *testing.T) {
	p, err := load(t, example(t))
	if err != nil {
		t.Fatal(err)
	}
	if a, err := ask(t, p, "hello"); err != nil || a.Message.Text() != "You said: hello" || a.Usage.Output != llm.Known(3) {
		t.Errorf("got %+v, %v", a, err)
	}
	if a, err := ask(t, p, "weather?"); err != nil || a.Finish != llm.FinishTools || a.Message.Parts[1].Call.Arguments != `{"city": "Oslo"}` {
		t.Errorf("got %+v, %v", a, err)
	}
	if a, err := ask(t, p, "break"); llm.KindOf(err) != llm.Unavailable || a.Message.Text() == "" {
		t.Errorf("got %+v, %v", a, err)
	}
}

func TestDelaysAndWaitsAreKept(t *testing.T) {
	src := example(t)
	synctest.Test(t, func(t *testing.T) {
		s, err := script.Parse([]byte(src))
		if err != nil {
			t.Fatal(err)
		}
		p, err := scripted.From(scripted.Config{}, s)
		if err != nil {
			t.Fatal(err)
		}
		begin := time.Now()
		if _, err := ask(t, p, "slow"); err != nil {
			t.Fatal(err)
		}
		if d := time.Since(begin); d != 2*time.Second+4*50*time.Millisecond { // to the first of four words, and from it to the finish, 20 a second
			t.Errorf("took %s", d)
		}
		_, err = ask(t, p, "busy")
		e, ok := err.(*llm.Error)
		if !ok || e.Kind != llm.Quota || !e.Until.Equal(time.Now().Add(90*time.Second)) || e.Message != "the script is out of words" {
			t.Errorf("got %+v", err)
		}
	})
}

func TestABadFileIsExplained(t *testing.T) {
	for src, want := range map[string]string{
		"reply:\n- text: a\n  txet: b": "line 3: field txet is unknown in a reply",
		"key: k":                       "key: the scripted provider has no keys",
		"limits: [{dimension: tokens/day, max: 1}]":   "limits: the scripted provider does not count",
		"faults: [{kind: gzip}]":                      "fault gzip: is about bytes on a wire",
		"reply: [{text: a, fault: {kind: no_done}}]":  "fault no_done: is about bytes",
		"reply: [{text: a, fault: {kind: whatever}}]": "reply[0].fault.kind",
	} {
		if _, err := load(t, src); err == nil || !strings.Contains(err.Error(), want) {
			t.Errorf("%q\ngot  %v\nwant %s", src, err, want)
		}
	}
	if _, err := scripted.New(scripted.Config{Path: "/nowhere/script.yaml"}); err == nil || !strings.Contains(err.Error(), "shows how to write one") {
		t.Errorf("a missing file: %v", err)
	}
}

func TestEmbeddingsAndModels(t *testing.T) {
	p, err := load(t, "models: [a, b]\ndimensions: 16\nfaults: [{kind: '503', on: [3]}]")
	if err != nil {
		t.Fatal(err)
	}
	one, err := p.Embed(t.Context(), llm.EmbedRequest{Model: "a", Texts: []string{"x y", "z"}})
	two, err2 := p.Embed(t.Context(), llm.EmbedRequest{Model: "b", Texts: []string{"x y"}})
	if err != nil || err2 != nil || len(one.Vectors) != 2 || len(one.Vectors[0]) != 16 || !reflect.DeepEqual(one.Vectors[0], two.Vectors[0]) || one.Usage.Input != llm.Known(3) {
		t.Errorf("got %+v, %v, %v", one, err, err2)
	}
	if _, err := p.Embed(t.Context(), llm.EmbedRequest{Model: "a", Texts: []string{"x"}}); llm.KindOf(err) != llm.Overload {
		t.Errorf("the third request: %v", err)
	}
	if _, err := p.Embed(t.Context(), llm.EmbedRequest{Model: "c"}); llm.KindOf(err) != llm.NotFound {
		t.Errorf("an unknown model: %v", err)
	}
	if models, err := p.Models(t.Context()); err != nil || len(models) != 2 || models[1].Name != "b" {
		t.Errorf("got %+v, %v", models, err)
	}
}
