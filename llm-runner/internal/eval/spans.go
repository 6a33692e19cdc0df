package eval

import (
	"context"
	"encoding/json"
	"fmt"
	"os"
	"path/filepath"
	"unicode/utf8"

	"home.arpa/lab/llm-runner/internal/library"
)

// A Text is a document with questions, each with the spans of it that answer: document.md and questions.jsonl in one folder.
type Text struct {
	Document  []byte
	Questions []Question
}

// A Question and the characters (not bytes) [Start, End) of the document that answer it.
type Question struct {
	Question string `json:"question"`
	Spans    []Span `json:"spans"`
}

// A Span is characters of a document, half-open.
type Span struct {
	Start int `json:"start"`
	End   int `json:"end"`
}

// ReadText reads the folder dir.
func ReadText(dir string) (*Text, error) {
	var t Text
	var err error
	if t.Document, err = os.ReadFile(filepath.Join(dir, "document.md")); err != nil {
		return nil, fmt.Errorf("read document: %w", err)
	}
	size := utf8.RuneCount(t.Document)
	return &t, eachLine(filepath.Join(dir, "questions.jsonl"), func(line []byte) error {
		var q Question
		if err := json.Unmarshal(line, &q); err != nil {
			return err
		}
		for _, s := range q.Spans {
			if s.Start < 0 || s.Start >= s.End || s.End > size {
				return fmt.Errorf("the span [%d, %d) is not in the document of %d characters", s.Start, s.End, size)
			}
		}
		t.Questions = append(t.Questions, q)
		return nil
	})
}

// Coverage is how much of the spans was returned: means over the questions, in characters.
type Coverage struct {
	Recall    float64 `json:"recall"`       // of the spans' characters, those returned
	Precision float64 `json:"precision"`    // of those returned, the spans' characters
	IOU       float64 `json:"iou"`          // those in both of those in either
	Exact     float64 `json:"exact_quotes"` // of the passages, those whose bytes are the document's
	Chars     float64 `json:"chars"`        // returned

	Misses []Miss `json:"-"` // by question
}

// A Miss is a question whose spans were not all returned.
type Miss struct {
	Question string
	Recall   float64
}

// MeasureSpans indexes t in l, with vectors where the lane is one that needs them, and asks for the passages that answer each question in at most budget characters together.
func MeasureSpans(ctx context.Context, l *library.Library, t *Text, lane string, budget int) (*Coverage, error) {
	if err := l.Put(ctx, corpus, library.Document{Path: "document.md", Text: t.Document}); err != nil {
		return nil, err
	}
	if lane != library.Words {
		if err := l.Embed(ctx); err != nil {
			return nil, err
		}
	}
	at := characters(t.Document)
	var c Coverage
	for _, q := range t.Questions {
		hits, err := l.Passages(ctx, library.Request{Query: q.Question, Lane: lane, Filter: library.Filter{Collection: corpus}}, budget)
		if err != nil {
			return nil, fmt.Errorf("ask %q: %w", q.Question, err)
		}
		got := make([]bool, len(at))
		chars, exact := 0, 0
		for _, h := range hits {
			n := utf8.RuneCountInString(h.Quote)
			if chars+n > budget {
				return nil, fmt.Errorf("ask %q: %d characters were returned, more than %d", q.Question, chars+n, budget)
			}
			chars += n
			if h.Start < 0 || h.End > len(t.Document) || h.Start > h.End || string(t.Document[h.Start:h.End]) != h.Quote {
				continue
			}
			exact++
			for i := at[h.Start]; i < at[h.Start]+n; i++ {
				got[i] = true
			}
		}
		recall := c.add(q.Spans, got, chars)
		if len(hits) > 0 {
			c.Exact += float64(exact) / float64(len(hits))
		} else {
			c.Exact++
		}
		if recall < 1 {
			c.Misses = append(c.Misses, Miss{q.Question, recall})
		}
	}
	if n := float64(len(t.Questions)); n > 0 {
		c.Recall, c.Precision, c.IOU, c.Exact, c.Chars = c.Recall/n, c.Precision/n, c.IOU/n, c.Exact/n, c.Chars/n
	}
	return &c, nil
}

// add counts one question, and returns its recall.
func (c *Coverage) add(spans []Span, got []bool, chars int) (recall float64) {
	want := make([]bool, len(got))
	for _, s := range spans {
		for i := s.Start; i < s.End; i++ {
			want[i] = true
		}
	}
	var both, wanted, either int
	for i := range want {
		if want[i] {
			wanted++
		}
		if want[i] && got[i] {
			both++
		}
		if want[i] || got[i] {
			either++
		}
	}
	if wanted > 0 {
		recall = float64(both) / float64(wanted)
	}
	c.Recall += recall
	if chars > 0 {
		c.Precision += float64(both) / float64(chars)
	}
	if either > 0 {
		c.IOU += float64(both) / float64(either)
	}
	c.Chars += float64(chars)
	return recall
}

// characters returns for each byte of text, and for its end, which character it belongs to.
func characters(text []byte) []int {
	at := make([]int, len(text)+1)
	n := -1
	for i, b := range text {
		if utf8.RuneStart(b) || n < 0 {
			n++
		}
		at[i] = n
	}
	at[len(text)] = n + 1
	return at
}
