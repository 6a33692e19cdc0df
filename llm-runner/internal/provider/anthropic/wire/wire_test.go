package wire

import (
	"encoding/json"
	"strings"
	"testing"
	"time"

	"home.arpa/lab/llm-runner/internal/llm"
)

const conversation = `{"model":"m","max_tokens":100,"system":[{"type":"text","text":"be brief","cache_control":{"type":"ephemeral"}}],
"thinking":{"type":"enabled","budget_tokens":9000},"stop_sequences":["X"],"tool_choice":{"type":"any","disable_parallel_tool_use":true},
"tools":[{"name":"f","description":"d","input_schema":{"type":"object"}}],
"messages":[
 {"role":"user","content":[{"type":"text","text":"see"},{"type":"image","source":{"type":"base64","media_type":"image/png","data":"AQI="}}]},
 {"role":"assistant","content":[{"type":"thinking","thinking":"hm","signature":"S"},{"type":"redacted_thinking","data":"R"},{"type":"tool_use","id":"t1","name":"f","input":{"x":1}}]},
 {"role":"user","content":[{"type":"tool_result","tool_use_id":"t1","is_error":true,"content":[{"type":"text","text":"no"}]},{"type":"text","text":"and?"}]}]}`

func TestAConversationIsRead(t *testing.T) {
	req, err := ParseRequest([]byte(conversation))
	if err != nil {
		t.Fatal(err)
	}
	if req.MaxTokens != 100 || req.Effort != "medium" || req.Stop[0] != "X" || req.ToolChoice.Mode != "required" || !req.NoParallelTools || req.Tools[0].Name != "f" {
		t.Errorf("%+v", req)
	}
	var roles []string
	for _, m := range req.Messages {
		roles = append(roles, string(m.Role))
	}
	if got := strings.Join(roles, " "); got != "system user assistant tool user" {
		t.Fatal(got)
	}
	if i := req.Messages[1].Parts[1].Image; i.MIME != "image/png" || string(i.Data) != "\x01\x02" {
		t.Errorf("%+v", i)
	}
	a := req.Messages[2].Parts
	if a[0].Thinking.Signature != "S" || a[1].Thinking.Redacted != "R" || a[2].Call.Arguments != `{"x":1}` {
		t.Errorf("%+v", a)
	}
	if r := req.Messages[3].Parts[0].Result; r.Name != "f" || r.Text != "no" || !r.IsError {
		t.Errorf("%+v", r)
	}
}

func TestWhatCannotBeDoneIsNamed(t *testing.T) {
	for body, says := range map[string]string{
		`{"messages":[{"role":"user","content":"x"}],"top_k":5}`:                                                                                                    "top_k:",
		`{"messages":[{"role":"robot","content":"x"}]}`:                                                                                                             `messages[0].role: "robot"`,
		`{"messages":[{"role":"user","content":[{"type":"document"}]}]}`:                                                                                            `messages[0].content[0].type: "document"`,
		`{"messages":[{"role":"user","content":[{"type":"tool_result","content":"x"}]}]}`:                                                                           "messages[0].content[0].tool_use_id: is missing",
		`{"messages":[{"role":"user","content":[{"type":"image","source":{"type":"url","url":"file:///etc/passwd"}}]}]}`:                                            "messages[0].content[0].source: must be",
		`{"messages":[{"role":"user","content":[{"type":"tool_result","tool_use_id":"a","content":5}]}]}`:                                                           "messages[0].content[0].content: must be a string",
		`{"messages":[{"role":"user","content":[{"type":"tool_result","tool_use_id":"a","content":[{"type":"tool_result","tool_use_id":"b","content":"lost"}]}]}]}`: `messages[0].content[0].content[0].type: "tool_result"`,
		`{"messages":[{"role":"user","content":"x"}],"thinking":{"type":"loud"}}`:                                                                                   `thinking.type: "loud"`,
		`{"messages":"x"}`: "messages: must not be a string",
	} {
		if _, err := ParseRequest([]byte(body)); err == nil || !strings.HasPrefix(err.Error(), says) {
			t.Errorf("%s: %v, want %s", body, err, says)
		}
	}
}

