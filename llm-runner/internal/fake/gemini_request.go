package fake

import (
	"encoding/json"
	"fmt"
	"net/http"
	"strings"

	"home.arpa/lab/llm-runner/internal/fake/script"
)

func (gemini) read(r *http.Request, body []byte) (ask, *refusal) {
	path := strings.TrimPrefix(strings.TrimPrefix(r.URL.Path, "/v1beta"), "/v1")
	resource, method, _ := strings.Cut(path, ":")
	model, named := strings.CutPrefix(resource, "/models/")
	switch {
	case r.Method == http.MethodGet && resource == "/models":
		return ask{op: opModels}, nil
	case r.Method == http.MethodGet && named && method == "":
		return ask{op: opRaw, model: model, raw: []byte(geminiModel(model) + "\n")}, nil
	case r.Method != http.MethodPost || !named || model == "":
		return ask{}, &refusal{kind: script.NoModel, message: "Requested entity was not found."}
	}
	switch method {
	case "generateContent", "streamGenerateContent":
		a, bad := readContent(model, body)
		a.stream = method == "streamGenerateContent"
		a.array = a.stream && r.URL.Query().Get("alt") != "sse"
		return a, bad
	case "countTokens":
		a, bad := readContent(model, body)
		a.op, a.raw = opRaw, fmt.Appendf(nil, `{"totalTokens":%d}`+"\n", script.Tokens(a.prompt))
		return a, bad
	case "batchEmbedContents":
		return readGeminiEmbed(model, body)
	}
	return ask{model: model}, &refusal{kind: script.NoModel, message: fmt.Sprintf("models/%s is not supported for %s.", model, method)}
}

// A geminiRequest has the fields of a GenerateContentRequest that requests over the API may have. Snake case is accepted by
// the real one, too, and by none of its own clients used.
type geminiRequest struct {
	Contents          []geminiContent   `json:"contents"`
	SystemInstruction *geminiContent    `json:"systemInstruction"`
	Tools             []json.RawMessage `json:"tools"`
	ToolConfig        json.RawMessage   `json:"toolConfig"`
	SafetySettings    json.RawMessage   `json:"safetySettings"`
	CachedContent     string            `json:"cachedContent"`
	Model             string            `json:"model"`
	GenerationConfig  struct {
		CandidateCount     int             `json:"candidateCount"`
		MaxOutputTokens    int             `json:"maxOutputTokens"`
		Temperature        *float64        `json:"temperature"`
		TopP               *float64        `json:"topP"`
		TopK               *float64        `json:"topK"`
		Seed               *int32          `json:"seed"`
		StopSequences      []string        `json:"stopSequences"`
		PresencePenalty    *float64        `json:"presencePenalty"`
		FrequencyPenalty   *float64        `json:"frequencyPenalty"`
		ResponseLogprobs   bool            `json:"responseLogprobs"`
		Logprobs           *int            `json:"logprobs"`
		ResponseMIMEType   string          `json:"responseMimeType"`
		ResponseSchema     json.RawMessage `json:"responseSchema"`
		ResponseJSONSchema json.RawMessage `json:"responseJsonSchema"`
		ResponseModalities []string        `json:"responseModalities"`
		MediaResolution    string          `json:"mediaResolution"`
		SpeechConfig       json.RawMessage `json:"speechConfig"`
		ThinkingConfig     *struct {
			IncludeThoughts bool   `json:"includeThoughts"`
			ThinkingBudget  *int   `json:"thinkingBudget"`
			ThinkingLevel   string `json:"thinkingLevel"`
		} `json:"thinkingConfig"`
	} `json:"generationConfig"`
}

type geminiContent struct {
	Role  string `json:"role"`
	Parts []struct {
		Text             string          `json:"text"`
		Thought          bool            `json:"thought"`
		ThoughtSignature string          `json:"thoughtSignature"`
		InlineData       json.RawMessage `json:"inlineData"`
		FileData         json.RawMessage `json:"fileData"`
		FunctionCall     *struct {
			ID   string          `json:"id"`
			Name string          `json:"name"`
			Args json.RawMessage `json:"args"`
		} `json:"functionCall"`
		FunctionResponse *struct {
			ID       string          `json:"id"`
			Name     string          `json:"name"`
			Response json.RawMessage `json:"response"`
		} `json:"functionResponse"`
		VideoMetadata json.RawMessage `json:"videoMetadata"`
	} `json:"parts"`
}

