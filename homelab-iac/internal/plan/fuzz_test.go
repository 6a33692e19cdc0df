package plan

import (
	"bytes"
	"encoding/json"
	"os"
	"path/filepath"
	"reflect"
	"slices"
	"strings"
	"testing"
)

func FuzzRead(f *testing.F) {
	files, err := filepath.Glob("testdata/*.json")
	if err != nil || len(files) == 0 {
		f.Fatal("no plans to begin with", err)
	}
	for _, name := range files {
		text, err := os.ReadFile(name)
		if err != nil {
			f.Fatal(err)
		}
		f.Add(text)
	}
	f.Add([]byte(planOf(resource("a_b", `{"actions":["update"],"before":{"a":[1,{"b":null}]},"after":{"a":[{"b":1}]},"after_unknown":{"a":[true]},"after_sensitive":{"a":[true]}}`))))
	for _, c := range corpus() {
		var texts []string
		for _, s := range c.steps {
			text, err := s.text()
			if err != nil {
				f.Fatal(err)
			}
			texts = append(texts, text)
		}
		f.Add([]byte(planOf(texts...)))
	}
	f.Fuzz(func(t *testing.T, text []byte) {
		p, err := Read(bytes.NewReader(text))
		if err != nil {
			return
		}
		for _, r := range p.Resources {
			if r.Address == "" || r.Type == "" || len(r.Actions) == 0 {
				t.Errorf("a resource without a name or an action was read: %v", r)
			}
		}
		if _, err := json.Marshal(p); err != nil {
			t.Error(err)
		}
		found := Judge(p, expendable)
		if !reflect.DeepEqual(found, Judge(p, expendable)) {
			t.Error("one plan is judged in two ways")
		}
		for _, r := range p.Resources {
			gone := r.Mode == "managed" && (r.Kind() == Destroy || r.Kind() == "") && !spare[r.Type] && r.Type != "aws_iam_access_key" && !r.machine()
			if gone && !slices.ContainsFunc(found, func(f Finding) bool { return strings.HasPrefix(f.Address, r.Address) }) {
				t.Errorf("%v passes", r)
			}
		}
	})
}

func FuzzPlainJSON(f *testing.F) {
	for _, s := range []string{tailnet, "{\"a\": [1, 2,], // x\n /* y */ \"b\": \"// no \\\" comment\",}", "/*", "\"", "[,]"} {
		f.Add([]byte(s))
	}
	f.Fuzz(func(t *testing.T, text []byte) {
		plain := plainJSON(text)
		if len(plain) != len(text) {
			t.Errorf("%q becomes %q", text, plain)
		}
		want, err := parse(text)
		if err != nil {
			return
		}
		if got, err := parse(plain); err != nil || !reflect.DeepEqual(got, want) {
			t.Errorf("JSON %q becomes %q", text, plain)
		}
	})
}
