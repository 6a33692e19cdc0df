package providertest

import (
	"encoding/base64"
	"encoding/json"
	"strings"
	"testing"

	"home.arpa/lab/llm-runner/internal/fake/script"
	"home.arpa/lab/llm-runner/internal/llm"
)

func num(n int64) *int64 { return &n }

// thinkingOf joins the reasoning of a message.
func thinkingOf(m llm.Message) string {
	var s strings.Builder
	for _, p := range m.Parts {
		if p.Thinking != nil {
			s.WriteString(p.Thinking.Text)
		}
	}
	return s.String()
}

func callsOf(m llm.Message) []llm.ToolCall {
	var out []llm.ToolCall
	for _, p := range m.Parts {
		if p.Call != nil {
			out = append(out, *p.Call)
		}
	}
	return out
}

// sameJSON says whether two JSON texts mean the same.
func sameJSON(a, b string) bool {
	var x, y any
	if json.Unmarshal([]byte(a), &x) != nil || json.Unmarshal([]byte(b), &y) != nil {
		return a == b
	}
	p, _ := json.Marshal(x)
	q, _ := json.Marshal(y)
	return string(p) == string(q)
}

var weather = llm.ToolSpec{
	Name: "weather", Description: "Tells the weather.",
	Schema: json.RawMessage(`{"type":"object","properties":{"city":{"type":"string"}},"required":["city"]}`),
}

// dot is a PNG image of one pixel.
var dot, _ = base64.StdEncoding.DecodeString("iVBORw0KGgoAAAANSUhEUgAAAAEAAAABCAYAAAAfFcSJAAAADUlEQVR42mNk+M9QDwADhgGAWjR9awAAAABJRU5ErkJggg==")

func (s Suite) answers(t *testing.T) {
	t.Run("text comes in pieces that add up", func(t *testing.T) {
		const text = "Grüße, 世界! \U0001F600 \"quoted\" \\ and\na new line, <b>bold</b> & more."
		sub := s.Open(t, Scenario{Script: script.Script{Reply: []script.Rule{{Text: text}}}})
		a, events, err := s.ask(t, sub, s.request("hello"))
		if err != nil {
			t.Fatal(err)
		}
		if got := a.Message.Text(); got != text {
			t.Errorf("got  %q\nwant %q", got, text)
		}
		if a.Finish != llm.FinishStop {
			t.Errorf("finish %q", a.Finish)
		}
		pieces := 0
		for _, ev := range events {
			if ev.Text != "" {
				pieces++
			}
		}
		if pieces < 3 {
			t.Errorf("the text came in %d pieces", pieces)
		}
		if events[len(events)-1].Finish == "" {
			t.Errorf("the last event is %+v, not the finish", events[len(events)-1])
		}
	})
	t.Run("nothing happens before the loop", func(t *testing.T) {
		sub := s.Open(t, Scenario{})
		_ = sub.Provider.Stream(t.Context(), s.request("hello"))
		if sub.Upstream != nil && len(sub.Upstream.Requests()) > 0 {
			t.Error("the upstream was asked")
		}
	})
	t.Run("usage is exact", func(t *testing.T) {
		sub := s.Open(t, Scenario{Script: script.Script{Reply: []script.Rule{{Text: "a b c", Usage: &script.Usage{Input: num(1234), Output: num(56)}}}}})
		a, _, err := s.ask(t, sub, s.request("hello"))
		if err != nil || a.Usage.Input != llm.Known(1234) || a.Usage.Output != llm.Known(56) {
			t.Errorf("usage %+v, %v", a.Usage, err)
		}
	})
	t.Run("usage that is not told is unknown", func(t *testing.T) {
		s.needs(t, NoUsage)
		sub := s.Open(t, Scenario{Script: script.Script{Reply: []script.Rule{{Text: "a b c", NoUsage: true}}}})
		a, _, err := s.ask(t, sub, s.request("hello"))
		if err != nil || a.Usage != (llm.Usage{}) {
			t.Errorf("usage %+v, %v", a.Usage, err)
		}
	})
	t.Run("the limit of tokens", func(t *testing.T) {
		sub := s.Open(t, Scenario{Script: script.Script{Reply: []script.Rule{{Text: "cut off in the", Finish: llm.FinishLength}}}})
		req := s.request("hello")
		req.MaxTokens = 4
		a, _, err := s.ask(t, sub, req)
		if err != nil || a.Finish != llm.FinishLength || a.Message.Text() != "cut off in the" {
			t.Errorf("finish %q, text %q, %v", a.Finish, a.Message.Text(), err)
		}
	})
	t.Run("thinking is not text", func(t *testing.T) {
		s.needs(t, Thinking)
		sub := s.Open(t, Scenario{Script: script.Script{Reply: []script.Rule{{Thinking: "Let me see. Yes.", Text: "It is so."}}}})
		req := s.request("is it so?")
		req.Effort = "low"
		a, _, err := s.ask(t, sub, req)
		if err != nil || thinkingOf(a.Message) != "Let me see. Yes." || a.Message.Text() != "It is so." {
			t.Errorf("message %+v, %v", a.Message, err)
		}
	})
	t.Run("system messages, settings and a conversation are accepted", func(t *testing.T) {
		sub := s.Open(t, Scenario{Script: script.Script{Reply: []script.Rule{{Match: "third", Text: "right"}}}})
		temperature, topP, seed := 0.5, 0.9, int64(7)
		req := llm.Request{
			Model: s.Model,
			Messages: []llm.Message{
				llm.Says(llm.System, "Be brief."), llm.Says(llm.User, "first"), llm.Says(llm.Assistant, "second"), llm.Says(llm.User, "third"),
			},
			MaxTokens: 100, Temperature: &temperature, TopP: &topP, Seed: &seed, Stop: []string{"END"},
		}
		a, _, err := s.ask(t, sub, req)
		if err != nil || a.Message.Text() != "right" {
			t.Fatalf("text %q, %v", a.Message.Text(), err)
		}
		if sub.Upstream != nil {
			body := sub.Upstream.Requests()[0].Body
			for _, want := range []string{"Be brief.", "first", "second", "third", "END", "100", "0.5", "0.9"} {
				if !strings.Contains(body, want) {
					t.Errorf("the upstream was not told %q: %s", want, body)
				}
			}
		}
	})
	t.Run("an image is accepted", func(t *testing.T) {
		s.needs(t, Images)
		sub := s.Open(t, Scenario{Script: script.Script{Reply: []script.Rule{{Match: "what is this", Text: "a dot"}}}})
		req := llm.Request{Model: s.Model, Messages: []llm.Message{{Role: llm.User, Parts: []llm.Part{
			{Text: "what is this"}, {Image: &llm.Image{MIME: "image/png", Data: dot}},
		}}}}
		a, _, err := s.ask(t, sub, req)
		if err != nil || a.Message.Text() != "a dot" {
			t.Fatalf("text %q, %v", a.Message.Text(), err)
		}
		if sub.Upstream != nil && !strings.Contains(sub.Upstream.Requests()[0].Body, base64.StdEncoding.EncodeToString(dot)) {
			t.Error("the image did not reach the upstream")
		}
	})
	t.Run("structured output", func(t *testing.T) {
		s.needs(t, Structured)
		sub := s.Open(t, Scenario{Script: script.Script{Reply: []script.Rule{{Text: `{"city": "Oslo"}`}}}})
		req := s.request("which city?")
		req.Format = &llm.Format{Name: "place", Schema: weather.Schema, Strict: true}
		a, _, err := s.ask(t, sub, req)
		if err != nil || !sameJSON(a.Message.Text(), `{"city":"Oslo"}`) {
			t.Fatalf("text %q, %v", a.Message.Text(), err)
		}
		if sub.Upstream != nil && !strings.Contains(sub.Upstream.Requests()[0].Body, `"required"`) {
			t.Error("the schema did not reach the upstream")
		}
	})
	t.Run("tool calls", s.tools)
}