func readContent(model string, body []byte) (ask, *refusal) {
	a := ask{model: model}
	bad := func(format string, args ...any) (ask, *refusal) {
		return a, &refusal{kind: script.BadRequest, message: fmt.Sprintf(format, args...)}
	}
	var in geminiRequest
	unknown, err := strictly(body, &in)
	switch config := in.GenerationConfig; {
	case unknown != "":
		return bad("Invalid JSON payload received. Unknown name %q: Cannot find field.", unknown)
	case err != nil:
		return bad("Invalid JSON payload received. %v", err)
	case len(in.Contents) == 0:
		return bad("* GenerateContentRequest.contents: contents is not specified\n")
	case config.ThinkingConfig != nil && config.ThinkingConfig.ThinkingBudget != nil && config.ThinkingConfig.ThinkingLevel != "":
		return bad("You can only set only one of thinking budget and thinking level.")
	case config.ResponseMIMEType == "" && (config.ResponseSchema != nil || config.ResponseJSONSchema != nil):
		return bad("responseMimeType must be application/json when a response schema is set")
	default:
		a.json = config.ResponseMIMEType == "application/json"
	}
	var all strings.Builder
	if in.SystemInstruction != nil {
		for _, p := range in.SystemInstruction.Parts {
			all.WriteString(p.Text + "\n")
		}
	}
	calls := 0 // of the turn before
	for i, c := range in.Contents {
		if c.Role != "user" && c.Role != "model" && (c.Role != "" || len(in.Contents) > 1) {
			return bad("Please use a valid role: user, model.")
		}
		if len(c.Parts) == 0 {
			return bad("* GenerateContentRequest.contents[%d].parts: contents.parts must not be empty.\n", i)
		}
		text, asked, answered, signed := "", 0, 0, false
		for _, p := range c.Parts {
			switch {
			case p.FunctionCall != nil:
				if signed = signed || p.ThoughtSignature != ""; !signed && strings.HasPrefix(model, "gemini-3") {
					return bad("Function call is missing a thought_signature in functionCall parts. This is required for tools to work correctly, and missing thought_signature may lead to degraded model performance.")
				}
				asked++
				all.WriteString(p.FunctionCall.Name + " " + string(p.FunctionCall.Args) + "\n")
			case p.FunctionResponse != nil:
				answered++
				all.WriteString(string(p.FunctionResponse.Response) + "\n")
				if p.FunctionResponse.Name == "" || len(p.FunctionResponse.Response) == 0 {
					return bad("* GenerateContentRequest.contents[%d].parts[0].function_response.name: Name cannot be empty.\n", i)
				}
			case !p.Thought:
				text += p.Text
			}
		}
		if answered != calls && (answered > 0 || calls > 0) {
			return bad("Please ensure that the number of function response parts is equal to the number of function call parts of the function call turn.")
		}
		calls = asked
		all.WriteString(text + "\n")
		if c.Role != "model" && text != "" {
			a.input = text
		}
	}
	a.prompt = all.String()
	return a, nil
}

func readGeminiEmbed(model string, body []byte) (ask, *refusal) {
	a := ask{op: opEmbed, model: model, cuts: true}
	var in struct {
		Requests []struct {
			Model      string        `json:"model"`
			Content    geminiContent `json:"content"`
			TaskType   string        `json:"taskType"`
			Title      string        `json:"title"`
			Dimensions int           `json:"outputDimensionality"`
		} `json:"requests"`
	}
	bad := func(format string, args ...any) (ask, *refusal) {
		return a, &refusal{kind: script.BadRequest, message: fmt.Sprintf(format, args...)}
	}
	unknown, err := strictly(body, &in)
	switch {
	case unknown != "":
		return bad("Invalid JSON payload received. Unknown name %q: Cannot find field.", unknown)
	case err != nil:
		return bad("Invalid JSON payload received. %v", err)
	case len(in.Requests) == 0:
		return bad("* BatchEmbedContentsRequest.requests: requests is not specified\n")
	case len(in.Requests) > 100:
		return bad("* BatchEmbedContentsRequest.requests: at most 100 requests can be in one batch\n")
	}
	for i, r := range in.Requests {
		if r.Model != "models/"+model {
			return bad("* BatchEmbedContentsRequest.requests[%d].model: model must match the model specified in the request URL\n", i)
		}
		text := ""
		for _, p := range r.Content.Parts {
			text += p.Text
		}
		a.texts, a.dims = append(a.texts, text), r.Dimensions
	}
	a.prompt = strings.Join(a.texts, "\n")
	return a, nil
}
