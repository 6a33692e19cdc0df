package wire_test

import (
	"errors"
	"fmt"
	"math/rand/v2"
	"reflect"
	"strings"
	"testing"

	"home.arpa/lab/llm-runner/internal/llm"
	"home.arpa/lab/llm-runner/internal/provider/openai/wire"
)

// decode adds up the chunks of a stream.
func decode(t testing.TB, chunks ...string) (llm.Answer, error) {
	t.Helper()
	var d wire.Decoder
	var a llm.Accumulator
	for _, c := range chunks {
		events, err := d.Add([]byte(c))
		for _, ev := range events {
			a.Add(ev)
		}
		if err != nil {
			return a.Answer(), err
		}
	}
	a.Add(llm.Event{Finish: d.Finish()})
	return a.Answer(), nil
}

func text(s string) llm.Part { return llm.Part{Text: s} }

func call(id, name, args string) llm.Part {
	return llm.Part{Call: &llm.ToolCall{ID: id, Name: name, Arguments: args}}
}

// chunk is a chunk with one delta.
func chunk(delta string) string { return `{"choices":[{"index":0,"delta":` + delta + `}]}` }

func calls(list string) string { return chunk(`{"tool_calls":[` + list + `]}`) }

const stop = `{"choices":[{"index":0,"delta":{},"finish_reason":"stop"}]}`

