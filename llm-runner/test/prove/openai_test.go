//go:build prove

package prove

import (
	"bytes"
	"context"
	"encoding/json"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"reflect"
	"slices"
	"strconv"
	"strings"
	"testing"
	"time"

	"home.arpa/lab/llm-runner/internal/route"
	"home.arpa/lab/llm-runner/internal/usage"
	"home.arpa/lab/llm-runner/test/needs"
	"home.arpa/lab/llm-runner/test/ollama/tinymodel"
)

// What node/client.mjs prints; each case fills its own part.
type got struct {
	Text   string
	Calls  []call
	Finish string
	Chunks int
	Value  map[string]any

	First, Second *got // tools

	Packed, Plain [][]float64 // embeddings
	IDs           []string    // models

	Name, Type, Code, Message, RetryAfter string // a refusal
	Status                                int

	Told []told
}

type call struct {
	ID, Type string
	Function struct{ Name, Arguments string }
}

// told is a usage object as OpenAI's clients get it.
type told struct {
	Prompt     int `json:"prompt_tokens"`
	Completion int `json:"completion_tokens"`
	Total      int `json:"total_tokens"`
}

// client runs one case of the official OpenAI client against the runner.
func (r *runner) client(t *testing.T, name string) (g got) {
	t.Helper()
	return r.official(t, "client.mjs", name)
}

// official runs one case of a script with official clients against the runner.
func (r *runner) official(t *testing.T, script, name string) (g got) {
	t.Helper()
	_, noNode := exec.LookPath("node")
	_, noClient := os.Stat(filepath.Join("node", "node_modules", "openai"))
	if noNode != nil || noClient != nil {
		needs.Missing(t, "needs Node and the official clients: run llm-runner/test/setup.sh once")
	}
	ctx, cancel := context.WithTimeout(context.Background(), 90*time.Second)
	defer cancel()
	node := exec.CommandContext(ctx, "node", script, name)
	node.Dir = "node"
	node.Env = append(os.Environ(), "OPENAI_BASE_URL="+r.url+"/v1", "OPENAI_API_KEY=unused", "RUNNER_URL="+r.url)
	var stderr bytes.Buffer
	node.Stderr = &stderr
	out, err := node.Output()
	if err != nil {
		t.Fatalf("%s %s: %v\n%s", script, name, err, &stderr)
	}
	if err := json.Unmarshal(out, &g); err != nil {
		t.Fatalf("%s %s printed %s: %v", script, name, out, err)
	}
	return g
}

// The official client gets from the runner what it would get from OpenAI, and the books hold what it was told.
func TestOfficialOpenAIClient(t *testing.T) {
	h, day := newHouse(t), time.Now().Format(time.DateOnly)
	h.waitStatus("contabo", "up")
	var sum totals
	do := func(t *testing.T, name string) got {
		t.Helper()
		g := h.client(t, name)
		for _, u := range g.Told {
			if u.Prompt == 0 || u.Total != u.Prompt+u.Completion {
				t.Errorf("told %+v", u)
			}
			sum.Requests++
			sum.InputTokens += u.Prompt
			sum.OutputTokens += u.Completion
		}
		return g
	}

	for _, name := range []string{"chat", "stream"} {
		t.Run(name, func(t *testing.T) {
			g := do(t, name)
			if g.Text != tinymodel.Hello || g.Finish != "stop" || len(g.Told) != 1 || g.Told[0].Completion != 13 {
				t.Errorf("%+v", g)
			}
			if name == "stream" && g.Chunks < 10 {
				t.Errorf("%d chunks: it did not stream", g.Chunks)
			}
		})
	}
	t.Run("tools", func(t *testing.T) {
		g := do(t, "tools")
		checkCall(t, g.First)
		if g.Second.Text != tinymodel.AfterTool || g.Second.Finish != "stop" || len(g.Second.Calls) != 0 {
			t.Errorf("after the tool's result: %+v", g.Second)
		}
	})
	t.Run("tools-stream", func(t *testing.T) {
		g := do(t, "tools-stream")
		checkCall(t, &g)
	})
	t.Run("schema", func(t *testing.T) {
		g := do(t, "schema")
		if want := map[string]any{"answer": 42.0, "unit": "none"}; !reflect.DeepEqual(g.Value, want) {
			t.Errorf("%+v", g)
		}
	})
	t.Run("embeddings", func(t *testing.T) {
		g := do(t, "embeddings")
		if len(g.Packed) != 3 || len(g.Packed[0]) != tinymodel.EmbedWidth || len(g.Plain) != 3 {
			t.Fatalf("%d and %d vectors", len(g.Packed), len(g.Plain))
		}
		for i := range g.Packed {
			for k := range g.Packed[i] {
				if float32(g.Packed[i][k]) != float32(g.Plain[i][k]) {
					t.Fatalf("vector %d differs at %d: %v as base64, %v as numbers", i, k, g.Packed[i][k], g.Plain[i][k])
				}
			}
		}
	})
	t.Run("an unknown model", func(t *testing.T) {
		if g := do(t, "unknown"); g.Text != tinymodel.Hello {
			t.Errorf("%+v", g)
		}
		row := h.waitOutcome("nobody-has-this", usage.OK)
		if row.Rule != route.RuleDefault || row.Provider != "contabo" || row.Model != tinymodel.Chat {
			t.Errorf("%+v", row)
		}
	})
	t.Run("models", func(t *testing.T) {
		g := do(t, "models")
		for _, want := range []string{"tiny-chat", "tiny-slow", "gemma4"} {
			if !slices.Contains(g.IDs, want) {
				t.Errorf("%s is not among %v", want, g.IDs)
			}
		}
	})
	t.Run("usage", func(t *testing.T) {
		if time.Now().Format(time.DateOnly) != day {
			t.Skip("midnight came meanwhile")
		}
		err := poll(30*time.Second, 20*time.Millisecond, func() error {
			if today := h.health().Providers["contabo"].Usage.Today; today != sum {
				return fmt.Errorf("/health says %+v, the client was told %+v", today, sum)
			}
			return nil
		})
		if err != nil {
			t.Error(err)
		}
	})
}

