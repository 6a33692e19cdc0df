package route

import (
	"encoding/json"
	"strings"
	"testing"
	"time"

	"home.arpa/lab/llm-runner/internal/llm"
)

var example = Table{
	Default: Target{"contabo", "qwen2.5:14b"},
	Project: "davas",
	Models: map[string]Entry{
		"qwen2.5:14b": {Target: Target{"contabo", "qwen2.5:14b"}},
		"gemma4":      {Target: Target{"davas", "gemma4:27b"}, Requires: "davas"},
		"llama-70b":   {Target: Target{"groq", "llama-3.3-70b-versatile"}},
		"flash":       {Target: Target{"gemini", "gemini-2.5-flash"}, Fallback: "llama-70b"},
		"haiku":       {Target: Target{"anthropic", "claude-haiku-4-5"}, Fallback: "flash"},
		"careful":     {Target: Target{"davas", "gemma4:27b"}, Fallback: "qwen2.5:14b"},
		"loop-a":      {Target: Target{"groq", "a"}, Fallback: "loop-b"},
		"loop-b":      {Target: Target{"groq", "b"}, Fallback: "loop-a"},
	},
	Cloud: map[string]bool{"contabo": false, "davas": false, "groq": true, "gemini": true, "anthropic": true, "vault": false},
}

var soon, later = time.Unix(1000, 0).UTC(), time.Unix(2000, 0).UTC()

func TestDecideIsTheDecisionTree(t *testing.T) {
	down := Readiness{Kind: llm.Unavailable, Reason: "davas is down"}
	spent := func(until time.Time) Readiness {
		return Readiness{Kind: llm.Quota, Reason: "all 30 requests/minute used up", Until: until}
	}
	tests := []struct {
		name    string
		ask     Ask
		state   map[string]Readiness // by provider; ready where absent
		targets string
		rule    string
		hold    string // the reason; "" no hold
		until   time.Time
	}{
		{"no name", Ask{}, nil, "contabo/qwen2.5:14b", RuleDefault, "", time.Time{}},
		{"unknown name", Ask{Model: "nope"}, nil, "contabo/qwen2.5:14b", RuleDefault, "", time.Time{}},
		{"unknown name in project mode", Ask{Model: "nope", Project: true}, nil, "contabo/qwen2.5:14b", RuleDefault, "", time.Time{}},
		{"unknown name that requires", Ask{Model: "nope", Requires: "davas"}, nil, "contabo/qwen2.5:14b", RuleDefault, "", time.Time{}},
		{"unknown name, default down", Ask{Model: "nope"}, map[string]Readiness{"contabo": down}, "contabo/qwen2.5:14b", RuleDefault, "davas is down", time.Time{}},
		{"no name in project mode", Ask{Project: true}, nil, "davas/gemma4:27b", RuleProject, "", time.Time{}},
		{"no name, but a provider required", Ask{Requires: "davas"}, nil, "davas/gemma4:27b", RuleRequires, "", time.Time{}},
		{"cloud with room", Ask{Model: "llama-70b"}, nil, "groq/llama-3.3-70b-versatile", RuleCloud, "", time.Time{}},
		{"cloud without room", Ask{Model: "llama-70b"}, map[string]Readiness{"groq": spent(soon)}, "groq/llama-3.3-70b-versatile", RuleCloud, "all 30 requests/minute used up", soon},
		{"cloud in project mode", Ask{Model: "llama-70b", Project: true}, nil, "groq/llama-3.3-70b-versatile", RuleCloud, "", time.Time{}},
		{"gemma4", Ask{Model: "gemma4"}, nil, "davas/gemma4:27b", RuleRequires, "", time.Time{}},
		{"gemma4 as Ollama writes it", Ask{Model: "gemma4:latest"}, nil, "davas/gemma4:27b", RuleRequires, "", time.Time{}},
		{"gemma4, davas down", Ask{Model: "gemma4"}, map[string]Readiness{"davas": down}, "davas/gemma4:27b", RuleRequires, "davas is down", time.Time{}},
		{"local", Ask{Model: "qwen2.5:14b"}, nil, "contabo/qwen2.5:14b", RuleLocal, "", time.Time{}},
		{"local in project mode", Ask{Model: "qwen2.5:14b", Project: true}, nil, "davas/gemma4:27b", RuleProject, "", time.Time{}},
		{"local in project mode, davas down", Ask{Model: "qwen2.5:14b", Project: true}, map[string]Readiness{"davas": down}, "davas/gemma4:27b", RuleProject, "davas is down", time.Time{}},
		{"local that the caller requires elsewhere", Ask{Model: "qwen2.5:14b", Requires: "davas"}, nil, "davas/gemma4:27b", RuleRequires, "", time.Time{}},
		{"requires a provider without rows", Ask{Model: "qwen2.5:14b", Requires: "vault"}, nil, "vault/qwen2.5:14b", RuleRequires, "", time.Time{}},
		{"local machine down", Ask{Model: "qwen2.5:14b"}, map[string]Readiness{"contabo": down}, "contabo/qwen2.5:14b", RuleLocal, "davas is down", time.Time{}},
		{"fallback not needed", Ask{Model: "flash"}, nil, "gemini/gemini-2.5-flash groq/llama-3.3-70b-versatile", RuleCloud, "", time.Time{}},
		{"fallback needed", Ask{Model: "flash"}, map[string]Readiness{"gemini": spent(later)}, "groq/llama-3.3-70b-versatile", RuleFallback, "", time.Time{}},
		{"fallback of a fallback", Ask{Model: "haiku"}, map[string]Readiness{"gemini": spent(later), "anthropic": spent(later)}, "groq/llama-3.3-70b-versatile", RuleFallback, "", time.Time{}},
		{"nobody: the sooner end counts", Ask{Model: "flash"}, map[string]Readiness{"gemini": spent(later), "groq": spent(soon)}, "gemini/gemini-2.5-flash groq/llama-3.3-70b-versatile", RuleCloud, "all 30 requests/minute used up", soon},
		{"local fallback", Ask{Model: "careful"}, map[string]Readiness{"davas": down}, "contabo/qwen2.5:14b", RuleFallback, "", time.Time{}},
		{"no fallback for one who insists", Ask{Model: "careful", Project: true}, map[string]Readiness{"davas": down}, "davas/gemma4:27b", RuleProject, "davas is down", time.Time{}},
		{"fallbacks in a circle", Ask{Model: "loop-a"}, map[string]Readiness{"groq": spent(soon)}, "groq/a groq/b", RuleCloud, "all 30 requests/minute used up", soon},
		{"provider and model", Ask{Model: "contabo/llama3.2:3b"}, nil, "contabo/llama3.2:3b", RuleNamed, "", time.Time{}},
		{"a slash after no provider", Ask{Model: "openai/gpt-oss-120b"}, nil, "contabo/qwen2.5:14b", RuleDefault, "", time.Time{}},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			d := Decide(&example, tt.ask, func(x Target) Readiness {
				if r, ok := tt.state[x.Provider]; ok {
					return r
				}
				return Readiness{Ready: true}
			})
			var got []string
			for _, x := range d.Targets {
				got = append(got, x.String())
			}
			if strings.Join(got, " ") != tt.targets || d.Rule != tt.rule {
				t.Errorf("got %v by %s, want %s by %s (%s)", got, d.Rule, tt.targets, tt.rule, d.Why)
			}
			switch {
			case tt.hold == "" && d.Hold != nil, tt.hold != "" && (d.Hold == nil || d.Hold.Reason != tt.hold):
				t.Errorf("hold %+v, want %q", d.Hold, tt.hold)
			case d.Hold != nil && tt.until.IsZero() != (d.Hold.Until == nil), d.Hold != nil && d.Hold.Until != nil && !d.Hold.Until.Equal(tt.until):
				t.Errorf("hold until %v, want %v", d.Hold.Until, tt.until)
			}
			if d.Why == "" || d.Model != tt.ask.Model {
				t.Errorf("a decision must repeat the name and say why: %+v", d)
			}
		})
	}
}

