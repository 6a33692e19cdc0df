package gemini

import (
	"bytes"
	"encoding/json"
	"net/http"
	"strings"

	"home.arpa/lab/llm-runner/internal/llm"
)

// The request of models/{model}:streamGenerateContent.
type request struct {
	SystemInstruction *content    `json:"systemInstruction,omitempty"`
	Contents          []content   `json:"contents"`
	Tools             []toolbox   `json:"tools,omitempty"`
	ToolConfig        *toolConfig `json:"toolConfig,omitempty"`
	GenerationConfig  generation  `json:"generationConfig,omitzero"`
}

type content struct {
	Role  string `json:"role,omitempty"`
	Parts []part `json:"parts"`
}

// A part is a piece of a content, in requests and answers alike; exactly one field says something, and a signature may
// stand with it or alone.
type part struct {
	Text             *string           `json:"text,omitempty"`
	Thought          bool              `json:"thought,omitempty"`
	ThoughtSignature string            `json:"thoughtSignature,omitempty"` // base64, passed on as it is
	InlineData       *inlineData       `json:"inlineData,omitempty"`
	FileData         *fileData         `json:"fileData,omitempty"`
	FunctionCall     *functionCall     `json:"functionCall,omitempty"`
	FunctionResponse *functionResponse `json:"functionResponse,omitempty"`
}

type inlineData struct {
	MIMEType string `json:"mimeType"`
	Data     []byte `json:"data"`
}

type fileData struct {
	MIMEType string `json:"mimeType,omitempty"`
	FileURI  string `json:"fileUri"`
}

type functionCall struct {
	ID   string          `json:"id,omitempty"`
	Name string          `json:"name"`
	Args json.RawMessage `json:"args,omitempty"`
}

type functionResponse struct {
	ID       string            `json:"id,omitempty"`
	Name     string            `json:"name"`
	Response map[string]string `json:"response"`
}

type toolbox struct {
	FunctionDeclarations []declaration `json:"functionDeclarations"`
}

type declaration struct {
	Name        string          `json:"name"`
	Description string          `json:"description,omitempty"`
	Parameters  json.RawMessage `json:"parametersJsonSchema,omitempty"`
}

type toolConfig struct {
	FunctionCallingConfig callingConfig `json:"functionCallingConfig"`
}

type callingConfig struct {
	Mode    string   `json:"mode"`
	Allowed []string `json:"allowedFunctionNames,omitempty"`
}

type generation struct {
	MaxOutputTokens  int             `json:"maxOutputTokens,omitempty"`
	Temperature      *float64        `json:"temperature,omitempty"`
	TopP             *float64        `json:"topP,omitempty"`
	Seed             *int32          `json:"seed,omitempty"`
	StopSequences    []string        `json:"stopSequences,omitempty"`
	ResponseMIMEType string          `json:"responseMimeType,omitempty"`
	ResponseSchema   json.RawMessage `json:"responseJsonSchema,omitempty"`
	Thinking         *thinking       `json:"thinkingConfig,omitempty"`
}

type thinking struct {
	Level           string `json:"thinkingLevel,omitempty"`
	Budget          *int   `json:"thinkingBudget,omitempty"`
	IncludeThoughts bool   `json:"includeThoughts,omitempty"`
}

// encode writes req as a body. Schemas travel in the fields that take JSON Schema (parametersJsonSchema,
// responseJsonSchema), not in the older ones that take a part of OpenAPI's; so they need no cutting but for $schema.
// There is nothing that forbids several calls in one answer: NoParallelTools is asked for in words.
//
// unsigned leaves the signatures of earlier turns out: they may be another model's, and those are refused.
func encode(req llm.Request, unsigned bool) ([]byte, error) {
	can := able(req.Model)
	var out request
	var system []string
	out.Contents, system = conversation(req.Messages, can, unsigned)
	out.GenerationConfig = generation{
		MaxOutputTokens: req.MaxTokens, Temperature: req.Temperature, TopP: req.TopP, StopSequences: req.Stop,
		Thinking: can.think(req.Effort),
	}
	if req.Seed != nil {
		seed := int32(*req.Seed) // the field has 32 bits
		out.GenerationConfig.Seed = &seed
	}
	if len(req.Tools) > 0 {
		box := toolbox{}
		for _, t := range req.Tools {
			box.FunctionDeclarations = append(box.FunctionDeclarations, declaration{t.Name, t.Description, plain(t.Schema)})
		}
		out.Tools = []toolbox{box}
		switch c := req.ToolChoice; c.Mode {
		case "none":
			out.ToolConfig = &toolConfig{callingConfig{Mode: "NONE"}}
		case "required":
			out.ToolConfig = &toolConfig{callingConfig{Mode: "ANY"}}
		case "tool":
			out.ToolConfig = &toolConfig{callingConfig{Mode: "ANY", Allowed: []string{c.Name}}}
		}
		if req.NoParallelTools {
			system = append(system, "Call at most one tool at a time.")
		}
	}
	if f := req.Format; f != nil {
		if len(req.Tools) > 0 && !can.toolsAndFormat { // "Function calling with a response mime type is unsupported"
			system = append(system, instruction(f))
		} else {
			out.GenerationConfig.ResponseMIMEType = "application/json"
			out.GenerationConfig.ResponseSchema = plain(f.Schema)
		}
	}
	if len(system) > 0 {
		text := strings.Join(system, "\n\n")
		out.SystemInstruction = &content{Parts: []part{{Text: &text}}}
	}
	return json.Marshal(out)
}

