package gemini

import (
	"bytes"
	"io"
	"os"
	"path/filepath"
	"reflect"
	"regexp"
	"strings"
	"testing"
	"testing/iotest"

	"home.arpa/lab/llm-runner/internal/llm"
)

func collect(body io.Reader) (llm.Answer, error) {
	a, err := llm.Collect(read(body))
	for i, p := range a.Message.Parts {
		if p.Call != nil && madeID.MatchString(p.Call.ID) {
			a.Message.Parts[i].Call.ID = "made"
		}
	}
	return a, err
}

var madeID = regexp.MustCompile(`^call_[A-Z0-9]{20}$`)

func fixture(t testing.TB, name string) []byte {
	t.Helper()
	b, err := os.ReadFile(filepath.Join("testdata", name))
	if err != nil {
		t.Fatal(err)
	}
	return b
}

func says(parts ...llm.Part) llm.Message { return llm.Message{Role: llm.Assistant, Parts: parts} }

// The fixtures have the shapes of ai.google.dev/gemini-api/docs (Text generation, Thinking, Thought signatures, Function
// calling) and of recorded streams in public repositories' tests.
var streams = []struct {
	file string
	want llm.Answer
}{
	{"text.sse", llm.Answer{ // the last chunk has a signature and no text
		Message: says(llm.Part{Text: "Hello there."}, llm.Part{Thinking: &llm.Thinking{Signature: "EpoBCpcBAXLI2nx="}}),
		Usage:   llm.Usage{Input: llm.Known(4), Output: llm.Known(25), CachedInput: llm.Known(2), Thinking: llm.Known(22)}, Finish: llm.FinishStop,
	}},
	{"calls.sse", llm.Answer{ // thoughts, then parallel calls, of which the first is signed; STOP
		Message: says(llm.Part{Thinking: &llm.Thinking{Text: "**Checking** both."}},
			llm.Part{Call: &llm.ToolCall{ID: "made", Name: "weather", Arguments: `{"city": "Paris"}`, Signature: "CiQB4/H/Xg=="}},
			llm.Part{Call: &llm.ToolCall{ID: "own1", Name: "weather", Arguments: `{"city": "London"}`}},
			llm.Part{Call: &llm.ToolCall{ID: "made", Name: "now", Arguments: `{}`}}),
		Usage: llm.Usage{Input: llm.Known(70), Output: llm.Known(60), Thinking: llm.Known(28)}, Finish: llm.FinishTools,
	}},
	{"blocked.sse", llm.Answer{Message: llm.Message{Role: llm.Assistant}, Usage: llm.Usage{Input: llm.Known(9)}, Finish: llm.FinishRefusal}},
	{"array.json", llm.Answer{Message: says(llm.Part{Text: "Hello there."}), Usage: llm.Usage{Input: llm.Known(4), Output: llm.Known(3)}, Finish: llm.FinishLength}},
	{"whole.json", llm.Answer{Message: says(llm.Part{Text: "Hello there."}), Usage: llm.Usage{Input: llm.Known(4), Output: llm.Known(3)}, Finish: llm.FinishRefusal}},
}

func TestStreamsOfTheDocumentation(t *testing.T) {
	for _, tt := range streams {
		t.Run(tt.file, func(t *testing.T) {
			body := fixture(t, tt.file)
			for name, r := range map[string]io.Reader{
				"whole": bytes.NewReader(body), "byte by byte": iotest.OneByteReader(bytes.NewReader(body)),
				"CRLF": strings.NewReader(strings.ReplaceAll(string(body), "\n", "\r\n")),
			} {
				if got, err := collect(r); err != nil || !reflect.DeepEqual(got, tt.want) {
					t.Errorf("%s: %v\ngot  %+v\nwant %+v", name, err, got, tt.want)
				}
			}
		})
	}
}

// A stream that is cut anywhere before its finish reason has come is an error; one that is cut after it is whole.
func TestACutStreamIsNeverAnAnswer(t *testing.T) {
	for _, tt := range streams {
		if !strings.HasSuffix(tt.file, ".sse") {
			continue
		}
		body := string(fixture(t, tt.file))
		reason := max(strings.LastIndex(body, `"finishReason"`), strings.LastIndex(body, `"blockReason"`))
		told := reason + strings.Index(body[reason:], "\n\n") + 2
		for cut := range len(body) {
			got, err := collect(strings.NewReader(body[:cut]))
			if whole := err == nil && got.Finish == tt.want.Finish; whole != (cut >= told) {
				t.Fatalf("%s cut at %d of %d: %q, %v", tt.file, cut, len(body), got.Finish, err)
			}
		}
	}
}

