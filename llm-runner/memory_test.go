package main

import (
	"bytes"
	"encoding/json"
	"fmt"
	"io/fs"
	"net/http"
	"net/url"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"home.arpa/lab/llm-runner/internal/fake/script"
	"home.arpa/lab/llm-runner/internal/memory"
)

func parsed(t *testing.T, doc string) script.Script {
	t.Helper()
	s, err := script.Parse([]byte(doc))
	if err != nil {
		t.Fatal(err)
	}
	return s
}

// remembering runs a server with these providers and notes, and returns it with its data directory.
func rememberer(t *testing.T, config string) (site, string) {
	t.Helper()
	file, data := filepath.Join(t.TempDir(), "runner.yaml"), t.TempDir()
	if err := os.WriteFile(file, []byte(config), 0o600); err != nil {
		t.Fatal(err)
	}
	c, err := Load(Options{Config: file, Data: data, Listen: "127.0.0.1:0"})
	if err != nil {
		t.Fatal(err)
	}
	return served(t, c), data
}

func (s site) do(t *testing.T, method, path string, body string) []byte {
	t.Helper()
	kind := "application/json"
	if strings.Contains(body, "=") && !strings.Contains(body, "{") {
		kind = "application/x-www-form-urlencoded"
	}
	b, err := s.ask(t.Context(), method, path, kind, []byte(body))
	if err != nil {
		t.Fatal(err)
	}
	return b
}

// asksIn asks a question on in a conversation (0: a new one), waits for the answer, and returns the conversation's number.
func (s site) asksIn(t *testing.T, chat int64, values url.Values) int64 {
	t.Helper()
	path := "/chats"
	if chat != 0 {
		path = fmt.Sprintf("/chats/%d/messages", chat)
		values.Set("parent", fmt.Sprint(s.answered(t, fmt.Sprintf("/chats/%d", chat))))
	}
	to := string(s.do(t, http.MethodPost, path, values.Encode()))
	to, _, _ = strings.Cut(to, "#")
	s.answered(t, to)
	if _, err := fmt.Sscanf(to, "/chats/%d", &chat); err != nil {
		t.Fatal(to, err)
	}
	return chat
}

// held counts how often bytes stand in the files below a folder.
func held(t *testing.T, dir, what string) (n int, where []string) {
	t.Helper()
	err := filepath.WalkDir(dir, func(path string, d fs.DirEntry, err error) error {
		if err != nil || d.IsDir() {
			return err
		}
		b, err := os.ReadFile(path)
		if found := bytes.Count(b, []byte(what)); found > 0 {
			n += found
			where = append(where, filepath.Base(path))
		}
		return err
	})
	if err != nil {
		t.Fatal(err)
	}
	return n, where
}

const vaultNotes = "# Heating\n\nThe heating of the house is a heat pump.\n"

func notesIn(t *testing.T, notes map[string]string) string {
	t.Helper()
	dir := t.TempDir()
	for name, text := range notes {
		file := filepath.Join(dir, filepath.FromSlash(name))
		if err := os.MkdirAll(filepath.Dir(file), 0o700); err != nil {
			t.Fatal(err)
		}
		if err := os.WriteFile(file, []byte(text), 0o600); err != nil {
			t.Fatal(err)
		}
	}
	return dir
}

