package library

import (
	"fmt"
	"slices"
	"strings"

	"home.arpa/lab/llm-runner/internal/llm"
)

// A Question is what a Vault is asked, with what counts of the request: it can be kept as JSON.
type Question struct {
	Asked       string   `json:"asked"`             // so that it can be searched for alone
	Private     bool     `json:"private,omitempty"` // it rests itself on notes that are never sent: a chain's step, with the answer before in it
	Before      []Said   `json:"before,omitempty"`  // the last words before it
	Told        bool     `json:"told,omitempty"`    // an answer before said how to connect a model
	Purpose     string   `json:"purpose,omitempty"` // this and what follows as in llm.Request
	Project     bool     `json:"project,omitempty"`
	Requires    string   `json:"requires,omitempty"`
	MaxTokens   int      `json:"max_tokens,omitempty"`
	Temperature *float64 `json:"temperature,omitempty"`
	TopP        *float64 `json:"top_p,omitempty"`
	Seed        *int64   `json:"seed,omitempty"`
	Stop        []string `json:"stop,omitempty"`
	Effort      string   `json:"effort,omitempty"`
}

// Said is a part of an earlier message.
type Said struct {
	Role    llm.Role `json:"role"`
	First   bool     `json:"first,omitempty"` // of its message
	Text    string   `json:"text"`
	Private bool     `json:"private,omitempty"`
}

// NewQuestion returns what a request to a Vault asks. Only Model and Quotes are models of it.
func NewQuestion(req llm.Request) (Question, error) {
	q := Question{Private: isPrivate(req), Told: saidBefore(req.Messages), Purpose: req.Purpose, Project: req.Project, Requires: req.Requires,
		MaxTokens: req.MaxTokens, Temperature: req.Temperature, TopP: req.TopP, Seed: req.Seed, Stop: req.Stop, Effort: req.Effort}
	if req.Model != "" && req.Model != Model && req.Model != Quotes {
		return q, &llm.Error{Kind: llm.NotFound, Provider: Model, Model: req.Model,
			Message: fmt.Sprintf("there is no model %q here, only %q and %q", req.Model, Model, Quotes)}
	}
	var err error
	if q.Asked, err = question(req.Messages); err != nil {
		return q, err
	}
	q.Before = lately(req.Messages)
	return q, nil
}

// question returns what is asked: the last message of the user, and the one before it where the last says too little to
// be understood alone ("and on Windows?").
func question(messages []llm.Message) (string, error) {
	var said []string
	for _, m := range messages {
		if text := strings.TrimSpace(m.Text()); m.Role == llm.User && text != "" {
			said = append(said, text)
		}
	}
	if len(said) == 0 {
		return "", &llm.Error{Kind: llm.BadRequest, Provider: Model, Model: Model, Message: "nothing is asked: the request has no message of the user"}
	}
	last := said[len(said)-1]
	if len(said) > 1 && meaning(last) < 2 && len(quotations(last)) == 0 {
		return said[len(said)-2] + "\n" + last, nil
	}
	return last, nil
}

// meaning counts the words of text that are not stop words.
func meaning(text string) int {
	n := 0
	for _, t := range wordsOf(text) {
		if !isStop(t.word) {
			n++
		}
	}
	return n
}

// isPrivate says that what is asked rests itself on notes that are never sent: a chain's step, with the answer before in it.
func isPrivate(req llm.Request) bool {
	for _, m := range req.Messages {
		if m.Role == llm.User && slices.ContainsFunc(m.Parts, func(p llm.Part) bool { return p.Private }) {
			return true
		}
	}
	return false
}

func saidBefore(messages []llm.Message) bool {
	for _, m := range messages {
		if m.Role == llm.Assistant && strings.Contains(m.Text(), strings.TrimSpace(saysTheWayOn)) {
			return true
		}
	}
	return false
}

const (
	lastWords   = 4    // earlier messages that come along
	earlierMost = 2000 // bytes of each part
)

// lately is what was said before the last message of the user, as far as it comes along. It begins with a message of the user.
func lately(messages []llm.Message) (all []Said) {
	for i := len(messages) - 1; i >= 0; i-- {
		if messages[i].Role == llm.User {
			messages = messages[:i]
			break
		}
	}
	for _, m := range messages[max(0, len(messages)-lastWords):] {
		if m.Role != llm.User && (m.Role != llm.Assistant || len(all) == 0) {
			continue
		}
		first := true
		for _, p := range m.Parts {
			if p.Text != "" {
				all = append(all, Said{m.Role, first, strings.ToValidUTF8(p.Text[:min(len(p.Text), earlierMost)], ""), p.Private})
				first = false
			}
		}
	}
	return all
}

// prompt is what the model is asked: earlier words, the sources under their numbers, the question. Each source is a part of its own, so that
// those which are never sent can be left out where it is known who reads.
func (q Question) prompt(model string, all []Numbered) llm.Request {
	messages := []llm.Message{llm.Says(llm.System, instructions)}
	for _, s := range q.Before {
		part := llm.Part{Private: s.Private, Text: s.Text}
		if s.First {
			messages = append(messages, llm.Message{Role: s.Role})
		}
		last := &messages[len(messages)-1]
		last.Parts = append(last.Parts, part)
	}
	m := llm.Message{Role: llm.User, Parts: []llm.Part{{Text: "Sources:\n\n"}}}
	for i, s := range all {
		var b strings.Builder
		fmt.Fprintf(&b, "[%d] %s", i+1, s.Path)
		if s.Page > 0 {
			fmt.Fprintf(&b, ", page %d", s.Page)
		}
		for _, h := range s.Heading {
			b.WriteString(" > " + h)
		}
		b.WriteString("\n" + strings.TrimSpace(s.Quote) + "\n\n")
		m.Parts = append(m.Parts, llm.Part{Private: s.Private, Text: b.String()})
	}
	m.Parts = append(m.Parts, llm.Part{Private: q.Private, Text: "Question: " + q.Asked})
	return llm.Request{Model: model, Messages: append(messages, m), Purpose: q.Purpose, Project: q.Project, Requires: q.Requires,
		MaxTokens: q.MaxTokens, Temperature: q.Temperature, TopP: q.TopP, Seed: q.Seed, Stop: q.Stop, Effort: q.Effort}
}