func TestDecoderReadsAndRepairs(t *testing.T) {
	for _, tt := range []struct {
		name   string
		chunks []string
		want   []llm.Part
		finish llm.Finish
		usage  llm.Usage
	}{
		{"text, and usage in a chunk of its own",
			[]string{chunk(`{"role":"assistant","content":""}`), chunk(`{"content":"a"}`), chunk(`{"content":"b"}`), stop, `{"choices":[],"usage":{"prompt_tokens":3,"completion_tokens":0,"prompt_tokens_details":{"cached_tokens":2},"completion_tokens_details":{"reasoning_tokens":1}}}`},
			[]llm.Part{text("ab")}, llm.FinishStop, llm.Usage{Input: llm.Known(3), Output: llm.Known(0), CachedInput: llm.Known(2), Thinking: llm.Known(1)}},
		{"usage on the last chunk that has choices",
			[]string{chunk(`{"content":"a"}`), `{"choices":[{"index":0,"delta":{"content":"b"},"finish_reason":"stop"}],"usage":{"prompt_tokens":3,"completion_tokens":2}}`},
			[]llm.Part{text("ab")}, llm.FinishStop, llm.Usage{Input: llm.Known(3), Output: llm.Known(2)}},
		{"Groq's usage",
			[]string{`{"x_groq":{"id":"r"},"choices":[{"index":0,"delta":{"content":"a"}}]}`, `{"choices":[{"index":0,"delta":{},"finish_reason":"stop"}],"x_groq":{"usage":{"prompt_tokens":3,"completion_tokens":2,"queue_time":0.1}}}`},
			[]llm.Part{text("a")}, llm.FinishStop, llm.Usage{Input: llm.Known(3), Output: llm.Known(2)}},
		{"usage that is null or empty is unknown",
			[]string{chunk(`{"content":"a"}`), `{"choices":[{"index":0,"delta":{},"finish_reason":"length"}],"usage":null}`, `{"choices":[],"usage":{}}`},
			[]llm.Part{text("a")}, llm.FinishLength, llm.Usage{}},
		{"reasoning under both names, once",
			[]string{chunk(`{"reasoning":"a","reasoning_content":"a"}`), chunk(`{"reasoning":"b"}`), chunk(`{"reasoning_content":"c","content":null}`), chunk(`{"content":"d"}`), stop},
			[]llm.Part{{Thinking: &llm.Thinking{Text: "abc"}}, text("d")}, llm.FinishStop, llm.Usage{}},
		{"content as parts", []string{chunk(`{"content":[{"type":"text","text":"a"},{"type":"text","text":"b"}]}`), stop}, []llm.Part{text("ab")}, llm.FinishStop, llm.Usage{}},
		{"a refusal", []string{chunk(`{"refusal":"I can"}`), chunk(`{"refusal":"not"}`), stop}, []llm.Part{text("I cannot")}, llm.FinishRefusal, llm.Usage{}},
		{"a content filter", []string{chunk(`{"content":"a"}`), `{"choices":[{"index":0,"delta":{},"finish_reason":"content_filter"}]}`}, []llm.Part{text("a")}, llm.FinishRefusal, llm.Usage{}},
		{"parallel calls, interleaved",
			[]string{calls(`{"index":0,"id":"x","function":{"name":"f","arguments":""}}`), calls(`{"index":1,"id":"y","function":{"name":"g","arguments":"{\"b\""}}`),
				calls(`{"index":0,"function":{"arguments":"{\"a\""}}`), calls(`{"index":1,"function":{"arguments":":2}"}},{"index":0,"function":{"arguments":":1}"}}`), stop},
			[]llm.Part{call("x", "f", `{"a":1}`), call("y", "g", `{"b":2}`)}, llm.FinishTools, llm.Usage{}},
		{"calls without index",
			[]string{calls(`{"id":"x","function":{"name":"f","arguments":"{\"a\""}}`), calls(`{"function":{"arguments":":1}"}}`), calls(`{"id":"y","function":{"name":"g","arguments":"{}"}}`), calls(`{"id":"x","function":{"arguments":" "}}`), stop},
			[]llm.Part{call("x", "f", `{"a":1} `), call("y", "g", "{}")}, llm.FinishTools, llm.Usage{}},
		{"calls without id",
			[]string{calls(`{"index":0,"function":{"name":"f","arguments":"{"}},{"index":1,"function":{"name":"g","arguments":"{}"}}`), calls(`{"index":0,"function":{"arguments":"}"}}`), stop},
			[]llm.Part{call("call_0", "f", "{}"), call("call_1", "g", "{}")}, llm.FinishTools, llm.Usage{}},
		{"calls without index or id",
			[]string{calls(`{"function":{"name":"f","arguments":"{}"}}`), calls(`{"function":{"name":"f","arguments":"{}"}}`), stop},
			[]llm.Part{call("call_0", "f", "{}"), call("call_1", "f", "{}")}, llm.FinishTools, llm.Usage{}},
		{"every call is number 0, with ids",
			[]string{calls(`{"index":0,"id":"x","function":{"name":"f","arguments":"{}"}}`), calls(`{"index":0,"id":"y","function":{"name":"g","arguments":"{}"}}`), stop},
			[]llm.Part{call("x", "f", "{}"), call("y", "g", "{}")}, llm.FinishTools, llm.Usage{}},
		{"every call is number 0, without ids",
			[]string{calls(`{"index":0,"function":{"name":"f","arguments":"{}"}}`), calls(`{"index":0,"function":{"name":"g","arguments":"{}"}}`), stop},
			[]llm.Part{call("call_0", "f", "{}"), call("call_1", "g", "{}")}, llm.FinishTools, llm.Usage{}},
		{"id and name in every delta",
			[]string{calls(`{"index":0,"id":"x","function":{"name":"f","arguments":"{"}}`), calls(`{"index":0,"id":"x","function":{"name":"f","arguments":"}"}}`), stop},
			[]llm.Part{call("x", "f", "{}")}, llm.FinishTools, llm.Usage{}},
		{"an id that comes late",
			[]string{calls(`{"index":0,"function":{"name":"f"}}`), calls(`{"index":0,"id":"x","function":{"arguments":"{}"}}`), stop},
			[]llm.Part{call("call_0", "f", "{}")}, llm.FinishTools, llm.Usage{}},
		{"arguments that are not in quotes", []string{calls(`{"index":0,"id":"x","function":{"name":"f","arguments":{"a":1}}}`), stop}, []llm.Part{call("x", "f", `{"a":1}`)}, llm.FinishTools, llm.Usage{}},
		{"Gemini's signature",
			[]string{calls(`{"index":0,"id":"x","function":{"name":"f","arguments":"{}"},"extra_content":{"google":{"thought_signature":"seal"}}}`), stop},
			[]llm.Part{{Call: &llm.ToolCall{ID: "x", Name: "f", Arguments: "{}", Signature: "seal"}}}, llm.FinishTools, llm.Usage{}},
		{"other choices are not mixed in", []string{`{"choices":[{"index":1,"delta":{"content":"x"}},{"index":0,"delta":{"content":"a"}}]}`, stop}, []llm.Part{text("a")}, llm.FinishStop, llm.Usage{}},
		{"a stream that broke off", []string{chunk(`{"content":"a"}`)}, []llm.Part{text("a")}, "", llm.Usage{}},
	} {
		got, err := decode(t, tt.chunks...)
		if err != nil || !reflect.DeepEqual(got.Message.Parts, tt.want) || got.Finish != tt.finish || got.Usage != tt.usage {
			t.Errorf("%s:\ngot  %+v, %q, %+v, %v\nwant %+v, %q, %+v", tt.name, show(got.Message.Parts), got.Finish, got.Usage, err, show(tt.want), tt.finish, tt.usage)
		}
	}
}

