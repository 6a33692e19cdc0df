package fake

import (
	"encoding/json"
	"fmt"
	"math"
	"net/http"
	"strconv"
	"strings"

	"home.arpa/lab/llm-runner/internal/fake/script"
	"home.arpa/lab/llm-runner/internal/llm"
)

// ollama renders Ollama's native interface (https://github.com/ollama/ollama/blob/main/docs/api.md): one JSON object a line.
type ollama struct{}

// version is what the fake claims to be.
const version = "0.33.0"

func (ollama) key(r *http.Request) string { return openai{}.key(r) }

func (ollama) streamType(ask) string { return "application/x-ndjson" }

func (ollama) window(script.Limit) window { return rolling }

func (ollama) tell(http.Header, []level) {}

func (d ollama) read(r *http.Request, body []byte) (ask, *refusal) {
	switch r.Method + " " + r.URL.Path {
	case "GET /", "HEAD /":
		return ask{op: opRaw, raw: []byte("Ollama is running")}, nil
	case "GET /api/version":
		return ask{op: opRaw, raw: []byte(`{"version":"` + version + `"}`)}, nil
	case "GET /api/ps":
		return ask{op: opRaw, raw: []byte(`{"models":[]}`)}, nil
	case "GET /api/tags":
		return ask{op: opModels}, nil
	case "POST /api/chat":
		return d.readChat(body)
	case "POST /api/embed":
		return d.readEmbed(body)
	}
	return ask{}, &refusal{kind: script.NoModel, message: "404 page not found"}
}

func (ollama) readChat(body []byte) (ask, *refusal) {
	var in struct {
		Model    string
		Stream   *bool
		Format   json.RawMessage
		Messages []struct {
			Role, Content string
			Images        [][]byte
			Calls         []struct {
				Function struct {
					Name      string
					Arguments map[string]any
				}
			} `json:"tool_calls"`
		}
	}
	if err := json.Unmarshal(body, &in); err != nil {
		return ask{}, &refusal{kind: script.BadRequest, message: err.Error()}
	}
	a := ask{model: in.Model, stream: in.Stream == nil || *in.Stream, usage: true, json: len(in.Format) > 0}
	if in.Model == "" {
		return a, &refusal{kind: script.BadRequest, message: "model is required"}
	}
	var all strings.Builder
	for _, m := range in.Messages {
		all.WriteString(m.Content + "\n")
		if m.Role == "user" {
			a.input = m.Content
		}
	}
	a.prompt = all.String()
	return a, nil
}

func (ollama) readEmbed(body []byte) (ask, *refusal) {
	var in struct {
		Model      string
		Input      json.RawMessage
		Dimensions int
		Truncate   *bool
	}
	if err := json.Unmarshal(body, &in); err != nil || in.Model == "" {
		return ask{}, &refusal{kind: script.BadRequest, message: "model is required"}
	}
	a := ask{op: opEmbed, model: in.Model, dims: in.Dimensions, cuts: in.Truncate == nil || *in.Truncate}
	var one string
	if json.Unmarshal(in.Input, &one) == nil {
		a.texts = []string{one}
	} else if json.Unmarshal(in.Input, &a.texts) != nil {
		return a, &refusal{kind: script.BadRequest, message: "invalid input type"}
	}
	a.prompt = strings.Join(a.texts, "\n")
	return a, nil
}

const ollamaTime = `"2025-01-01T00:00:00Z"`

func (d ollama) line(a ask, message, rest string) []byte {
	return fmt.Appendf(nil, `{"model":%s,"created_at":%s,"message":{"role":"assistant",%s},%s}`+"\n", q(a.model), ollamaTime, message, rest)
}

// calls renders tool calls: arguments are an object here.
func (ollama) calls(r script.Rule) string {
	var calls []string
	for _, c := range r.Calls {
		args := c.Arguments
		if !json.Valid([]byte(args)) {
			args = "{}"
		}
		calls = append(calls, fmt.Sprintf(`{"function":{"name":%s,"arguments":%s}}`, q(c.Name), args))
	}
	return `"tool_calls":[` + strings.Join(calls, ",") + `]`
}

