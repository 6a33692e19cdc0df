package wire

import (
	"encoding/json"
	"strings"
	"testing"
	"time"

	"home.arpa/lab/llm-runner/internal/llm"
)

const conversation = `{"model":"m","format":"json","think":"low","options":{"num_predict":7,"temperature":0.5,"stop":"X","num_ctx":4096},
"tools":[{"type":"function","function":{"name":"f","parameters":{"type":"object"}}}],
"messages":[{"role":"system","content":"be brief"},{"role":"user","content":"see","images":["AQI="]},
{"role":"assistant","content":"","thinking":"hm","tool_calls":[{"function":{"name":"f","arguments":{"x":1}}}]},{"role":"tool","tool_name":"f","content":"no"}]}`

func TestAConversationIsRead(t *testing.T) {
	req, err := ParseChat([]byte(conversation))
	if err != nil {
		t.Fatal(err)
	}
	if req.MaxTokens != 7 || *req.Temperature != 0.5 || req.Stop[0] != "X" || req.Effort != "low" || req.Format == nil || req.Tools[0].Name != "f" {
		t.Errorf("%+v", req)
	}
	call, result := req.Messages[2].Parts[1].Call, req.Messages[3].Parts[0].Result
	if string(req.Messages[1].Parts[1].Image.Data) != "\x01\x02" || call.Arguments != `{"x":1}` || result.ID != call.ID || result.ID == "" || result.Name != "f" {
		t.Errorf("%+v; call %+v, result %+v", req.Messages, call, result)
	}
}

// Clients that send no ids back answer calls in their order; those that do, in any. Other dialects want each call answered by its id.
func TestEachResultAnswersItsOwnCall(t *testing.T) {
	for results, want := range map[string]string{
		`{"role":"tool","tool_name":"f"},{"role":"tool","tool_name":"g"},{"role":"tool","tool_name":"f"}`:           "a=f c=g b=f",
		`{"role":"tool"},{"role":"tool"},{"role":"tool"}`:                                                           "a=f b=f c=g",
		`{"role":"tool","tool_call_id":"b"},{"role":"tool","tool_name":"f"},{"role":"tool","tool_call_id":"c"}`:     "b=f a=f c=g",
		`{"role":"tool","tool_name":"g"},{"role":"tool","tool_name":"g"},{"role":"tool","tool_call_id":"stranger"}`: "c=g =g stranger=",
	} {
		req, err := ParseChat([]byte(`{"messages":[{"role":"assistant","tool_calls":[{"id":"unanswered","function":{"name":"f"}}]},{"role":"assistant","tool_calls":[{"id":"a","function":{"name":"f"}},{"id":"b","function":{"name":"f"}},{"id":"c","function":{"name":"g"}}]},` + results + `]}`))
		if err != nil {
			t.Fatal(err)
		}
		var got []string
		for _, m := range req.Messages[2:] {
			got = append(got, m.Parts[0].Result.ID+"="+m.Parts[0].Result.Name)
		}
		if s := strings.Join(got, " "); s != want {
			t.Errorf("%s: %s, want %s", results, s, want)
		}
	}
}

// A picture comes without its type, which other dialects have to tell.
func TestAPictureHasItsType(t *testing.T) {
	const dot = "iVBORw0KGgoAAAANSUhEUgAAAAEAAAABCAYAAAAfFcSJAAAADUlEQVR42mNk+M9QDwADhgGAWjR9awAAAABJRU5ErkJggg=="
	req, err := ParseGenerate([]byte(`{"prompt":"see","images":["` + dot + `"]}`))
	if err != nil || req.Messages[0].Parts[1].Image.MIME != "image/png" {
		t.Errorf("%+v, %v", req, err)
	}
}

func TestWhatCannotBeDoneIsNamed(t *testing.T) {
	for body, says := range map[string]string{
		`{"messages":[{"role":"robot","content":"x"}]}`:               `messages[0].role: "robot"`,
		`{"messages":[{"role":"user","images":["?"]}]}`:               "messages[0].images[0]:",
		`{"format":"xml","messages":[]}`:                              `format: "xml"`,
		`{"think":"loud","messages":[]}`:                              `think: "loud"`,
		`{"messages":[{"role":"assistant","tool_calls":[{}]}]}`:       "messages[0].tool_calls[0].function.name",
		`{"options":{"num_predict":"many"}}`:                          "options.num_predict: must not be a string",
		`{"messages":[],"tools":[{"type":"function","function":{}}]}`: "tools[0].function.name",
	} {
		if _, err := ParseChat([]byte(body)); err == nil || !strings.HasPrefix(strings.TrimPrefix(err.Error(), "messages[0]."), strings.TrimPrefix(says, "messages[0].")) {
			t.Errorf("%s: %v, want %s", body, err, says)
		}
	}
}

func TestACallIsToldWholeAndTheLastLineIsDone(t *testing.T) {
	w := NewLineWriter(Meta{Model: "m", Began: time.Now()})
	var out [][]byte
	for _, ev := range []llm.Event{
		{Text: "look"}, {Call: &llm.CallDelta{Index: 0, ID: "a", Name: "f", Arguments: `{"x"`}}, {Call: &llm.CallDelta{Index: 0, Arguments: `:1}`}},
		{Usage: &llm.Usage{Output: llm.Known(4)}, Finish: llm.FinishTools},
	} {
		out = w.Append(out, ev)
	}
	var lines []line
	for _, b := range w.End(out) {
		var l line
		if err := json.Unmarshal(b, &l); err != nil || b[len(b)-1] != '\n' {
			t.Fatalf("%q: %v", b, err)
		}
		lines = append(lines, l)
	}
	if len(lines) != 3 || lines[0].Message.Content != "look" || string(lines[1].Message.Calls[0].Function.Arguments) != `{"x":1}` || lines[1].Done {
		t.Errorf("%+v", lines)
	}
	if last := lines[2]; !last.Done || last.Reason != "stop" || last.Prompt != nil || *last.Output != 4 {
		t.Errorf("%+v", last)
	}
}

func FuzzParseChat(f *testing.F) {
	f.Add([]byte(conversation))
	f.Add([]byte(`{"options":{"stop":null},"format":"","messages":[{"role":"tool"}]}`))
	f.Fuzz(func(_ *testing.T, b []byte) {
		_, _ = ParseChat(b)
		_, _ = ParseGenerate(b)
		_, _ = ParseEmbed(b)
	})
}