// TestForgettingLeavesNoByte has a fact remembered by a tool after a person's word, found by another tool and by meaning, and edited; then it
// is forgotten, and looked for in the bytes of every file.
func TestForgettingLeavesNoByte(t *testing.T) {
	const fact, quote = "The user keeps eleven alpacas", "I keep eleven alpacas"
	home := listen(t, "ollama", script.Script{Models: []string{"m"}})
	teller := filepath.Join(t.TempDir(), "script.yaml")
	if err := os.WriteFile(teller, []byte(`
reply:
  - {after: "It is remembered", text: Noted.}
  - {after: "eleven alpacas", text: Those.}
  - {match: "Please remember", calls: [{name: remember, arguments: '{"fact":"The user keeps eleven alpacas","quote":"I keep eleven alpacas"}'}]}
  - {match: "which animals", calls: [{name: memory_recall, arguments: '{"query":"alpacas"}'}]}
`), 0o600); err != nil {
		t.Fatal(err)
	}
	s, data := rememberer(t, fmt.Sprintf(`
vault: {path: %q, never_send: [private]}
providers: {home: {kind: ollama, url: %s}, teller: {kind: scripted, url: %s}}
routes: {default: {provider: teller, model: m}}
library: {embed: home/m}
`, notesIn(t, map[string]string{"a.md": vaultNotes, "b.md": vaultNotes}), home.url, teller))
	to := string(s.do(t, http.MethodPost, "/chats", url.Values{"text": {"Please remember that I keep eleven alpacas."}, "tools": {"1"}, "key": {"a"}}.Encode()))
	to, _, _ = strings.Cut(to, "#")
	s.until(t, "/api/tools/calls?waiting=1", func(b []byte) bool { return bytes.Contains(b, []byte(`"tool": "remember"`)) })
	s.do(t, http.MethodPost, "/api/tools/calls/1/approve", "{}")
	s.answered(t, to)
	var f memory.Fact
	if err := json.Unmarshal(s.do(t, http.MethodGet, "/api/memory/facts/1", ""), &f); err != nil || f.Text != fact || f.Origin != memory.Told || f.Sources[0].Quote != quote || f.Private {
		t.Fatalf("%+v, %v", f, err)
	}
	s.until(t, "/api/library", func(b []byte) bool {
		return bytes.Contains(b, []byte(`"state": "ready"`)) && bytes.Contains(b, []byte(`"of": 3`))
	})
	s.asksIn(t, 0, url.Values{"text": {"which animals are mine?"}, "tools": {"1"}, "key": {"b"}})
	s.do(t, http.MethodPost, "/api/memory/facts/1", `{"text":"The user keeps twelve llamas"}`)
	if n, _ := held(t, data, fact); n < 3 {
		t.Fatalf("the fact stood only %d times in the files before, so this test proves little", n)
	}
	if b := s.do(t, http.MethodGet, "/api/tools/calls", ""); bytes.Count(b, []byte("eleven alpacas")) < 3 {
		t.Fatalf("the log of tools does not hold it: %s", b)
	}
	s.do(t, http.MethodDelete, "/api/memory/facts/1", "")
	for _, gone := range []string{fact, "The user keeps twelve llamas", "keeps twelve"} {
		if n, where := held(t, data, gone); n > 0 {
			t.Errorf("%q is left %d times, in %v", gone, n, where)
		}
	}
	if n, where := held(t, data, quote); n != 2 { // in the message, and in the conversation's title
		t.Errorf("the quote is left %d times, in %v", n, where)
	}
	if b := s.do(t, http.MethodGet, "/api/tools/calls", ""); bytes.Contains(b, []byte("eleven alpacas")) || !bytes.Contains(b, []byte("(forgotten)")) {
		t.Errorf("the log of tools says %s", b)
	}
	if _, err := s.ask(t.Context(), http.MethodGet, "/api/memory/facts/1", "", nil); err == nil || !strings.Contains(err.Error(), "404") {
		t.Errorf("%v", err)
	}
}

// TestFactsGoWithTheirConversation deletes the conversation that a fact comes from.
func TestFactsGoWithTheirConversation(t *testing.T) {
	home := listen(t, "ollama", parsed(t, `
models: [m, reader]
reply:
  - {model: reader, match: "alpacas", text: '{"facts":[{"fact":"The user keeps eleven alpacas","quote":"I keep eleven alpacas","about":"user","lasting":true,"corrects":false,"confidence":1}]}'}
  - {text: Fine.}
`))
	s, data := rememberer(t, fmt.Sprintf(`
vault: {path: %q}
providers: {home: {kind: ollama, url: %s}}
routes: {default: {provider: home, model: m}, models: {reader: {provider: home}}}
library: {embed: home/m}
memory: {model: reader}
`, notesIn(t, map[string]string{"a.md": vaultNotes, "b.md": vaultNotes}), home.url))
	chat := s.asksIn(t, 0, url.Values{"text": {"I keep eleven alpacas."}, "key": {"a"}})
	if b := s.do(t, http.MethodPost, "/api/memory/learn", `{"run":"test"}`); !bytes.Contains(b, []byte(`"messages": 1`)) {
		t.Fatalf("%s", b)
	}
	if b := s.do(t, http.MethodGet, "/api/memory", ""); !bytes.Contains(b, []byte("The user keeps eleven alpacas")) {
		t.Fatalf("%s", b)
	}
	s.do(t, http.MethodPost, fmt.Sprintf("/chats/%d/delete", chat), "a=b")
	if b := s.do(t, http.MethodGet, "/api/memory", ""); bytes.Contains(b, []byte("alpacas")) {
		t.Fatalf("%s", b)
	}
	for _, gone := range []string{"The user keeps eleven alpacas", "I keep eleven alpacas"} {
		if n, where := held(t, data, gone); n > 0 {
			t.Errorf("%q is left %d times, in %v", gone, n, where)
		}
	}
}

