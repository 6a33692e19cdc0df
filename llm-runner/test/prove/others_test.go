//go:build prove

package prove

import (
	"slices"
	"strconv"
	"strings"
	"testing"

	"home.arpa/lab/llm-runner/test/ollama/tinymodel"
)

// The official clients of Anthropic and of Ollama get from the runner, which has a real Ollama answer, what they would get from their own servers.
func TestOfficialClientsOfAnthropicAndOllama(t *testing.T) {
	h := newHouse(t)
	h.waitStatus("contabo", "up")
	h.waitStatus("davas", "down")
	do := func(t *testing.T, name string) got {
		t.Helper()
		g := h.official(t, "others.mjs", name)
		for _, u := range g.Told {
			if u.Prompt == 0 || u.Completion == 0 {
				t.Errorf("told %+v", u)
			}
		}
		return g
	}
	for name, finish := range map[string]string{"anthropic chat": "end_turn", "anthropic stream": "end_turn", "ollama chat": "stop", "ollama stream": "stop", "ollama generate": "stop"} {
		t.Run(name, func(t *testing.T) {
			g := do(t, name)
			if g.Text != tinymodel.Hello || g.Finish != finish {
				t.Errorf("%+v", g)
			}
			if strings.HasSuffix(name, "stream") && g.Chunks < 10 {
				t.Errorf("%d chunks: it did not stream", g.Chunks)
			}
		})
	}
	for name, finish := range map[string][2]string{"anthropic tools": {"tool_use", "end_turn"}, "ollama tools": {"stop", "stop"}} {
		t.Run(name, func(t *testing.T) {
			g := do(t, name)
			if g.First.Finish != finish[0] {
				t.Errorf("%+v", g.First)
			}
			g.First.Finish = "tool_calls"
			checkCall(t, g.First)
			if g.Second.Text != tinymodel.AfterTool || g.Second.Finish != finish[1] || len(g.Second.Calls) != 0 {
				t.Errorf("after the tool's result: %+v", g.Second)
			}
		})
	}
	t.Run("anthropic tools-stream", func(t *testing.T) {
		g := do(t, "anthropic tools-stream")
		if g.Finish != "tool_use" {
			t.Errorf("%+v", g)
		}
		g.Finish = "tool_calls"
		checkCall(t, &g)
	})
	for _, name := range []string{"anthropic models", "ollama models"} {
		t.Run(name, func(t *testing.T) {
			if g := do(t, name); !slices.Contains(g.IDs, "tiny-chat") || !slices.Contains(g.IDs, "gemma4") || len(g.Value) == 0 {
				t.Errorf("%+v", g)
			}
		})
	}
	t.Run("ollama embeddings", func(t *testing.T) {
		if g := do(t, "ollama embeddings"); len(g.Plain) != 3 || len(g.Plain[0]) != tinymodel.EmbedWidth {
			t.Errorf("%d vectors", len(g.Plain))
		}
	})
	for _, name := range []string{"anthropic held", "anthropic held-stream", "ollama held"} {
		t.Run(name, func(t *testing.T) {
			g := do(t, name)
			if g.Status != 503 || !strings.Contains(g.Message, "davas") {
				t.Errorf("%+v", g)
			}
			if s, err := strconv.Atoi(g.RetryAfter); strings.HasPrefix(name, "anthropic") && (err != nil || s < 1) {
				t.Errorf("Retry-After: %q", g.RetryAfter)
			}
		})
	}
}
