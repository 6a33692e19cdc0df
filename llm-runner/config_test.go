package main

import (
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"reflect"
	"slices"
	"strings"
	"testing"

	"home.arpa/lab/internal/strict"
)

// isolate gives a test a home, a data directory and none of the machine's keys.
func isolate(t *testing.T) string {
	t.Helper()
	dir := t.TempDir()
	t.Setenv("HOME", dir)
	t.Setenv("XDG_DATA_HOME", dir)
	for _, name := range []string{"OLLAMA_HOST", "GROQ_API_KEY", "GEMINI_API_KEY", "ANTHROPIC_API_KEY", "OPENAI_API_KEY"} {
		t.Setenv(name, "")
	}
	return dir
}

func load(t *testing.T, doc string) (*Config, error) {
	t.Helper()
	path := filepath.Join(isolate(t), "runner.yaml")
	if err := os.WriteFile(path, []byte(doc), 0o600); err != nil {
		t.Fatal(err)
	}
	return Load(Options{Config: path})
}

func TestTheExampleHoldsEveryKeyAndIsValid(t *testing.T) {
	doc, err := os.ReadFile("runner.example.yaml")
	if err != nil {
		t.Fatal(err)
	}
	if c, err := load(t, string(doc)); err != nil {
		t.Errorf("the example is not valid:\n%v", err)
	} else if len(c.Warnings) != 5 { // three keys, the webhook and the topic, none of which are set here
		t.Errorf("warnings: %v", c.Warnings)
	} else if len(c.MCP.Servers) > 0 || c.Discord.Runbooks != "" {
		t.Errorf("copied as it is, the example starts or links to what is nobody's: %v, %q", c.MCP.Servers, c.Discord.Runbooks)
	}
	var c Config
	lines, _ := strict.Decode(doc, &c)
	var missing []string
	var walk func(reflect.Type, string)
	walk = func(rt reflect.Type, prefix string) {
		for i := range rt.NumField() {
			f := rt.Field(i)
			key := f.Tag.Get("yaml")
			if key == "" {
				continue
			}
			switch f.Type.Kind() {
			case reflect.Struct:
				walk(f.Type, prefix+key+`\.`)
				continue
			case reflect.Map:
				if f.Type.Elem().Kind() == reflect.Struct {
					walk(f.Type.Elem(), prefix+key+`\..*\.`)
					continue
				}
			}
			if !mentioned(string(doc), lines, prefix+key) {
				missing = append(missing, prefix+key)
			}
		}
	}
	walk(reflect.TypeFor[Config](), "")
	if len(missing) > 0 {
		t.Errorf("the example does not show %v", missing)
	}
}

// mentioned says whether a key (a path whose maps are `.*`) stands in the example, if only in a comment.
func mentioned(doc string, lines strict.Lines, pattern string) bool {
	parts := strings.Split(strings.ReplaceAll(pattern, `\.`, "."), ".*.")
	for key := range lines {
		at, ok := 0, true
		for i, p := range parts {
			n := strings.Index(key[at:], p)
			if ok = n >= 0 && (i > 0 || n == 0); !ok {
				break
			}
			at += n + len(p)
		}
		if ok && at == len(key) {
			return true
		}
	}
	last := parts[len(parts)-1]
	return strings.Contains(doc, last+":")
}

func TestDefaultsWithoutAnyConfiguration(t *testing.T) {
	dir := isolate(t)
	c, err := Load(Options{})
	if err != nil {
		t.Fatal(err)
	}
	if c.Listen != "127.0.0.1:8080" || c.Data != filepath.Join(dir, "llm-runner") || !c.found || c.path != "" {
		t.Errorf("%+v", c)
	}
}

func TestFlagsWinOverTheFile(t *testing.T) {
	dir := isolate(t)
	path := filepath.Join(dir, "r.yaml")
	os.WriteFile(path, []byte("listen: 127.0.0.1:1\ndata: "+dir+"/a\n"), 0o600)
	c, err := Load(Options{Config: path, Listen: "127.0.0.1:2", Data: dir + "/b", Vault: dir})
	if err != nil || c.Listen != "127.0.0.1:2" || c.Data != dir+"/b" || c.Vault.Path != dir {
		t.Errorf("%+v, %v", c, err)
	}
}

