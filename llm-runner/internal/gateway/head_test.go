package gateway

import (
	"bytes"
	"encoding/json"
	"errors"
	"strings"
	"testing"

	"home.arpa/lab/llm-runner/internal/llm"
)

func TestReadHead(t *testing.T) {
	for _, c := range []struct {
		body  string
		model string
		wants string // s: stream, u: usage
		wrong string
	}{
		{body: `{"model":"a","stream":true,"stream_options":{"include_usage":true}}`, model: "a", wants: "su"},
		{body: ` { "model" : "a\u0062\"" } `, model: `ab"`},
		{body: `{"mod\u0065l":"a","\u0073tream":true}`, model: "a", wants: "s"},
		{body: `{"model":"a","model":"b","stream":true,"stream":false}`, model: "b"},
		{body: `{"messages":[{"model":"inner","stream":true}],"x":{"model":"y"}}`},
		{body: `{"model":null,"stream":null,"stream_options":null}`},
		{body: `{"Model":"a"}`},
		{body: `{}`},
		{body: `{"stream_options":{"include_usage":true,"include_usage":false}}`},
		{body: `{"model":1}`, wrong: "model must be a string"},
		{body: `{"stream":"true"}`, wrong: "stream must be true or false"},
		{body: `{"model":"` + strings.Repeat("a", 257) + `"}`, wrong: "longer than 256 bytes"},
		{body: `[]`, wrong: "must be a JSON object"},
		{body: `"model"`, wrong: "must be a JSON object"},
		{body: ``, wrong: "byte 0: the text ends too early"},
		{body: `{"model":"a"`, wrong: "byte 12: the text ends too early"},
		{body: `{"model":"a"}}`, wrong: "byte 13: nothing is expected"},
		{body: `{"model":"a",}`, wrong: "byte 13: a member's name is expected"},
		{body: `{"model" "a"}`, wrong: "byte 9: ':' is expected"},
		{body: `{"a":01}`, wrong: "byte 6: ',' or '}' is expected"},
		{body: `{"a":+1}`, wrong: "byte 5: a value is expected"},
		{body: `{"a":1.}`, wrong: "byte 7: a digit is expected"},
		{body: `{"a":trUe}`, wrong: "byte 7: true is expected"},
		{body: "{\"a\":\"x\ny\"}", wrong: "byte 7: control characters"},
		{body: `{"a":"\x"}`, wrong: "byte 6: this is no escape"},
		{body: strings.Repeat("[", 20_000), wrong: "byte 10000: nested too deep"},
	} {
		h, err := readHead([]byte(c.body))
		if c.wrong != "" {
			if err == nil || !strings.Contains(err.Error(), c.wrong) {
				t.Errorf("%.40s: error %v, want one that says %q", c.body, err, c.wrong)
			}
			continue
		}
		if err != nil || h.model != c.model || h.stream != strings.Contains(c.wants, "s") || h.usage != strings.Contains(c.wants, "u") {
			t.Errorf("%s: %+v, %v", c.body, h, err)
		}
	}
}

func TestRewriteChangesNothingElse(t *testing.T) {
	for _, c := range []struct {
		body  string
		model string
		usage bool
		want  string // "" the same
	}{
		{body: ` {"z":1.50, "model" : "a" ,"y":[ ]}`, model: "a"},
		{body: ` {"z":1.50, "model" : "a" ,"y":[ ]}`, model: `b"`, want: ` {"z":1.50, "model" : "b\"" ,"y":[ ]}`},
		{body: `{"model":"a","n":2,"model":"b"}`, model: "b"},
		{body: `{"model":"a","n":2,"model":"b"}`, model: "c", want: `{"model":"c","n":2,"model":"c"}`},
		{body: `{ }`, model: "a", want: `{"model":"a" }`},
		{body: `{ "n":1}`, model: "a", want: `{"model":"a", "n":1}`},
		{body: `{"model":null,"n":1}`, model: "a", want: `{"model":"a","n":1}`},
		{body: `{"stream":true}`, model: "a", usage: true, want: `{"model":"a","stream_options":{"include_usage":true},"stream":true}`},
		{body: `{"stream":true,"model":"a","stream_options":null}`, model: "b", usage: true, want: `{"stream":true,"model":"b","stream_options":{"include_usage":true}}`},
		{body: `{"stream_options":{ },"model":"a"}`, model: "a", usage: true, want: `{"stream_options":{"include_usage":true },"model":"a"}`},
		{body: `{"stream_options":{"x":1},"model":"a"}`, model: "b", usage: true, want: `{"stream_options":{"include_usage":true,"x":1},"model":"b"}`},
		{body: `{"model":"a","stream_options":{"include_usage": false ,"x":1}}`, model: "a", usage: true, want: `{"model":"a","stream_options":{"include_usage": true ,"x":1}}`},
	} {
		h, err := readHead([]byte(c.body))
		if err != nil {
			t.Fatal(c.body, err)
		}
		if c.want == "" {
			c.want = c.body
		}
		if got := string(h.rewrite([]byte(c.body), c.model, c.usage)); got != c.want {
			t.Errorf("%s\n got %s\nwant %s", c.body, got, c.want)
		}
	}
}