func show(parts []llm.Part) string {
	var s strings.Builder
	for _, p := range parts {
		switch {
		case p.Call != nil:
			fmt.Fprintf(&s, "%+v ", *p.Call)
		case p.Thinking != nil:
			fmt.Fprintf(&s, "(%s) ", p.Thinking.Text)
		default:
			fmt.Fprintf(&s, "%q ", p.Text)
		}
	}
	return s.String()
}

func TestDecoderTellsErrorsFromAnswers(t *testing.T) {
	for body, want := range map[string]string{
		`{"error":{"message":"slow down","type":"tokens","code":"rate_limit_exceeded"}}`: "slow down",
		`{"error":"gone"}`:                     "gone",
		`{"error":{"message":"m","code":502}}`: "m",
		`{"choices":[{"index":0,"delta":{}}],"x_groq":{"error":"over capacity"}}`: "over capacity",
		`{"detail":"Not Found"}`: "Not Found",
		`{"message":"no route"}`: "no route",
		`{"choices":[{"index":0,"delta":{},"finish_reason":"error"}]}`: "the answer ended with an error",
	} {
		_, err := decode(t, body)
		var e *wire.Error
		if !errors.As(err, &e) || e.Message != want {
			t.Errorf("%s: got %v", body, err)
		}
	}
	var e *wire.Error
	if _, err := decode(t, `{"choices":`); err == nil || errors.As(err, &e) {
		t.Errorf("half a chunk: %v", err)
	}
	if got := wire.ParseError([]byte(`{"choices":[]}`)); got != nil {
		t.Errorf("an answer was read as the error %+v", got)
	}
}

func TestErrorsAreReadBack(t *testing.T) {
	want := wire.Error{Message: "no such <model>", Type: "invalid_request_error", Code: "model_not_found"}
	b := wire.AppendError(nil, want)
	got := wire.ParseError(b)
	if got == nil || got.Message != want.Message || got.Type != want.Type || got.Code != want.Code || got.Param != "" {
		t.Errorf("got %+v from %s", got, b)
	}
	if !strings.Contains(string(b), `"param":null`) {
		t.Errorf("written as %s", b)
	}
}

