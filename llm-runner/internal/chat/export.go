package chat

import (
	"context"
	"encoding/json"
	"fmt"
	"io"
	"strings"
	"time"

	"home.arpa/lab/llm-runner/internal/llm"
)

// ExportMarkdown writes the branch of a conversation that is shown.
func (s *Service) ExportMarkdown(ctx context.Context, w io.Writer, chat int64) error {
	c, err := s.Chat(ctx, chat)
	if err != nil {
		return err
	}
	all, err := s.Branch(ctx, chat)
	if err != nil {
		return err
	}
	var b strings.Builder
	fmt.Fprintf(&b, "# %s\n\n%s\n", c.Title, c.Created.UTC().Format(time.RFC3339))
	for _, m := range all {
		if m.Role == llm.User {
			fmt.Fprintf(&b, "\n## Question\n\n%s\n", m.Text)
			continue
		}
		b.WriteString("\n## Answer\n\n")
		if m.Text != "" {
			b.WriteString(m.Text + "\n\n")
		}
		if t := m.Turn; t.Route.Model != "" {
			fmt.Fprintf(&b, "*%s*", llm.On(t.Route.Model, t.Route.Provider))
		}
		if m.Turn.State != Finished {
			fmt.Fprintf(&b, " *(%s)*", strings.TrimSpace(string(m.Turn.State)+" "+m.Turn.Error))
		}
		b.WriteString("\n")
		for i, q := range m.Turn.Citations {
			where := q.Path
			if q.Collection != "" {
				where = q.Collection + ": " + where
			}
			if q.Page > 0 {
				where += fmt.Sprintf(", page %d", q.Page)
			}
			fmt.Fprintf(&b, "\n%d. %s, lines %d-%d\n", i+1, where, q.Line, q.EndLine)
		}
	}
	_, err = io.WriteString(w, b.String())
	return err
}

// ExportJSON writes a conversation with all its branches.
func (s *Service) ExportJSON(ctx context.Context, w io.Writer, chat int64) error {
	c, err := s.Chat(ctx, chat)
	if err != nil {
		return err
	}
	all, err := s.Tree(ctx, chat)
	if err != nil {
		return err
	}
	e := json.NewEncoder(w)
	e.SetIndent("", "  ")
	return e.Encode(struct {
		Chat
		Messages []Message `json:"messages"`
	}{c, all})
}
