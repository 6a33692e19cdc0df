package gemini

import (
	"context"
	"encoding/json"
	"fmt"
	"slices"

	"home.arpa/lab/llm-runner/internal/llm"
)

// maxBatch is how many texts one batchEmbedContents may have: "at most 100 requests can be in one batch".
const maxBatch = 100

// tasks are the API's names for what a text is for.
var tasks = map[string]string{"document": "RETRIEVAL_DOCUMENT", "query": "RETRIEVAL_QUERY"}

type embedRequest struct {
	Model      string  `json:"model"`
	Content    content `json:"content"`
	Task       string  `json:"taskType,omitempty"`
	Dimensions int     `json:"outputDimensionality,omitempty"`
}

type embedResponse struct {
	Embeddings []struct {
		Values []float32 `json:"values"`
	} `json:"embeddings"`
	Usage *usageMetadata `json:"usageMetadata"`
}

// Embed asks for vectors, 100 texts at a time. Fewer dimensions than the model's own come from cutting its vectors, and
// those of gemini-embedding-001 are then no longer of length one. Texts that are longer than the model reads are cut by the
// server, which cannot be told otherwise (autoTruncate is Vertex's). Usage is known where every part of the answer told it.
func (p *Provider) Embed(ctx context.Context, req llm.EmbedRequest) (llm.Embeddings, error) {
	var out llm.Embeddings
	var input int64
	told := true
	for texts := range slices.Chunk(req.Texts, maxBatch) {
		part, err := p.embed(ctx, req, texts)
		if err != nil {
			return llm.Embeddings{}, p.failed(err, req.Model, false)
		}
		for _, e := range part.Embeddings {
			out.Vectors = append(out.Vectors, e.Values)
		}
		if part.Usage == nil || part.Usage.Prompt == nil {
			told = false
			continue
		}
		input += *part.Usage.Prompt
	}
	if told && len(req.Texts) > 0 {
		out.Usage.Input = llm.Known(input)
	}
	return out, nil
}

func (p *Provider) embed(ctx context.Context, req llm.EmbedRequest, texts []string) (embedResponse, error) {
	var out embedResponse
	requests := make([]embedRequest, len(texts))
	for i := range texts {
		requests[i] = embedRequest{modelName(req.Model), content{Parts: []part{{Text: &texts[i]}}}, tasks[req.Task], req.Dimensions}
	}
	body, err := json.Marshal(map[string]any{"requests": requests})
	if err != nil {
		return out, fmt.Errorf("write embedding request: %w", err)
	}
	resp, err := p.ask(ctx, modelPath(req.Model)+":batchEmbedContents", body)
	if err != nil {
		return out, err
	}
	defer resp.Body.Close()
	if err := json.NewDecoder(resp.Body).Decode(&out); err != nil {
		return out, fmt.Errorf("read embeddings: %w", err)
	}
	if len(out.Embeddings) != len(texts) {
		return out, fmt.Errorf("read embeddings: %d vectors for %d texts", len(out.Embeddings), len(texts))
	}
	return out, nil
}
