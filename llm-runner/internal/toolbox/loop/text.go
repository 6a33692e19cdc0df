package loop

import (
	"encoding/json"
	"fmt"
	"regexp"
	"slices"
	"strings"

	"home.arpa/lab/llm-runner/internal/llm"
	"home.arpa/lab/llm-runner/internal/toolbox"

	"crypto/rand"
)

// Models that cannot call tools are asked to fill in a form instead: the name of a tool with its arguments, or an answer. The
// form is a JSON schema, which most servers hold the model to.

// toolWord finds refusals for want of tools: Ollama "... does not support tools", Groq "`tool calling` is not supported with this
// model", Gemini "Function calling is not enabled for models/gemma-3-27b-it", vLLM "... requires --enable-auto-tool-choice".
var toolWord = regexp.MustCompile(`(?i)(tool|function).{0,60}(not support|unsupported|not enabled|not available)|(not support|unsupported).{0,60}(tool|function)|enable-auto-tool-choice`)

func toolless(e *llm.Error) bool {
	return (e.Kind == llm.BadRequest || e.Kind == llm.NotFound) && toolWord.MatchString(e.Message+" "+string(e.Body))
}

func (p *Provider) prompted(model string) bool {
	p.mu.Lock()
	defer p.mu.Unlock()
	return p.without[model]
}

func (p *Provider) remember(model string) {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.without[model] = true
}

// none is what stands for "no tool" in the form.
const none = "none"

// asText writes a request with tools as one without; last leaves only the answer to be given.
func asText(req llm.Request, last bool) llm.Request {
	var b strings.Builder
	names := []any{none}
	b.WriteString("You can have tools run. Answer with one JSON object {\"tool\": ..., \"arguments\": {...}, \"answer\": ...}: either name a tool and " +
		"give its arguments, with an empty answer, or write \"tool\": \"none\" and your answer. You get the tool's result and are asked again.\n\nThe tools:\n")
	for _, t := range req.Tools {
		fmt.Fprintf(&b, "- %s: %s Arguments: %s\n", t.Name, t.Description, t.Schema)
		if !last {
			names = append(names, t.Name)
		}
	}
	schema, err := json.Marshal(map[string]any{"type": "object", "required": []string{"tool", "arguments", "answer"}, "properties": map[string]any{
		"tool": map[string]any{"type": "string", "enum": names}, "arguments": map[string]any{"type": "object"}, "answer": map[string]any{"type": "string"}}})
	if err != nil {
		return req // strings and maps of them are always written
	}
	messages := slices.Clone(req.Messages)
	messages[0] = further(messages[0], b.String()) // cautioned has put one there
	for i, m := range messages {
		messages[i] = flat(m)
	}
	req.Messages, req.Tools, req.ToolChoice = messages, nil, llm.ToolChoice{}
	req.Format = &llm.Format{Name: "step", Schema: schema}
	return req
}

// flat writes calls and results as text.
func flat(m llm.Message) llm.Message {
	var b strings.Builder
	found := false
	for _, p := range m.Parts {
		switch {
		case p.Call != nil:
			found = true
			line, _ := json.Marshal(form{Tool: p.Call.Name, Arguments: json.RawMessage(p.Call.Arguments)})
			b.Write(line)
		case p.Result != nil:
			found = true
			fmt.Fprintf(&b, "Result of %s:\n%s\n", p.Result.Name, p.Result.Text)
		default:
			b.WriteString(p.Text)
		}
	}
	if !found {
		return m
	}
	role := m.Role
	if role == llm.Tool {
		role = llm.User
	}
	return llm.Says(role, b.String())
}

// form is what the model fills in.
type form struct {
	Tool      string          `json:"tool"`
	Arguments json.RawMessage `json:"arguments"`
	Answer    string          `json:"answer"`
}

// read finds the form in what a model wrote: some put it into a fence, or words before it.
func read(text string) (f form, ok bool) {
	from, to := strings.IndexByte(text, '{'), strings.LastIndexByte(text, '}')
	if from < 0 || to < from {
		return f, false
	}
	err := json.Unmarshal([]byte(text[from:to+1]), &f)
	return f, err == nil && (f.Tool != "" || f.Answer != "")
}

// fromText turns a filled-in form into the step that it means and tells its answer. What is no form is an answer.
func (r *run) fromText(s *toolbox.Step, last bool) error {
	text := s.Message.Text()
	f, ok := read(text)
	if ok && f.Tool != "" && f.Tool != none && !last {
		arguments := string(f.Arguments)
		if arguments == "" {
			arguments = "{}"
		}
		s.Message.Parts = []llm.Part{{Call: &llm.ToolCall{ID: "call_" + rand.Text()[:16], Name: f.Tool, Arguments: arguments}}}
		s.Finish = llm.FinishTools
		return r.tell(llm.Event{Tool: &llm.ToolNews{Name: f.Tool, State: "writing"}})
	}
	if ok {
		text = f.Answer
	}
	s.Message.Parts = []llm.Part{{Text: text, Private: s.Private}}
	if text = r.apart(text); text == "" {
		return nil
	}
	return r.tell(llm.Event{Text: text})
}
