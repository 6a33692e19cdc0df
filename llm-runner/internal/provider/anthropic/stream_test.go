package anthropic

import (
	"bytes"
	"io"
	"os"
	"path/filepath"
	"reflect"
	"strings"
	"testing"
	"testing/iotest"

	"home.arpa/lab/llm-runner/internal/llm"
)

func collect(body io.Reader) (llm.Answer, error) { return llm.Collect(read(body)) }

func fixture(t testing.TB, name string) []byte {
	t.Helper()
	b, err := os.ReadFile(filepath.Join("testdata", name))
	if err != nil {
		t.Fatal(err)
	}
	return b
}

func usageOf(in, out int64) llm.Usage { return llm.Usage{Input: llm.Known(in), Output: llm.Known(out)} }

func says(parts ...llm.Part) llm.Message { return llm.Message{Role: llm.Assistant, Parts: parts} }

// The fixtures are the examples of platform.claude.com/docs/en/build-with-claude/streaming, shortened.
var streams = []struct {
	file string
	want llm.Answer
}{
	{"text.sse", llm.Answer{Message: says(llm.Part{Text: "Hello!"}), Usage: usageOf(25, 15), Finish: llm.FinishStop}},
	{"tool.sse", llm.Answer{
		Message: says(llm.Part{Text: "Okay, let's check."}, llm.Part{Call: &llm.ToolCall{ID: "toolu_01T1x1fJ34qAmk2tNTrN7Up6", Name: "get_weather", Arguments: `{"location": "San Francisco, CA", "unit": "fahrenheit"}`}}),
		Usage:   usageOf(472, 89), Finish: llm.FinishTools,
	}},
	{"thinking.sse", llm.Answer{
		Message: says(llm.Part{Thinking: &llm.Thinking{Text: "I need the GCD. 27 * 453", Signature: "EqQBCgIYAhIM1gbcDa9GJwZA2b3h"}}, llm.Part{Text: "27 * 453 = 12,231"}),
		Usage:   llm.Usage{Input: llm.Known(1310), Output: llm.Known(200), CachedInput: llm.Known(1200), CacheWrite: llm.Known(100), Thinking: llm.Known(120)}, Finish: llm.FinishStop,
	}},
	{"server_tool.sse", llm.Answer{ // web search: its blocks and deltas are not ours
		Message: says(llm.Part{Text: "I'll check.Sunny."}), Usage: usageOf(10682, 510), Finish: llm.FinishStop,
	}},
	{"redacted_bare.sse", llm.Answer{ // no event lines, two thinking blocks, a call without arguments, an unknown event
		Message: says(llm.Part{Thinking: &llm.Thinking{Redacted: "EmwKAhgB"}}, llm.Part{Thinking: &llm.Thinking{Signature: "Eq1"}}, llm.Part{Call: &llm.ToolCall{ID: "toolu_1", Name: "now", Arguments: "{}"}}),
		Usage:   usageOf(7, 9), Finish: llm.FinishTools,
	}},
}

func TestStreamsOfTheDocumentation(t *testing.T) {
	for _, tt := range streams {
		t.Run(tt.file, func(t *testing.T) {
			body := fixture(t, tt.file)
			tt.want.Usage = told(tt.want.Usage)
			for name, r := range map[string]io.Reader{
				"whole": bytes.NewReader(body), "byte by byte": iotest.OneByteReader(bytes.NewReader(body)),
				"CRLF": strings.NewReader(strings.ReplaceAll(string(body), "\n", "\r\n")),
			} {
				got, err := collect(r)
				got.Usage = told(got.Usage)
				if err != nil || !reflect.DeepEqual(got, tt.want) {
					t.Errorf("%s: %v\ngot  %+v\nwant %+v", name, err, got, tt.want)
				}
			}
		})
	}
}

// told makes cached counts of zero unknown, for some of the documentation's examples tell them and some do not.
func told(u llm.Usage) llm.Usage {
	for _, c := range []*llm.Count{&u.CachedInput, &u.CacheWrite} {
		if c.Or(0) == 0 {
			*c = llm.Count{}
		}
	}
	return u
}

// A stream that is cut anywhere before its stop reason is an error; one that is cut after it is whole.
func TestACutStreamIsNeverAnAnswer(t *testing.T) {
	for _, tt := range streams {
		body := string(fixture(t, tt.file))
		stop := strings.Index(body, `"stop_reason":"`+map[llm.Finish]string{llm.FinishStop: "end_turn", llm.FinishTools: "tool_use"}[tt.want.Finish])
		told := stop + strings.Index(body[stop:], "\n\n") + 2
		for cut := range len(body) {
			got, err := collect(strings.NewReader(body[:cut]))
			if whole := err == nil && got.Finish == tt.want.Finish; whole != (cut >= told) {
				t.Fatalf("%s cut at %d of %d: %q, %v", tt.file, cut, len(body), got.Finish, err)
			}
		}
	}
}