// FuzzReadHead compares the cursor with encoding/json: what is valid, what the keys hold, and what a rewrite leaves alone.
func FuzzReadHead(f *testing.F) {
	for _, s := range []string{
		`{"model":"a","stream":true,"stream_options":{"include_usage":true},"n":[1,-0.5e+3,{"a":null}]}`, `{"mod\u0065l":"\ud83d\ude00"}`,
		`{"model":"a","model":"b"}`, `[]`, `{"a":"\"}`, "{\"model\":\"\xff\"}", `{"stream_options":{},"stream":true}`, ` {} `, `{"a":1}{`,
	} {
		f.Add([]byte(s))
	}
	f.Fuzz(func(t *testing.T, body []byte) {
		h, err := readHead(body)
		var syntax *syntaxError
		if valid := json.Valid(body); valid == errors.As(err, &syntax) {
			t.Fatalf("valid %v, but %v", valid, err)
		}
		if err != nil {
			return
		}
		var want map[string]json.RawMessage
		if err := json.Unmarshal(body, &want); err != nil {
			t.Fatal(err)
		}
		var model string
		_ = json.Unmarshal(want["model"], &model)
		if h.model != model || h.stream != (string(want["stream"]) == "true") {
			t.Fatalf("%+v, want model %q, stream %s", h, model, want["stream"])
		}
		var options map[string]json.RawMessage
		_ = json.Unmarshal(want["stream_options"], &options)
		if h.usage != (string(options["include_usage"]) == "true") {
			t.Fatalf("%+v, want include_usage %s", h, options["include_usage"])
		}
		if !h.stream {
			return
		}
		var got map[string]json.RawMessage
		if err := json.Unmarshal(h.rewrite(body, "ren<amed\n", true), &got); err != nil {
			t.Fatal(err)
		}
		var renamed string
		_ = json.Unmarshal(got["model"], &renamed)
		options = nil
		_ = json.Unmarshal(got["stream_options"], &options)
		if renamed != "ren<amed\n" || string(options["include_usage"]) != "true" {
			t.Fatalf("rewritten: %s", h.rewrite(body, "ren<amed\n", true))
		}
		for k, v := range want {
			if k != "model" && k != "stream_options" && !bytes.Equal(v, got[k]) {
				t.Fatalf("%q was %s and is %s", k, v, got[k])
			}
		}
	})
}

// FuzzWatch compares what is read along with encoding/json.
func FuzzWatch(f *testing.F) {
	for _, s := range []string{
		`{"choices":[{"index":0,"delta":{},"finish_reason":"stop"}],"usage":{"prompt_tokens":1,"completion_tokens":2}}`,
		`{"choices":[],"x_groq":{"usage":{"prompt_tokens":1,"prompt_tokens_details":{"cached_tokens":3}}}}`, `{"error":{"message":"x"}}`, `{"choices":null}`,
	} {
		f.Add([]byte(s))
	}
	f.Fuzz(func(t *testing.T, text []byte) {
		var w watch
		err := w.object(text)
		object := json.Valid(text) && bytes.TrimLeft(text, " \t\r\n")[0] == '{'
		if object != (err == nil) {
			t.Fatalf("an object: %v, but %v", object, err)
		}
		if err != nil {
			return
		}
		var want map[string]json.RawMessage
		_ = json.Unmarshal(text, &want)
		var usage map[string]json.RawMessage
		if json.Unmarshal(want["usage"], &usage) == nil && usage != nil && !w.counted {
			t.Fatal("usage was not seen")
		}
		var choices []json.RawMessage
		if json.Unmarshal(want["choices"], &choices) == nil && bytes.Count(text, []byte("hoices")) == 1 && len(choices) != w.choices {
			t.Fatalf("%d choices, want %d", w.choices, len(choices))
		}
	})
}

func TestReadingAlongDoesNotAllocate(t *testing.T) {
	text := []byte(`{"id":"c","object":"chat.completion.chunk","choices":[{"index":0,"delta":{"content":"hel\nlo"},"finish_reason":null}],"usage":{"prompt_tokens":12,"completion_tokens_details":{"reasoning_tokens":7}}}`)
	var w watch
	if n := testing.AllocsPerRun(100, func() {
		if err := w.object(text); err != nil {
			t.Fatal(err)
		}
	}); n != 0 {
		t.Errorf("%v allocations for a chunk", n)
	}
	if w.usage.Input != llm.Known(12) || w.usage.Thinking != llm.Known(7) || w.usage.Output != (llm.Count{}) {
		t.Errorf("usage %+v: what is not told is unknown", w.usage)
	}
	body := []byte(`{"messages":[{"role":"user","content":"hello"}],"model":"a","stream":true}`)
	if n := testing.AllocsPerRun(100, func() { _, _ = readHead(body) }); n > 1 { // the model's name
		t.Errorf("%v allocations for a head", n)
	}
}

func BenchmarkReadHead(b *testing.B) {
	for name, text := range map[string]string{"1KB": strings.Repeat("Hello, this is\\na line. ", 42), "image1MB": strings.Repeat("abcdefgh", 1<<17)} {
		body := []byte(`{"messages":[{"role":"user","content":"` + text + `"}],"model":"a","stream":true}`)
		b.Run(name, func(b *testing.B) {
			b.SetBytes(int64(len(body)))
			b.ReportAllocs()
			for b.Loop() {
				_, _ = readHead(body)
			}
		})
	}
}