// answerOf makes up an answer in the order in which the dialect can tell it.
func answerOf(rng *rand.Rand) (llm.Answer, []llm.Event) {
	var events []llm.Event
	words := []string{"a", " b", "<c>", "\n", "\U0001F600", `"`}
	word := func() string { return words[rng.IntN(len(words))] }
	for range rng.IntN(3) {
		events = append(events, llm.Event{Thinking: word()})
	}
	for range rng.IntN(4) {
		events = append(events, llm.Event{Text: word()})
	}
	n := rng.IntN(3)
	for i := range n {
		events = append(events, llm.Event{Call: &llm.CallDelta{Index: i, ID: fmt.Sprint("id", i), Name: "f", Signature: []string{"", "seal"}[rng.IntN(2)]}})
	}
	for range 2 * n { // arguments of parallel calls, interleaved
		events = append(events, llm.Event{Call: &llm.CallDelta{Index: rng.IntN(n), Arguments: "x"}})
	}
	if rng.IntN(2) == 0 {
		events = append(events, llm.Event{Usage: &llm.Usage{Input: llm.Known(rng.Int64N(9)), Output: llm.Known(rng.Int64N(9))}})
	}
	finish := llm.FinishStop
	if n > 0 {
		finish = llm.FinishTools
	}
	events = append(events, llm.Event{Finish: finish})
	var a llm.Accumulator
	for _, ev := range events {
		a.Add(ev)
	}
	return a.Answer(), events
}

func TestStreamAndWholeAnswerAgree(t *testing.T) {
	rng := rand.New(rand.NewPCG(1, 2))
	meta := wire.Meta{ID: "chatcmpl-1", Created: 1, Model: "m"}
	for range 500 {
		want, events := answerOf(rng)
		whole, err := wire.ParseResponse(wire.AppendResponse(nil, want, meta))
		if err != nil {
			t.Fatal(err)
		}
		w := wire.NewChunkWriter(meta, true)
		var chunks [][]byte
		for _, ev := range events {
			chunks = w.Append(chunks, ev)
		}
		chunks = w.End(chunks)
		var lines []string
		for _, c := range chunks {
			lines = append(lines, string(c))
		}
		streamed, err := decode(t, lines...)
		if err != nil {
			t.Fatal(err)
		}
		for name, got := range map[string]llm.Answer{"whole": whole, "streamed": streamed} {
			if show(got.Message.Parts) != show(want.Message.Parts) || got.Finish != want.Finish || got.Usage != want.Usage {
				t.Fatalf("%s:\ngot  %s %+v\nwant %s %+v\n%s", name, show(got.Message.Parts), got.Usage, show(want.Message.Parts), want.Usage, strings.Join(lines, "\n"))
			}
		}
	}
}

func TestChunksLookLikeOpenAIs(t *testing.T) {
	w := wire.NewChunkWriter(wire.Meta{ID: "chatcmpl-1", Created: 7, Model: "m"}, true)
	var got []string
	for _, ev := range []llm.Event{
		{Limits: []llm.Limit{{}}}, {Thinking: "hm"}, {Text: "a&b"}, {Call: &llm.CallDelta{Index: 0, ID: "c", Name: "f"}}, {Call: &llm.CallDelta{Index: 0, Arguments: "{}"}},
		{Usage: &llm.Usage{Input: llm.Known(1), Output: llm.Known(2)}}, {Finish: llm.FinishTools},
	} {
		for _, c := range w.Append(nil, ev) {
			got = append(got, string(c))
		}
	}
	for _, c := range w.End(nil) {
		got = append(got, string(c))
	}
	const head = `{"id":"chatcmpl-1","object":"chat.completion.chunk","created":7,"model":"m","choices":[`
	want := []string{
		head + `{"index":0,"delta":{"role":"assistant","content":"","reasoning_content":"hm"},"finish_reason":null}]}`,
		head + `{"index":0,"delta":{"content":"a&b"},"finish_reason":null}]}`,
		head + `{"index":0,"delta":{"tool_calls":[{"index":0,"id":"c","type":"function","function":{"name":"f","arguments":""}}]},"finish_reason":null}]}`,
		head + `{"index":0,"delta":{"tool_calls":[{"index":0,"function":{"arguments":"{}"}}]},"finish_reason":null}]}`,
		head + `{"index":0,"delta":{},"finish_reason":"tool_calls"}]}`,
		head + `],"usage":{"prompt_tokens":1,"completion_tokens":2,"total_tokens":3}}`,
	}
	if !reflect.DeepEqual(got, want) {
		t.Errorf("got\n%s\nwant\n%s", strings.Join(got, "\n"), strings.Join(want, "\n"))
	}
	quiet := wire.NewChunkWriter(wire.Meta{}, true)
	quiet.Append(nil, llm.Event{Text: "a"})
	if got := quiet.End(nil); got != nil {
		t.Errorf("unknown usage is told as %s", got)
	}
}