// However deep blocks stand in blocks, a body is read a few times and not once for each.
func TestADeepBodyIsReadAtOnce(t *testing.T) {
	const deep = 4000
	body := `{"messages":[{"role":"user","content":[` + strings.Repeat(`{"type":"tool_result","tool_use_id":"a","content":[`, deep) +
		`{"type":"text","text":"` + strings.Repeat("x", 1<<20) + `"}` + strings.Repeat("]}", deep) + `]}]}`
	began := time.Now()
	if _, err := ParseRequest([]byte(body)); err == nil || !strings.Contains(err.Error(), `"tool_result" is not supported here`) {
		t.Error(err)
	}
	if took := time.Since(began); took > 10*time.Second { // it takes some hundredths; once for each, a minute
		t.Errorf("reading a megabyte took %s", took)
	}
}

// Whatever comes between the pieces of a call, each block is told whole, one after the other.
func TestBlocksNeverOverlap(t *testing.T) {
	w := NewEventWriter(Meta{ID: "msg_1", Model: "m"})
	var out [][]byte
	for _, ev := range []llm.Event{
		{Thinking: "hm"}, {Signature: "S"}, {Text: "look"},
		{Call: &llm.CallDelta{Index: 0, ID: "a", Name: "f", Arguments: `{"x"`}},
		{Call: &llm.CallDelta{Index: 1, ID: "b", Name: "g", Arguments: `{"y"`}},
		{Text: "more"},
		{Call: &llm.CallDelta{Index: 0, Arguments: `:1}`}},
		{Call: &llm.CallDelta{Index: 1, Arguments: `:2}`}},
		{Usage: &llm.Usage{Input: llm.Known(9), Output: llm.Known(4), CachedInput: llm.Known(2)}, Finish: llm.FinishTools},
	} {
		out = w.Append(out, ev)
	}
	out = w.End(out)
	open, blocks, input := -1, 0, map[int]string{}
	for _, b := range out {
		_, data, _ := strings.Cut(string(b), "data: ")
		var ev struct {
			Type  string
			Index int
			Delta struct {
				Partial string `json:"partial_json"`
			}
			Usage map[string]int64
		}
		if err := json.Unmarshal([]byte(data), &ev); err != nil || !strings.HasPrefix(string(b), "event: "+ev.Type+"\n") {
			t.Fatalf("%s: %v", b, err)
		}
		switch ev.Type {
		case "content_block_start":
			if open >= 0 || ev.Index != blocks {
				t.Fatalf("block %d begins while %d is open", ev.Index, open)
			}
			open = ev.Index
			blocks++
		case "content_block_delta":
			if ev.Index != open {
				t.Fatalf("more of %d while %d is open", ev.Index, open)
			}
			input[open] += ev.Delta.Partial
		case "content_block_stop":
			open = -1
		case "message_delta":
			if ev.Usage["input_tokens"] != 7 || ev.Usage["cache_read_input_tokens"] != 2 || ev.Usage["output_tokens"] != 4 {
				t.Errorf("usage %v", ev.Usage)
			}
		}
	}
	if blocks != 5 || input[2] != `{"x":1}` || input[3] != `{"y":2}` {
		t.Errorf("%d blocks, arguments %v", blocks, input)
	}
}

func FuzzParseRequest(f *testing.F) {
	f.Add([]byte(conversation))
	f.Add([]byte(`{"messages":[{"role":"user","content":null}]}`))
	f.Fuzz(func(t *testing.T, b []byte) {
		if req, err := ParseRequest(b); err == nil && len(req.Messages) == 0 {
			t.Error("read without messages")
		}
	})
}