// last renders what the last line tells: Ollama has no other finish than stop and length. A prompt that was wholly cached is
// told by leaving its count out.
func (ollama) last(a ask, r script.Rule) string {
	reason := "stop"
	if r.Finish == llm.FinishLength {
		reason = "length"
	}
	s := fmt.Sprintf(`"done_reason":%q,"done":true,"total_duration":20000000,"load_duration":5000000`, reason)
	u := r.Told(a.prompt)
	if n, ok := u.Input.Get(); ok {
		s += fmt.Sprintf(`,"prompt_eval_count":%d,"prompt_eval_duration":1000000`, n)
	}
	if n, ok := u.Output.Get(); ok {
		s += fmt.Sprintf(`,"eval_count":%d,"eval_duration":10000000`, n)
	}
	return s
}

func (d ollama) answer(a ask, r script.Rule) []byte {
	message := `"content":` + q(r.Text)
	if r.Thinking != "" {
		message += `,"thinking":` + q(r.Thinking)
	}
	if len(r.Calls) > 0 {
		message += "," + d.calls(r)
	}
	return d.line(a, message, d.last(a, r))
}

func (d ollama) stream(a ask, r script.Rule) []frame {
	var frames []frame
	for _, s := range script.Pieces(r.Thinking, r.ChunkSize) {
		frames = append(frames, frame{d.line(a, `"content":"","thinking":`+q(s), `"done":false`), partBody})
	}
	for _, s := range script.Pieces(r.Text, r.ChunkSize) {
		frames = append(frames, frame{d.line(a, `"content":`+q(s), `"done":false`), partBody})
	}
	if len(r.Calls) > 0 {
		frames = append(frames, frame{d.line(a, `"content":"",`+d.calls(r), `"done":false`), partBody})
	}
	return append(frames, frame{d.line(a, `"content":""`, d.last(a, r)), partFinish})
}

func (ollama) embeddings(a ask, vectors [][]float32) []byte {
	b := fmt.Appendf(nil, `{"model":%s,"embeddings":[`, q(a.model))
	for i, v := range vectors {
		if i > 0 {
			b = append(b, ',')
		}
		b = appendFloats(b, v)
	}
	return fmt.Appendf(b, `],"total_duration":1000000,"load_duration":500000,"prompt_eval_count":%d}`+"\n", script.Tokens(a.prompt))
}

func (ollama) tooLong(_, _ int64) string { return "the input length exceeds the context length" }

func (ollama) models(names []string) []byte {
	var list []string
	for _, n := range names {
		family, can := "llama", "completion"
		if strings.Contains(n, "embed") {
			family, can = "nomic-bert", "embedding"
		}
		list = append(list, fmt.Sprintf(`{"name":%s,"model":%s,"modified_at":%s,"size":2019393189,"digest":"%064d","details":{"parent_model":"","format":"gguf","family":%q,"families":[%q],"parameter_size":"3.2B","quantization_level":"Q4_K_M"},"capabilities":[%q]}`,
			q(n), q(n), ollamaTime, 0, family, family, can))
	}
	return []byte(`{"models":[` + strings.Join(list, ",") + `]}`)
}

func (ollama) refuse(a ask, f refusal, h http.Header) (int, []byte) {
	status, message := f.kind.Status(), "something went wrong"
	switch f.kind {
	case script.RateLimited, script.RateNoHint, script.RateWrongHint: // Ollama's cloud; a machine of one's own has no limits
		status, message = http.StatusTooManyRequests, "you have reached your hourly usage limit, upgrade for higher limits: https://ollama.com/upgrade"
		switch f.kind {
		case script.RateLimited:
			h.Set("Retry-After", strconv.Itoa(int(math.Ceil(f.wait.Seconds()))))
		case script.RateWrongHint:
			h.Set("Retry-After", "1")
		}
	case script.Spend:
		status, message = http.StatusForbidden, "this model requires a subscription, upgrade for access: https://ollama.com/upgrade"
	case script.BadKey:
		message = "unauthorized"
	case script.Forbidden:
		message = "forbidden"
	case script.NoModel:
		message = fmt.Sprintf("model %q not found, try pulling it first", a.model)
	case script.BadRequest:
		message = "invalid request"
	case script.TooLarge:
		message = "request body too large"
	case script.Busy, script.Overloaded: // server/sched.go; the two spaces are theirs
		message = "server busy, please try again.  maximum pending requests exceeded"
	case script.Internal:
		message = "llama runner process has terminated: exit status 2"
	}
	if f.message != "" {
		message = f.message
	}
	return status, []byte(`{"error":` + q(message) + "}\n")
}

func (d ollama) inBand(a ask, f refusal) []byte {
	_, body := d.refuse(a, f, http.Header{})
	return body
}
