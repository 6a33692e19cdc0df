package route

import (
	"home.arpa/lab/llm-runner/internal/llm"
	"home.arpa/lab/llm-runner/internal/quota"
)

// imageTokens is what a picture is taken for. Providers count between 258 (Gemini, per tile) and some 1600 (Anthropic).
const imageTokens = 1000

// CostOf estimates what a request uses.
func CostOf(req *llm.Request) quota.Cost {
	bytes, images := 0, int64(0)
	for _, m := range req.Messages {
		for _, p := range m.Parts {
			bytes += len(p.Text)
			switch {
			case p.Thinking != nil:
				bytes += len(p.Thinking.Text)
			case p.Call != nil:
				bytes += len(p.Call.Name) + len(p.Call.Arguments)
			case p.Result != nil:
				bytes += len(p.Result.Text)
			case p.Image != nil:
				images++
			}
		}
	}
	for _, t := range req.Tools {
		bytes += len(t.Name) + len(t.Description) + len(t.Schema)
	}
	return quota.Cost{Input: quota.Tokens(bytes) + images*imageTokens, Output: int64(req.MaxTokens)}
}
