package script_test

import (
	"math"
	"os"
	"path/filepath"
	"reflect"
	"strings"
	"testing"
	"time"

	"home.arpa/lab/llm-runner/internal/fake/script"
	"home.arpa/lab/llm-runner/internal/llm"
)

// example returns the script in the comment of package script.
func example(t *testing.T) string {
	src, err := os.ReadFile("script.go")
	if err != nil {
		t.Fatal(err)
	}
	_, rest, _ := strings.Cut(string(src), "too:\n//\n")
	block, _, _ := strings.Cut(rest, "\npackage script")
	return strings.ReplaceAll("\n"+block, "\n//\t", "\n")
}

func TestTheDocumentedExampleIsAScript(t *testing.T) {
	s, err := script.Parse([]byte(example(t)))
	if err != nil {
		t.Fatal(err)
	}
	if len(s.Reply) != 3 || len(s.Limits) != 2 || len(s.Faults) != 2 || s.Key == "" || len(s.Models) != 2 {
		t.Errorf("got %+v", s)
	}
	i, r := s.Answer("small", "wait for me")
	if i != 1 || r.Text != "It wait for mes." || r.Delay != 2*time.Second || r.Usage == nil || *r.Usage.Cached != 4 {
		t.Errorf("rule %d is %+v", i, r)
	}
	if _, r := s.Answer("small", "the weather"); r.Finish != llm.FinishTools || r.Calls[0].ID != "call_0" {
		t.Errorf("got %+v", r)
	}
	if i, r := s.Answer("small", "else"); i != -1 || r.Text != "You said: else" || r.Finish != llm.FinishStop {
		t.Errorf("no rule matches: %d, %+v", i, r)
	}
}

func TestABadScriptIsExplained(t *testing.T) {
	for src, want := range map[string]string{
		"replies: []":                            "line 1: field replies is unknown; known are key, models",
		"reply:\n  - txt: a":                     "line 2: field txt is unknown in a reply; known are match",
		"reply:\n  - {text: a, delay: soon}":     "line 2: cannot unmarshal `soon` as a duration; write 20ms",
		"reply: [{match: /(/}]":                  "reply[0].match: error parsing regexp",
		"reply: [{finish: tired}]":               `reply[0].finish: "tired" is not one of stop`,
		"reply: [{calls: [{arguments: \"\"}]}]":  "reply[0].calls[0].name: is missing",
		"reply: [{chunk_size: -1}]":              "must not be negative",
		"reply: [{fault: {kind: boom}}]":         `reply[0].fault.kind: "boom" is not one of 429`,
		"limits: [{dimension: a, max: 1}]":       `limits[0].dimension: "a" is not one of requests/minute`,
		"limits: [{dimension: tokens/day}]":      "limits[0].max: 0 is not positive",
		"faults: [{kind: \"503\", chance: 2}]":   "faults[0].chance: 2 is not between 0 and 1",
		"faults: [{kind: \"503\", wait: -1s}]":   "faults[0].wait: -1s is negative",
		"faults: [{kind: \"503\", body: x}]":     "faults[0].kind: 503 has no status, headers or body; verbatim has",
		"faults: [{kind: verbatim, status: 99}]": "faults[0].status: 99 is not between 200 and 599",
		"dimensions: -1":                         "dimensions: -1 is negative",
		"reply: {":                               "line 1",
	} {
		if _, err := script.Parse([]byte(src)); err == nil || !strings.Contains(err.Error(), want) {
			t.Errorf("%q\ngot  %v\nwant %s", src, err, want)
		}
	}
	if s, err := script.Parse(nil); err != nil || !reflect.DeepEqual(s, script.Script{}) {
		t.Errorf("an empty script: %+v, %v", s, err)
	}
	path := filepath.Join(t.TempDir(), "s.yaml")
	if err := os.WriteFile(path, []byte(`{"reply": [{"text": "JSON is YAML"}], "wrong": 1}`), 0o600); err != nil {
		t.Fatal(err)
	}
	if _, err := script.Load(path); err == nil || !strings.Contains(err.Error(), path) {
		t.Errorf("the path is not named: %v", err)
	}
}