// TestPrivateFactsStayAtHome says something beside private notes: a model at home reads it, remembers it, and is told; no cloud provider
// hears of it, neither of the message nor of the fact.
func TestPrivateFactsStayAtHome(t *testing.T) {
	answers := `
models: [m, reader]
reply:
  - {model: reader, match: kanarienfakt, text: '{"facts":[{"fact":"The user grows kanarienfakt flowers","quote":"I grow kanarienfakt flowers","about":"user","lasting":true,"corrects":false,"confidence":1}]}'}
  - {model: reader, match: tulips, text: '{"facts":[{"fact":"The user grows tulips","quote":"I grow tulips","about":"user","lasting":true,"corrects":false,"confidence":1}]}'}
  - {text: "It is a heat pump."}
`
	home, cloud := listen(t, "ollama", parsed(t, answers)), listen(t, "openai", parsed(t, answers))
	t.Setenv("CANARY_KEY", "sk-canary-0123456789")
	s, _ := rememberer(t, fmt.Sprintf(`
vault: {path: %q, never_send: [private], model: own}
providers:
  home: {kind: ollama, url: %s}
  groq: {kind: openai, url: %s/v1, key: env:CANARY_KEY}
routes:
  default: {provider: groq, model: m}
  models: {own: {provider: home, model: m}, reader: {provider: groq}, own-reader: {provider: home, model: reader}}
library: {embed: groq/m}
memory: {model: reader, private_model: own-reader}
`, notesIn(t, map[string]string{"private/heating.md": vaultNotes, "b.md": "# Other\n\nNothing.\n"}), home.url, cloud.url))
	chat := s.asksIn(t, 0, url.Values{"text": {"what is the heating of the house"}, "model": {"vault"}, "key": {"a"}})
	s.asksIn(t, chat, url.Values{"text": {"I grow kanarienfakt flowers."}, "model": {"own"}, "key": {"b"}})
	s.asksIn(t, 0, url.Values{"text": {"I grow tulips."}, "key": {"c"}})
	if b := s.do(t, http.MethodPost, "/api/memory/learn", `{}`); !bytes.Contains(b, []byte(`"waiting": 0`)) {
		t.Errorf("%s", b)
	}
	var all struct{ Facts []memory.Fact }
	if err := json.Unmarshal(s.do(t, http.MethodGet, "/api/memory", ""), &all); err != nil || len(all.Facts) != 2 {
		t.Fatalf("%+v, %v", all, err)
	}
	for _, f := range all.Facts {
		if f.Private != strings.Contains(f.Text, "kanarienfakt") {
			t.Errorf("%+v", f)
		}
	}
	for i, model := range []string{"", "own"} { // a cloud provider, and a machine at home
		s.asksIn(t, 0, url.Values{"text": {"Which flowers do I grow?"}, "model": {model}, "memory": {"1"}, "key": {fmt.Sprint("d", i)}})
	}
	for i, want := range []string{"The user grows tulips", "kanarienfakt"} {
		if page := string(s.do(t, http.MethodGet, fmt.Sprintf("/chats/%d", 3+i), "")); !strings.Contains(page, "Remembered: ") || !strings.Contains(page, want) || i == 0 && strings.Contains(page, "kanarienfakt") {
			t.Errorf("the answer does not say rightly what was remembered: %s", page[strings.Index(page, "<main"):])
		}
	}
	s.until(t, "/api/library", func(b []byte) bool { return bytes.Contains(b, []byte(`"state": "ready"`)) })
	if cloud.hears("kanarienfakt") {
		t.Error("a cloud provider heard of a private fact")
	}
	if !cloud.hears("<remembered>") && !cloud.hears(`\u003cremembered\u003e`) || !home.hears("- the user grows kanarienfakt flowers") {
		t.Error("who may be told was not, so this test proves nothing")
	}
}

func TestMemoryKeysSayWhatIsWrong(t *testing.T) {
	for doc, want := range map[string]string{
		"memory: {model: nobody}": `memory.model: "nobody" is no row of routes.models`,
		"memory: {model: vault}":  `memory.model: "vault" is made of your notes`,
		"memory: {of: true}":      "memory.of",
		"providers: {a: {kind: openai, url: 'http://127.0.0.1:1', key: env:HOME}}\nroutes: {default: {provider: a, model: m}, models: {x: {provider: a}}}\nmemory: {private_model: x}": `memory.private_model: "x" is answered by a, a cloud provider`,
	} {
		if _, err := load(t, doc); err == nil || !strings.Contains(err.Error(), want) {
			t.Errorf("%s\n%v\nlacks %s", doc, err, want)
		}
	}
	if c, err := load(t, "memory: {on: false}"); err != nil || c.Memory.On {
		t.Errorf("%v, %v", c, err)
	}
	if c, err := load(t, ""); err != nil || !c.Memory.On {
		t.Errorf("%v, %v", c, err)
	}
}