func instruction(f *llm.Format) string {
	s := "Unless you call a tool, answer with one JSON object and nothing else: no code fence, no text before or after it."
	if len(f.Schema) > 0 {
		s += " It must fit this JSON Schema:\n" + string(f.Schema)
	}
	return s
}

// plain returns a schema without its $schema keyword, which the API does not know; nil for none.
func plain(schema json.RawMessage) json.RawMessage {
	if !bytes.Contains(schema, []byte(`"$schema"`)) {
		return schema
	}
	var s map[string]json.RawMessage
	if err := json.Unmarshal(schema, &s); err != nil {
		return schema
	}
	delete(s, "$schema")
	out, err := json.Marshal(s)
	if err != nil {
		return schema
	}
	return out
}

// conversation turns messages into contents: system texts apart, consecutive turns of one side merged (the results of
// parallel calls must stand in one content), empty ones left out.
func conversation(messages []llm.Message, can ability, unsigned bool) (contents []content, system []string) {
	names := map[string]string{} // call id -> tool
	for _, m := range messages {
		if m.Role == llm.System {
			if t := m.Text(); t != "" {
				system = append(system, t)
			}
			continue
		}
		role := "user"
		if m.Role == llm.Assistant {
			role = "model"
		}
		parts := parts(m.Parts, names, unsigned)
		if len(parts) == 0 {
			continue
		}
		if role == "model" && can.signsCalls {
			sealCalls(parts)
		}
		if n := len(contents); n > 0 && contents[n-1].Role == role {
			contents[n-1].Parts = append(contents[n-1].Parts, parts...)
		} else {
			contents = append(contents, content{role, parts})
		}
	}
	return contents, system
}

// noSignature stands where a call has no signature because another model made it. Gemini 3 refuses a turn whose first call
// has none at all (ai.google.dev, "Thought signatures", on histories from other models).
const noSignature = "skip_thought_signature_validator"

// sealCalls gives the first call of a turn a stand-in where no call of the turn is signed. Of parallel calls only the first
// one ever is.
func sealCalls(parts []part) {
	first := -1
	for i, p := range parts {
		if p.FunctionCall == nil {
			continue
		}
		if p.ThoughtSignature != "" {
			return
		}
		if first < 0 {
			first = i
		}
	}
	if first >= 0 {
		parts[first].ThoughtSignature = noSignature
	}
}

func parts(in []llm.Part, names map[string]string, unsigned bool) []part {
	var out []part
	for _, p := range in {
		switch {
		case p.Thinking != nil:
			// Unsigned summaries do nothing for the model. A signature that came alone goes back alone, in an empty text.
			if t := p.Thinking; t.Signature != "" && !unsigned {
				out = append(out, part{Text: &t.Text, Thought: t.Text != "", ThoughtSignature: t.Signature})
			}
		case p.Image != nil:
			out = append(out, picture(p.Image))
		case p.Call != nil:
			c := p.Call
			names[c.ID] = c.Name
			x := part{FunctionCall: &functionCall{c.ID, c.Name, c.Object()}, ThoughtSignature: c.Signature}
			if unsigned {
				x.ThoughtSignature = ""
			}
			out = append(out, x)
		case p.Result != nil:
			r := p.Result
			key, name := "output", r.Name
			if r.IsError {
				key = "error"
			}
			if name == "" {
				name = names[r.ID]
			}
			out = append(out, part{FunctionResponse: &functionResponse{r.ID, name, map[string]string{key: r.Text}}})
		case p.Text != "":
			out = append(out, part{Text: &p.Text})
		}
	}
	return out
}

func picture(i *llm.Image) part {
	mime := i.MIME
	if len(i.Data) == 0 {
		return part{FileData: &fileData{mime, i.URL}}
	}
	if mime == "" {
		mime = http.DetectContentType(i.Data)
	}
	return part{InlineData: &inlineData{mime, i.Data}}
}