func TestEmbeddingsInBothForms(t *testing.T) {
	want := llm.Embeddings{Vectors: [][]float32{{1, -0.5}, {0.25, 3e-8}}, Usage: llm.Usage{Input: llm.Known(5)}}
	for _, inBase64 := range []bool{false, true} {
		got, err := wire.ParseEmbeddings(wire.AppendEmbeddings(nil, want, "m", inBase64), 2)
		if err != nil || !reflect.DeepEqual(got, want) {
			t.Errorf("base64 %v: got %+v, %v", inBase64, got, err)
		}
	}
	for body, want := range map[string]string{
		`{"data":[{"index":0,"embedding":[1]}]}`:                              "1 vectors came for 2 texts",
		`{"data":[{"index":0,"embedding":[1]},{"index":0,"embedding":[1]}]}`:  "out of place",
		`{"data":[{"index":0,"embedding":[1]},{"index":9,"embedding":[1]}]}`:  "out of place",
		`{"data":[{"index":0,"embedding":[]},{"index":1,"embedding":[1]}]}`:   "out of place or empty",
		`{"data":[{"index":0,"embedding":"AAA"},{"index":1,"embedding":""}]}`: "not base64",
		`{"error":{"message":"no"}}`:                                          "no",
	} {
		if _, err := wire.ParseEmbeddings([]byte(body), 2); err == nil || !strings.Contains(err.Error(), want) {
			t.Errorf("%s: got %v", body, err)
		}
	}
	req := llm.EmbedRequest{Model: "m", Texts: []string{"a", "b"}, Dimensions: 3}
	got, inBase64, err := wire.ParseEmbedRequest(wire.MarshalEmbedRequest(req))
	if err != nil || inBase64 || !reflect.DeepEqual(got, req) {
		t.Errorf("got %+v, %v", got, err)
	}
	for body, want := range map[string]string{
		`{"input":"a"}`:               "model: is missing",
		`{"model":"m"}`:               "input: is missing",
		`{"model":"m","input":[1,2]}`: "input: must be",
		`{"model":"m","input":[]}`:    "input: must be",
		`{"model":"m","input":"a","encoding_format":"decimal"}`: "encoding_format:",
		`{"model":"m","input":"a","dimensions":-1}`:             "dimensions:",
	} {
		if _, _, err := wire.ParseEmbedRequest([]byte(body)); err == nil || !strings.HasPrefix(err.Error(), want) {
			t.Errorf("%s: got %v", body, err)
		}
	}
}

func FuzzDecoder(f *testing.F) {
	f.Add([]byte(calls(`{"index":0,"id":"x","function":{"name":"f","arguments":"{}"}}`) + "\n" + stop))
	f.Add([]byte(`{"choices":[{"message":{"content":["x"]}}],"usage":{"prompt_tokens":1}}`))
	f.Fuzz(func(t *testing.T, b []byte) {
		var d wire.Decoder
		for line := range strings.SplitSeq(string(b), "\n") {
			events, err := d.Add([]byte(line))
			for _, ev := range events {
				if ev.Finish != "" || ev.Call != nil && ev.Call.Index < 0 {
					t.Fatalf("event %+v", ev)
				}
			}
			if err != nil && err.Error() == "" && !strings.Contains(line, "error") {
				t.Fatalf("%q: an error that says nothing", line)
			}
		}
	})
}