func TestProjectModeWithoutAProjectProviderSaysSo(t *testing.T) {
	table := example
	table.Project = ""
	d := Decide(&table, Ask{Model: "qwen2.5:14b", Project: true}, func(Target) Readiness { return Readiness{Ready: true} })
	if d.Targets[0].Provider != "contabo" || !strings.Contains(d.Why, "routes.project names no provider") {
		t.Errorf("%+v", d)
	}
}

func TestDecideWithNothingAtAll(t *testing.T) {
	d := Decide(&Table{}, Ask{Model: "x"}, func(Target) Readiness { return Readiness{Ready: true} })
	if d.Hold == nil || d.Hold.Kind != llm.Unavailable || len(d.Targets) != 0 {
		t.Errorf("%+v", d)
	}
}

func TestADecisionInJSON(t *testing.T) {
	d := Decide(&example, Ask{Model: "gemma4"}, func(Target) Readiness { return Readiness{Reason: "davas is down"} })
	b, err := json.Marshal(d)
	if err != nil {
		t.Fatal(err)
	}
	want := `{"model":"gemma4","targets":[{"provider":"davas","model":"gemma4:27b"}],"rule":"requires",` +
		`"why":"\"gemma4\" requires davas; davas is down","hold":{"reason":"davas is down","until":null}}`
	if string(b) != want {
		t.Errorf("got  %s\nwant %s", b, want)
	}
}

func FuzzDecide(f *testing.F) {
	f.Add("gemma4", true, "davas", uint8(3))
	f.Fuzz(func(t *testing.T, model string, project bool, requires string, state uint8) {
		ready := func(x Target) Readiness {
			for i, p := range []string{"contabo", "davas", "groq", "gemini", "anthropic"} {
				if x.Provider == p {
					return Readiness{Ready: state&(1<<i) != 0, Reason: "not now"}
				}
			}
			return Readiness{Ready: true}
		}
		d := Decide(&example, Ask{Model: model, Project: project, Requires: requires}, ready)
		if len(d.Targets) == 0 || d.Rule == "" || d.Why == "" {
			t.Fatalf("%+v", d)
		}
		for _, x := range d.Targets {
			if d.Hold == nil != ready(x).Ready {
				t.Fatalf("target %v is ready=%v in %+v", x, ready(x).Ready, d)
			}
		}
	})
}