func TestErrorsUnderAnOKStatus(t *testing.T) {
	const start = "event: message_start\ndata: {\"type\":\"message_start\",\"message\":{\"usage\":{\"input_tokens\":1}}}\n\n"
	for _, tt := range []struct {
		name, body string
		kind       llm.Kind
		says       string
	}{
		{"overloaded", start + "event: error\ndata: {\"type\":\"error\",\"error\":{\"type\":\"overloaded_error\",\"message\":\"Overloaded\"}}\n\n", llm.Overload, "Overloaded"},
		{"without an event line", start + "data: {\"type\":\"error\",\"error\":{\"type\":\"rate_limit_error\",\"message\":\"slow\"}}\n\n", llm.Quota, "slow"},
		{"internal", "event: error\ndata: {\"type\":\"error\",\"error\":{\"type\":\"api_error\",\"message\":\"Internal server error\"}}\n\n", llm.Unavailable, "Internal server error"},
		{"an error that says nothing", "event: error\ndata: {}\n\n", llm.Unavailable, "neither"},
		{"malformed", start + "event: content_block_delta\ndata: {\"type\":\"content_b\n\n", llm.Unavailable, "not JSON"},
		{"nothing", "", llm.Unavailable, "broke off"},
		{"stopped without a reason", start + "event: message_stop\ndata: {\"type\":\"message_stop\"}\n\n", llm.Unavailable, "broke off"},
		{"JSON error", `{"type":"error","error":{"type":"overloaded_error","message":"Overloaded"}}`, llm.Overload, "Overloaded"},
		{"other JSON", `{"hello":1}`, llm.Unavailable, "neither"},
		{"half a JSON", `{"type":"message","content":[`, llm.Unavailable, "neither"},
	} {
		t.Run(tt.name, func(t *testing.T) {
			_, err := collect(strings.NewReader(tt.body))
			if err == nil || llm.KindOf(err) != tt.kind || !strings.Contains(err.Error(), tt.says) {
				t.Errorf("got %v, want %s: %s", err, tt.kind, tt.says)
			}
		})
	}
	if _, err := collect(strings.NewReader("<html></html>")); err == nil || !strings.Contains(err.Error(), "web page") {
		t.Errorf("a web page: %v", err)
	}
}

func TestAMessageInOnePieceIsTheSameAsItsStream(t *testing.T) {
	body := `{"id":"msg_1","type":"message","role":"assistant","model":"m","content":[{"type":"thinking","thinking":"hm","signature":"Eq"},{"type":"redacted_thinking","data":"Em"},
		{"type":"text","text":"so"},{"type":"tool_use","id":"t1","name":"f","input":{"a":[1, 2]}}],"stop_reason":"tool_use","stop_sequence":null,
		"usage":{"input_tokens":3,"output_tokens":4,"cache_read_input_tokens":2}}`
	want := llm.Answer{
		Message: says(llm.Part{Thinking: &llm.Thinking{Text: "hm", Signature: "Eq"}}, llm.Part{Thinking: &llm.Thinking{Redacted: "Em"}}, llm.Part{Text: "so"}, llm.Part{Call: &llm.ToolCall{ID: "t1", Name: "f", Arguments: `{"a":[1, 2]}`}}),
		Usage:   llm.Usage{Input: llm.Known(5), Output: llm.Known(4), CachedInput: llm.Known(2)}, Finish: llm.FinishTools,
	}
	if got, err := collect(strings.NewReader(body)); err != nil || !reflect.DeepEqual(got, want) {
		t.Errorf("%v\ngot  %+v\nwant %+v", err, got, want)
	}
}

func TestFinish(t *testing.T) {
	for stop, want := range map[string]llm.Finish{
		"": "", "end_turn": llm.FinishStop, "stop_sequence": llm.FinishStop, "pause_turn": llm.FinishStop, "max_tokens": llm.FinishLength,
		"model_context_window_exceeded": llm.FinishLength, "tool_use": llm.FinishTools, "refusal": llm.FinishRefusal, "something_new": llm.FinishStop,
	} {
		if got := finish(stop); got != want {
			t.Errorf("%q is %q, want %q", stop, got, want)
		}
	}
}

// Whatever comes, the reader ends with one finish or one error, and says the same however the bytes arrive.
func FuzzRead(f *testing.F) {
	for _, tt := range streams {
		f.Add(fixture(f, tt.file))
	}
	f.Add([]byte(`{"type":"message","content":[{"type":"tool_use","id":"t1","name":"f","input":{}}],"stop_reason":"tool_use"}`))
	f.Add([]byte("event: error\ndata: {\"type\":\"error\",\"error\":{\"type\":\"overloaded_error\"}}\n\n"))
	f.Fuzz(func(t *testing.T, body []byte) {
		got, err := collect(bytes.NewReader(body))
		if (err == nil) != (got.Finish != "") {
			t.Fatalf("finish %q with error %v", got.Finish, err)
		}
		again, err2 := collect(iotest.OneByteReader(bytes.NewReader(body)))
		if !reflect.DeepEqual(got, again) || (err == nil) != (err2 == nil) {
			t.Fatalf("at once  %+v, %v\nin bytes %+v, %v", got, err, again, err2)
		}
	})
}

func BenchmarkDecoder(b *testing.B) {
	delta := []byte(`{"type":"content_block_delta","index":0,"delta":{"type":"text_delta","text":" word"}}`)
	b.SetBytes(int64(len(delta)))
	for b.Loop() {
		var d decoder
		if _, said, err := d.add("content_block_delta", delta); !said || err != nil {
			b.Fatal(said, err)
		}
	}
}