func (s Suite) tools(t *testing.T) {
	oslo := script.Call{Name: "weather", Arguments: `{"city":"Oslo in \"Norway\""}`}
	rome := script.Call{Name: "weather", Arguments: `{"city":"Rome"}`}
	check := func(t *testing.T, a llm.Answer, want ...script.Call) {
		t.Helper()
		got := callsOf(a.Message)
		if len(got) != len(want) || a.Finish != llm.FinishTools {
			t.Fatalf("calls %+v, finish %q, want %+v", got, a.Finish, want)
		}
		ids := map[string]bool{}
		for i, c := range got {
			if c.Name != want[i].Name || !sameJSON(c.Arguments, want[i].Arguments) {
				t.Errorf("call %d is %+v, want %+v", i, c, want[i])
			}
			if c.ID == "" || ids[c.ID] {
				t.Errorf("call %d has the id %q", i, c.ID)
			}
			ids[c.ID] = true
		}
	}
	t.Run("one", func(t *testing.T) {
		s.needs(t, Tools)
		sub := s.Open(t, Scenario{Script: script.Script{Reply: []script.Rule{{Calls: []script.Call{oslo}}}}})
		req := s.request("weather in Oslo?")
		req.Tools = []llm.ToolSpec{weather}
		a, _, err := s.ask(t, sub, req)
		if err != nil {
			t.Fatal(err)
		}
		check(t, a, oslo)
	})
	t.Run("several, after text", func(t *testing.T) {
		s.needs(t, Tools, Parallel)
		sub := s.Open(t, Scenario{Script: script.Script{Reply: []script.Rule{{Text: "Let me look.", Calls: []script.Call{oslo, rome, {Name: "now", Arguments: "{}"}}}}}})
		req := s.request("weather in Oslo and Rome?")
		req.Tools = []llm.ToolSpec{weather, {Name: "now"}}
		a, _, err := s.ask(t, sub, req)
		if err != nil {
			t.Fatal(err)
		}
		check(t, a, oslo, rome, script.Call{Name: "now", Arguments: "{}"})
		if a.Message.Text() != "Let me look." {
			t.Errorf("text %q", a.Message.Text())
		}
	})
	t.Run("and back with results", func(t *testing.T) {
		s.needs(t, Tools)
		sub := s.Open(t, Scenario{Script: script.Script{Reply: []script.Rule{
			{Match: "weather?", Calls: []script.Call{oslo}},
			{Text: "It rains."},
		}}})
		req := s.request("weather?")
		req.Tools = []llm.ToolSpec{weather}
		a, _, err := s.ask(t, sub, req)
		if err != nil {
			t.Fatal(err)
		}
		check(t, a, oslo)
		call := callsOf(a.Message)[0]
		req.Messages = append(req.Messages, a.Message, llm.Message{Role: llm.Tool, Parts: []llm.Part{
			{Result: &llm.ToolResult{ID: call.ID, Name: call.Name, Text: "heavy rain"}},
		}}, llm.Says(llm.User, "so?"))
		a, _, err = s.ask(t, sub, req)
		if err != nil || a.Message.Text() != "It rains." || a.Finish != llm.FinishStop {
			t.Fatalf("answer %+v, %v", a, err)
		}
		if sub.Upstream != nil {
			body := sub.Upstream.Requests()[1].Body
			for _, want := range []string{"heavy rain", "Oslo in"} {
				if !strings.Contains(body, want) {
					t.Errorf("the upstream was not told %q: %s", want, body)
				}
			}
		}
	})
}