func TestErrorsUnderAnOKStatus(t *testing.T) {
	const some = "data: {\"candidates\":[{\"content\":{\"parts\":[{\"text\":\"some\"}],\"role\":\"model\"},\"index\":0}]}\n\n"
	finished := func(reason, message string) string {
		return some + `data: {"candidates":[{"content":{"parts":[{"text":" more"}]},"finishReason":"` + reason + `","finishMessage":"` + message + `"}]}` + "\n\n"
	}
	for _, tt := range []struct {
		name, body string
		kind       llm.Kind
		text, says string
	}{
		{"in the middle", some + "data: {\"error\":{\"code\":503,\"message\":\"The model is overloaded.\",\"status\":\"UNAVAILABLE\"}}\n\n", llm.Overload, "some", "overloaded"},
		{"at once", "data: {\"error\":{\"code\":500,\"message\":\"Internal error encountered.\",\"status\":\"INTERNAL\"}}\n\n", llm.Unavailable, "", "Internal"},
		{"as JSON", `{"error":{"code":429,"message":"Quota","status":"RESOURCE_EXHAUSTED"}}`, llm.Quota, "", "Quota"},
		{"in an array", `[{"candidates":[{"content":{"parts":[{"text":"some"}]}}]},{"error":{"code":503,"message":"busy"}}]`, llm.Overload, "some", "busy"},
		{"a call that cannot be read", finished("MALFORMED_FUNCTION_CALL", "Malformed function call: print("), llm.Unavailable, "some more", "Malformed function call: print( (MALFORMED_FUNCTION_CALL)"},
		{"an unknown tool", finished("UNEXPECTED_TOOL_CALL", ""), llm.Unavailable, "some more", "not given"},
		{"no reason", finished("OTHER", ""), llm.Unavailable, "some more", "no reason"},
		{"no finish", some, llm.Unavailable, "some", "broke off"},
		{"malformed", some + "data: {\"candidates\":[{\"con\n\n", llm.Unavailable, "some", "not JSON"},
		{"an array that breaks off", `[{"candidates":[{"content":{"parts":[{"text":"some"}]}}]},{"candi`, llm.Unavailable, "some", "broke off"},
		{"nothing", "", llm.Unavailable, "", "broke off"},
	} {
		t.Run(tt.name, func(t *testing.T) {
			a, err := collect(strings.NewReader(tt.body))
			if err == nil || llm.KindOf(err) != tt.kind || !strings.Contains(err.Error(), tt.says) || a.Message.Text() != tt.text {
				t.Errorf("got %q, %v", a.Message.Text(), err)
			}
		})
	}
	if _, err := collect(strings.NewReader("<html></html>")); err == nil || !strings.Contains(err.Error(), "web page") {
		t.Errorf("a web page: %v", err)
	}
}

func TestFinishReasons(t *testing.T) {
	for reason, want := range map[string]llm.Finish{
		"STOP": llm.FinishStop, "MAX_TOKENS": llm.FinishLength, "SAFETY": llm.FinishRefusal, "RECITATION": llm.FinishRefusal, "LANGUAGE": llm.FinishRefusal,
		"BLOCKLIST": llm.FinishRefusal, "PROHIBITED_CONTENT": llm.FinishRefusal, "SPII": llm.FinishRefusal, "SOMETHING_NEW": llm.FinishStop,
	} {
		got, err := collect(strings.NewReader(`{"candidates":[{"content":{"parts":[{"text":"x"}]},"finishReason":"` + reason + `"}]}`))
		if err != nil || got.Finish != want {
			t.Errorf("%s: got %q, %v, want %q", reason, got.Finish, err, want)
		}
	}
}

// Whatever comes, the reader ends with one finish or one error, and says the same however the bytes arrive.
func FuzzRead(f *testing.F) {
	for _, tt := range streams {
		f.Add(fixture(f, tt.file))
	}
	f.Add([]byte("data: {\"error\":{\"code\":503}}\n\n"))
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
	chunk := []byte(`{"candidates":[{"content":{"parts":[{"text":" word"}],"role":"model"},"index":0}],"usageMetadata":{"promptTokenCount":4,"totalTokenCount":4,"promptTokensDetails":[{"modality":"TEXT","tokenCount":4}]},"modelVersion":"gemini-3.8-flash","responseId":"x"}`)
	b.SetBytes(int64(len(chunk)))
	for b.Loop() {
		var d decoder
		if events, err := d.add(chunk); len(events) != 1 || err != nil {
			b.Fatal(events, err)
		}
	}
}