func TestEveryFaultIsReportedAtOnce(t *testing.T) {
	_, err := load(t, `listen: 0.0.0.0:8080
vault: {path: /nowhere/at/all}
colour: blue
providers:
  davas: {kind: olama}
  groq: {kind: openai, key: gsk_verysecret, timeout: -1s}
  mine: {kind: openai, url: "localhost:9000", health: version}
routes:
  default: {provider: contabo}
  project: davaz
  models:
    gemma4: {provider: groq, requires: davas, fallback: gemma4}
    other: {model: x}
    old: {requires_davas: true, requires: groq, stream: slow}
`)
	var faults *ConfigError
	if !errors.As(err, &faults) {
		t.Fatalf("got %v", err)
	}
	for _, want := range []string{
		`line 1: listen: "0.0.0.0:8080" is not this machine alone`,
		`line 2: vault.path: "/nowhere/at/all" is not a directory`,
		`line 3: colour: unknown key; known here: listen, hosts, data`,
		`line 5: providers.davas.kind: "olama" is not a kind: use one of anthropic, gemini, ollama, openai, scripted`,
		`line 6: providers.groq.key: holds the secret itself: put it in an environment variable and write env:NAME`,
		`line 6: providers.groq.timeout: -1s is negative`,
		`line 7: providers.mine.url: "localhost:9000" is not an http or https address`,
		`line 7: providers.mine.health: "version" is neither a path nor a URL`,
		`line 9: routes.default: there is no provider "contabo"; providers: davas, groq, mine, vault`,
		`line 9: routes.default: needs both provider and model`,
		`line 10: routes.project: there is no provider "davaz"`,
		`line 12: routes.models.gemma4.requires: "davas" contradicts provider "groq", which is a cloud API`,
		`line 12: routes.models.gemma4.fallback: "gemma4" is not another row`,
		`routes.models.other.provider: is missing`,
		`line 14: routes.models.old.requires_davas: contradicts requires: "groq"`,
		`line 14: routes.models.old.stream: "slow" is neither live (word by word, the default) nor whole (when the answer is whole)`,
	} {
		if !strings.Contains(err.Error(), want) {
			t.Errorf("missing: %s", want)
		}
	}
	if strings.Contains(err.Error(), "verysecret") {
		t.Error("a secret stands in the error")
	}
	if t.Failed() {
		t.Log(err)
	}
}

func TestSecretsComeFromTheEnvironmentOrAFile(t *testing.T) {
	dir := t.TempDir()
	os.WriteFile(filepath.Join(dir, "token"), []byte("  from-a-file-0123456789\n"), 0o600)
	t.Setenv("A_PASSWORD", "from-the-environment")
	c, err := load(t, `listen: 0.0.0.0:8080
auth:
  password: env:A_PASSWORD
  tokens: {editor: "file:`+dir+`/token"}
`)
	if err != nil || c.Auth.Password != "from-the-environment" || c.Auth.Tokens["editor"] != "from-a-file-0123456789" {
		t.Errorf("%+v, %v", c, err)
	}
	if _, err := load(t, "auth: {password: env:NOT_SET_ANYWHERE}"); err == nil || !strings.Contains(err.Error(), "NOT_SET_ANYWHERE is not set") {
		t.Errorf("a missing password must stop the start: %v", err)
	}
	if c, err := load(t, "providers: {mine: {kind: ollama}}"); err != nil || len(c.Warnings) != 1 || !strings.Contains(c.Warnings[0].String(), "routes.default: is missing") {
		t.Errorf("a missing default must not either: %v, %v", c, err)
	}
	c, err = load(t, "providers: {groq: {kind: openai, key: env:NOT_SET_ANYWHERE}}\nroutes: {default: {provider: groq, model: m}}")
	if err != nil || len(c.Warnings) != 1 || !strings.Contains(c.Warnings[0].String(), "until then groq cannot answer") {
		t.Errorf("a missing provider key must not: %v, %v", c, err)
	}
}

func TestTheDatabaseIsAURLWithoutAPasswordOrAReference(t *testing.T) {
	const url = "postgres://me:hunter2@host:5432/runner"
	t.Setenv("A_DATABASE", url)
	t.Setenv("NO_DATABASE", "mysql://me:hunter2@host/runner")
	for doc, want := range map[string]string{
		"database: postgres://me@host:5432/runner":          "postgres://me@host:5432/runner",
		"database: env:A_DATABASE":                          url,
		"database:":                                         "",
		"database: " + url:                                  "database: holds a password: put the URL in an environment variable",
		"database: postgres://host/runner?password=hunter2": "database: holds a password",
		"database: runner.db":                               "database: is neither a URL nor a reference: write postgres://USER@HOST:5432/NAME",
		"database: env:NOT_SET_ANYWHERE":                    "database: the environment variable NOT_SET_ANYWHERE is not set",
		"database: env:NO_DATABASE":                         "database: is not the URL of a PostgreSQL database",
		"database: postgres://me@host:port/runner":          "database: cannot be read",
	} {
		c, err := load(t, doc)
		switch {
		case err == nil && string(c.Database) != want:
			t.Errorf("%s: %q", doc, c.Database)
		case err != nil && (!strings.Contains(err.Error(), want) || want == ""):
			t.Errorf("%s: %v", doc, err)
		}
		if err != nil && strings.Contains(err.Error(), "hunter2") {
			t.Errorf("%s: the password is repeated", doc)
		}
	}
}