func TestInputIsFilledInWithoutBreakingJSON(t *testing.T) {
	s := script.Script{Reply: []script.Rule{{Calls: []script.Call{{Name: "f", Arguments: `{"q":"{{input}}"}`}}}}}
	if err := s.Check(); err != nil {
		t.Fatal(err)
	}
	if _, r := s.Answer("m", "a \"b\"\n\x01"); r.Calls[0].Arguments != `{"q":"a \"b\"\n\u0001"}` {
		t.Errorf("got %s", r.Calls[0].Arguments)
	}
	if strings.Contains(s.Reply[0].Calls[0].Arguments, "a") {
		t.Error("the script itself was changed")
	}
}

func TestFaultsHitTheirRequests(t *testing.T) {
	s := script.Script{Seed: 1, Faults: []script.Fault{
		{Kind: script.Busy, On: []int{2}}, {Kind: script.Gzip}, {Kind: script.RateLimited, On: []int{2, 3}}, {Kind: script.CRLF, On: []int{1}},
	}}
	for n, want := range []script.FaultKind{1: "", 2: script.Busy, 3: script.RateLimited, 4: ""} {
		if n == 0 {
			continue
		}
		f, shapes := s.FaultsOf(n, script.Rule{})
		if f == nil && want != "" || f != nil && f.Kind != want || !shapes[script.Gzip] || shapes[script.CRLF] != (n == 1) {
			t.Errorf("request %d: %+v, %v", n, f, shapes)
		}
	}
	own := script.Fault{Kind: script.Truncate}
	if f, _ := s.FaultsOf(2, script.Rule{Fault: &own}); f.Kind != script.Truncate {
		t.Errorf("the rule's own fault does not go first: %+v", f)
	}
	half, hits := script.Fault{Kind: script.Busy, Chance: 0.5}, 0
	for n := range 1000 {
		if half.Hits(7, n) {
			hits++
		}
		if again := half.Hits(7, n); again != half.Hits(7, n) {
			t.Fatal("chance is not repeatable")
		}
	}
	if hits < 400 || hits > 600 {
		t.Errorf("a chance of a half hit %d of 1000", hits)
	}
}

func TestPiecesAddUp(t *testing.T) {
	for _, s := range []string{"", "a", " a", "a b c", "  two  spaces ", "a\n\nb", "Grüße, 世界 \U0001F600", strings.Repeat("long ", 100)} {
		for n := 1; n < 5; n++ {
			if got := strings.Join(script.Pieces(s, n), ""); got != s {
				t.Errorf("words, %d: %q became %q", n, s, got)
			}
			if got := strings.Join(script.Chars(s, n), ""); got != s {
				t.Errorf("characters, %d: %q became %q", n, s, got)
			}
		}
	}
	if got := script.Pieces("a b c", 2); !reflect.DeepEqual(got, []string{"a b", " c"}) {
		t.Errorf("got %q", got)
	}
}

func TestVectorsOfLikeTextsAreNear(t *testing.T) {
	dot := func(a, b []float32) (sum float64) {
		for i := range a {
			sum += float64(a[i]) * float64(b[i])
		}
		return sum
	}
	v := script.Vector("The cat sat on the mat.", 64)
	if d := dot(v, v); math.Abs(d-1) > 1e-5 {
		t.Errorf("length %f", d)
	}
	near, far := dot(v, script.Vector("the mat and the cat", 64)), dot(v, script.Vector("quarterly tax report", 64))
	if near < 0.5 || far > 0.4 {
		t.Errorf("near %f, far %f", near, far)
	}
	if e := script.Vector("", 3); !reflect.DeepEqual(e, []float32{1, 0, 0}) {
		t.Errorf("of nothing: %v", e)
	}
}

func FuzzParse(f *testing.F) {
	f.Add([]byte("reply:\n  - {match: /a/, text: b}\nfaults: [{kind: \"429\", on: [1]}]"), "abc")
	f.Fuzz(func(t *testing.T, src []byte, input string) {
		s, err := script.Parse(src)
		if err != nil {
			return
		}
		_, r := s.Answer("m", input)
		if r.ChunkSize < 1 || r.Finish == "" {
			t.Fatalf("incomplete rule %+v", r)
		}
		s.FaultsOf(1, r)
		r.Told(input)
	})
}
