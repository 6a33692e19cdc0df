//go:build prove

package ollamatest

import (
	"bufio"
	"bytes"
	"context"
	"encoding/json"
	"io"
	"net/http"
	"strings"
	"testing"
	"time"

	"home.arpa/lab/llm-runner/test/ollama/tinymodel"
)

// What the other tests rely on: the tiny models answer as tinymodel says, in a real Ollama.
func TestTinyModelsAnswerAsWritten(t *testing.T) {
	s := Start(t)

	t.Run("the same words at any temperature", func(t *testing.T) {
		for _, options := range []string{`{}`, `{"temperature":1.5,"seed":7}`} {
			got := ask(t, s, `{"model":"tiny-chat","stream":false,"messages":[{"role":"user","content":"hi"}],"options":`+options+`}`)
			if got.Message.Content != tinymodel.Hello || got.DoneReason != "stop" || got.Eval != 13 {
				t.Errorf("options %s: %+v", options, got)
			}
		}
	})
	t.Run("a tool call where tools are offered", func(t *testing.T) {
		got := ask(t, s, `{"model":"tiny-chat","stream":false,"tools":[`+weatherTool+`],"messages":[
			{"role":"system","content":"be brief"},{"role":"user","content":"weather?"}]}`)
		if len(got.Message.ToolCalls) != 1 || got.Message.Content != "" {
			t.Fatalf("%+v", got)
		}
		call := got.Message.ToolCalls[0].Function
		if call.Name != tinymodel.ToolName || string(call.Arguments) != compact(t, tinymodel.ToolArguments) {
			t.Errorf("called %s with %s", call.Name, call.Arguments)
		}
	})
	t.Run("an answer after the tool's result", func(t *testing.T) {
		got := ask(t, s, `{"model":"tiny-chat","stream":false,"tools":[`+weatherTool+`],"messages":[{"role":"user","content":"weather?"},
			{"role":"assistant","content":"","tool_calls":[{"function":{"name":"get_weather","arguments":{"city":"Paris"}}}]},
			{"role":"tool","tool_name":"get_weather","content":"sunny"}]}`)
		if got.Message.Content != tinymodel.AfterTool {
			t.Errorf("%+v", got)
		}
	})
	t.Run("JSON where a format is asked for", func(t *testing.T) {
		schema := `{"type":"object","properties":{"answer":{"type":"integer"},"unit":{"type":"string"}},"required":["answer","unit"]}`
		for _, format := range []string{`"json"`, schema} {
			got := ask(t, s, `{"model":"tiny-chat","stream":false,"format":`+format+`,"messages":[{"role":"user","content":"how many?"}]}`)
			if strings.TrimSpace(got.Message.Content) != tinymodel.JSON {
				t.Errorf("format %s: %q", format, got.Message.Content)
			}
		}
	})
	t.Run("a count that takes its time", func(t *testing.T) {
		started := time.Now()
		got := ask(t, s, `{"model":"tiny-slow","stream":false,"messages":[{"role":"user","content":"go"}]}`)
		if got.Message.Content != tinymodel.Count() {
			t.Errorf("%.80q...", got.Message.Content)
		}
		t.Logf("%d tokens in %v", got.Eval, time.Since(started))
	})
	t.Run("vectors that are near for texts that share words", func(t *testing.T) {
		var got struct{ Embeddings [][]float64 }
		post(t, s, "/api/embed", `{"model":"tiny-embed","input":["bake bread in the oven","bread from the oven","restore the server"]}`, &got)
		v := got.Embeddings
		if len(v) != 3 || len(v[0]) != tinymodel.EmbedWidth {
			t.Fatalf("%d vectors", len(v))
		}
		if near, far := dot(v[0], v[1]), dot(v[0], v[2]); near < far+0.1 {
			t.Errorf("near %.2f, far %.2f", near, far)
		}
	})
}

// A client that goes away must end the work, or a stop button is a lie.
func TestAbandonedAnswerStops(t *testing.T) {
	s := Start(t)
	const body = `{"model":"tiny-slow","messages":[{"role":"user","content":"go"}]}`
	whole, err := s.Whole()
	if err != nil {
		t.Fatal(err)
	}

	ctx, leave := context.WithCancel(context.Background())
	defer leave()
	req, _ := http.NewRequestWithContext(ctx, "POST", s.URL+"/api/chat", strings.NewReader(body))
	resp, err := http.DefaultClient.Do(req)
	if err != nil {
		t.Fatal(err)
	}
	defer resp.Body.Close()
	if _, err := bufio.NewReader(resp.Body).ReadString('\n'); err != nil {
		t.Fatal(err)
	}
	leave()
	used, err := s.WaitIdle()
	if err != nil || used > whole/2 {
		t.Errorf("a whole answer takes %v of a processor; %v were used after the client left: %v", whole, used, err)
	}
	t.Logf("a whole answer takes %v of a processor; %v were used after the client left", whole, used)
}

// The server comes back on the same address, with its models.
func TestServerSurvivesAPowerCut(t *testing.T) {
	s := Start(t)
	s.Down()
	if err := s.Get(context.Background(), "/api/version", nil); err == nil {
		t.Fatal("it still answers")
	}
	ctx, cancel := context.WithTimeout(context.Background(), time.Minute)
	defer cancel()
	if err := s.Up(ctx); err != nil {
		t.Fatal(err)
	}
	got := ask(t, s, `{"model":"tiny-chat","stream":false,"messages":[{"role":"user","content":"hi"}]}`)
	if got.Message.Content != tinymodel.Hello {
		t.Errorf("%+v", got)
	}
}

const weatherTool = `{"type":"function","function":{"name":"get_weather","description":"tells the weather",
	"parameters":{"type":"object","properties":{"city":{"type":"string"}},"required":["city"]}}}`

type answer struct {
	Message struct {
		Content   string
		ToolCalls []struct {
			Function struct {
				Name      string
				Arguments json.RawMessage
			}
		} `json:"tool_calls"`
	}
	DoneReason string `json:"done_reason"`
	Eval       int    `json:"eval_count"`
}

func ask(t *testing.T, s *Server, body string) (a answer) {
	t.Helper()
	post(t, s, "/api/chat", body, &a)
	return a
}

func post(t *testing.T, s *Server, path, body string, into any) {
	t.Helper()
	ctx, cancel := context.WithTimeout(context.Background(), time.Minute)
	defer cancel()
	req, err := http.NewRequestWithContext(ctx, "POST", s.URL+path, strings.NewReader(body))
	if err != nil {
		t.Fatal(err)
	}
	resp, err := http.DefaultClient.Do(req)
	if err != nil {
		t.Fatal(err)
	}
	defer resp.Body.Close()
	text, err := io.ReadAll(resp.Body)
	if err != nil || resp.StatusCode != http.StatusOK {
		t.Fatalf("%s: %s %s %v", path, resp.Status, text, err)
	}
	if err := json.Unmarshal(text, into); err != nil {
		t.Fatalf("%s: %v in %s", path, err, text)
	}
}

func compact(t *testing.T, text string) string {
	t.Helper()
	var b bytes.Buffer
	if err := json.Compact(&b, []byte(text)); err != nil {
		t.Fatal(err)
	}
	return b.String()
}

func dot(a, b []float64) (sum float64) {
	for i := range a {
		sum += a[i] * b[i]
	}
	return sum
}