func TestOllamaHostIsUnderstoodAsOllamaDoes(t *testing.T) {
	for host, want := range map[string]string{
		"":                          "http://127.0.0.1:11434",
		"davas":                     "http://davas:11434",
		"davas:1234":                "http://davas:1234",
		"0.0.0.0":                   "http://127.0.0.1:11434",
		"0.0.0.0:1234":              "http://127.0.0.1:1234",
		":1234":                     "http://127.0.0.1:1234",
		"http://davas":              "http://davas:80",
		"https://davas":             "https://davas:443",
		"https://davas:8443/ollama": "https://davas:8443/ollama",
		"[::1]:1234":                "http://[::1]:1234",
		"[::1]":                     "http://[::1]:11434",
	} {
		if got := ollamaURL(host); got != want {
			t.Errorf("%q: got %s, want %s", host, got, want)
		}
	}
}

func FuzzLoad(f *testing.F) {
	f.Add("providers: {a: {kind: ollama}}\nroutes: {default: {provider: a, model: b}}")
	f.Fuzz(func(t *testing.T, doc string) {
		load(t, doc) //nolint:errcheck // it must not panic
	})
}

func TestTheLibrarysKeysSayWhatIsWrong(t *testing.T) {
	for doc, want := range map[string]string{
		"library: {embed: nomic-embed-text}":                                                     `library.embed: "nomic-embed-text" is not provider/model: write for example ollama/nomic-embed-text, or none`,
		"providers: {a: {kind: anthropic, url: http://127.0.0.1:1}}\nlibrary: {embed: a/claude}": "library.embed: a makes no vectors",
		"providers: {a: {kind: ollama}}\nlibrary: {embed: b/x}":                                  `library.embed: there is no provider "b"`,
		"library: {store: chroma}":                                                               `library.store: "chroma" is no store of vectors: write embedded, qdrant or pgvector`,
		"library: {store: pgvector}":                                                             `library.store: pgvector keeps vectors in PostgreSQL, and database: names none: write its URL there, or embedded here`,
		"library: {store: qdrant, qdrant: {url: 'http://x/?q=1', prefix: Big}}":                  `library.qdrant.prefix: "Big"`,
		"library: {qdrant: {key: literal}}":                                                      "library.qdrant.key: holds the secret itself",
		"library: {rerank: nobody}":                                                              `library.rerank: "nobody" is no row of routes.models`,
		"library: {dimensions: -1}":                                                              "library.dimensions: -1 is not from 0",
	} {
		if _, err := load(t, doc); err == nil || !strings.Contains(err.Error(), want) {
			t.Errorf("%s\n%v\nlacks %s", doc, err, want)
		}
	}
	c, err := load(t, "providers: {a: {kind: ollama}}\nlibrary: {embed: a/hf.co/x/y:latest, store: qdrant}")
	if err != nil || c.Library.Embed != "a/hf.co/x/y:latest" {
		t.Error(c, err)
	}
}

func TestEverySecretIsHiddenAndNamedInTheHandbook(t *testing.T) {
	var c Config
	all := map[string]string{}
	var fill func(v reflect.Value, key string)
	fill = func(v reflect.Value, key string) {
		switch {
		case v.Type() == reflect.TypeFor[Secret]():
			all[key] = fmt.Sprintf("the secret of key number %d", len(all))
			v.SetString(all[key])
		case v.Kind() == reflect.Struct:
			for i := range v.NumField() {
				if name := v.Type().Field(i).Tag.Get("yaml"); name != "" {
					fill(v.Field(i), strings.TrimPrefix(key+"."+name, "."))
				}
			}
		case v.Kind() == reflect.Map:
			one := reflect.New(v.Type().Elem()).Elem()
			fill(one, key+".<name>")
			v.Set(reflect.MakeMap(v.Type()))
			v.SetMapIndex(reflect.ValueOf("one"), one)
		}
	}
	fill(reflect.ValueOf(&c).Elem(), "")
	page, err := os.ReadFile("../docs/configuration.md")
	if err != nil {
		t.Fatal(err)
	}
	_, section, _ := strings.Cut(string(page), "\n## Secrets\n")
	section, _, _ = strings.Cut(section, "\n## ")
	hidden := c.secrets()
	for key, secret := range all {
		if !slices.Contains(hidden, secret) {
			t.Errorf("%s is not among the secrets that alerts and traces leave out", key)
		}
		if !strings.Contains(section, "`"+key+"`") {
			t.Errorf("docs/configuration.md does not name %s below Secrets", key)
		}
	}
}