func checkCall(t *testing.T, g *got) {
	t.Helper()
	if g.Finish != "tool_calls" || len(g.Calls) != 1 {
		t.Fatalf("%+v", g)
	}
	c := g.Calls[0]
	var city struct{ City string }
	if err := json.Unmarshal([]byte(c.Function.Arguments), &city); err != nil {
		t.Fatalf("arguments %q: %v", c.Function.Arguments, err)
	}
	if c.ID == "" || c.Type != "function" || c.Function.Name != tinymodel.ToolName || city.City != "Paris" {
		t.Errorf("%+v", c)
	}
}

// What cannot be answered is refused in the client's own terms, at once, with the time to come back.
func TestOfficialOpenAIClientIsRefusedProperly(t *testing.T) {
	h := newHouse(t)
	h.waitStatus("davas", "down")
	for _, name := range []string{"held", "held-stream"} {
		t.Run(name, func(t *testing.T) {
			g := h.client(t, name)
			if g.Status != 503 || g.Name != "InternalServerError" || g.Type == "" || !strings.Contains(g.Message, "davas") {
				t.Errorf("%+v", g)
			}
			if s, err := strconv.Atoi(g.RetryAfter); err != nil || s < 1 {
				t.Errorf("Retry-After: %q", g.RetryAfter)
			}
		})
	}
	t.Run("invalid", func(t *testing.T) {
		if g := h.client(t, "invalid"); g.Status != 400 || g.Name != "BadRequestError" || g.Type != "invalid_request_error" {
			t.Errorf("%+v", g)
		}
	})
}

// A client that leaves in the midst of an answer stops the machine, and the next one is served at once.
func TestOfficialOpenAIClientLeaves(t *testing.T) {
	h := newHouse(t)
	whole, err := h.ollama.Whole()
	if err != nil {
		t.Fatal(err)
	}
	g := h.client(t, "abort")
	if !strings.HasPrefix(tinymodel.Count(), g.Text) || len(g.Text) > 100 {
		t.Errorf("it got %q", g.Text)
	}
	if used, err := h.ollama.WaitIdle(); err != nil || used > whole/2 {
		t.Errorf("a whole answer takes %v of a processor, %v were used for nobody: %v", whole, used, err)
	}
	row := h.waitOutcome("tiny-slow", usage.Cancelled)
	if row.FirstByte == 0 {
		t.Errorf("%+v", row)
	}
	if g := h.client(t, "chat"); g.Text != tinymodel.Hello {
		t.Errorf("afterwards: %+v", g)
	}
}
