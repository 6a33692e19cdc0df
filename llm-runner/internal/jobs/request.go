package jobs

import (
	"encoding/json"
	"fmt"
	"strings"
	"time"

	"home.arpa/lab/llm-runner/internal/llm"
	"home.arpa/lab/llm-runner/internal/provider/openai/wire"
)

// parse reads a chat request of OpenAI's API, which may leave the model out.
func parse(raw json.RawMessage) (llm.Request, error) {
	var fields map[string]json.RawMessage
	if err := json.Unmarshal(raw, &fields); err != nil {
		return llm.Request{}, fmt.Errorf("it is not a JSON object: %w", err)
	}
	var model string
	if json.Unmarshal(fields["model"], &model) != nil || model == "" {
		fields["model"] = json.RawMessage(`"default"`)
	}
	whole, err := json.Marshal(fields)
	if err != nil {
		return llm.Request{}, err
	}
	req, opts, err := wire.ParseRequest(whole)
	if err == nil && opts.N > 1 {
		err = fmt.Errorf("n: a job has one answer: send %d jobs", opts.N)
	}
	req.Model = model
	return req, err
}

// question is the last thing a person said in a request: what the job is called and shown by.
func question(req llm.Request) string {
	for i := len(req.Messages) - 1; i >= 0; i-- {
		if text := strings.TrimSpace(req.Messages[i].Text()); req.Messages[i].Role == llm.User && text != "" {
			return text
		}
	}
	return "a chat request"
}

// respond writes an answer as OpenAI's API does.
func respond(j *Job, a llm.Answer) json.RawMessage {
	meta := wire.Meta{ID: fmt.Sprintf("chatcmpl-job-%d", j.ID), Created: time.Now().Unix()}
	if a.Route != nil {
		meta.Model = a.Route.Model
	}
	return wire.AppendResponse(nil, a, meta)
}
