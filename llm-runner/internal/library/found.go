package library

import (
	"fmt"
	"strings"
)

// Found is a Hit as pages, the API and the command line show it.
type Found struct {
	Path       string   `json:"path"`
	Collection string   `json:"collection"`
	Title      string   `json:"title"`
	Heading    []string `json:"heading"` // the trail, outermost first
	Start      int      `json:"start"`   // bytes of the note, half-open
	End        int      `json:"end"`
	Line       int      `json:"line"` // 1-based
	EndLine    int      `json:"end_line"`
	Page       int      `json:"page,omitempty"` // 1-based; 0: the document has no pages
	Score      float64  `json:"score"`
	Snippet    Snippet  `json:"snippet"`
	Quote      string   `json:"-"` // all of it
	Why        Why      `json:"why"`
}

// Why says how a passage came to its place.
type Why struct {
	Lane     string  `json:"lane"`     // by what it was found: words, meaning or both
	Words    Place   `json:"words"`    // where it is by its words
	Meaning  Place   `json:"meaning"`  // where it is by its meaning
	Reranked int     `json:"reranked"` // the place that a model gave it; 0 none
	Close    float64 `json:"close"`    // what the nearness of the words, and a heading that says nothing else, add to the score of the words
	Coverage float64 `json:"coverage"` // see Hit
	Missed   float64 `json:"missed"`   // see Hit
	Exact    bool    `json:"exact"`    // it is named, or a phrase is in it, and so it comes first
	Answers  bool    `json:"answers"`  // as far as words can tell
}

// Shown is a Result as pages, the API and the command line show it.
type Shown struct {
	Found []Found `json:"found"`
	Lanes []Lane  `json:"lanes"`
	Cut   []Cut   `json:"cut"`
}

// Show returns a result as it is shown.
func Show(r Result) Shown {
	all := Shown{make([]Found, len(r.Hits)), append([]Lane{}, r.Lanes...), append([]Cut{}, r.Cut...)}
	for i, h := range r.Hits {
		trail := h.Heading
		if trail == nil {
			trail = []string{}
		}
		lane := "both"
		switch {
		case h.vector.Rank == 0:
			lane = "words"
		case h.words.Rank == 0:
			lane = "meaning"
		}
		all.Found[i] = Found{h.Path, h.Collection, h.Title, trail, h.Start, h.End, h.Line, h.EndLine, pageAt(h.pages, h.Start+len(h.Quote)-len(strings.TrimLeft(h.Quote, " \t\r\n"))), h.Score, h.Snippet, h.Quote,
			Why{lane, h.words, h.vector, h.reranked, h.close, h.Coverage, h.Missed, h.exact, h.says()}}
	}
	return all
}

// Sentence says in words how a passage came to its place.
func (w Why) Sentence() string {
	var parts []string
	if w.Exact {
		parts = append(parts, "it is named, or holds the phrase")
	}
	if w.Words.Rank > 0 {
		parts = append(parts, fmt.Sprintf("number %d by its words (%.2f)", w.Words.Rank, w.Words.Score))
	}
	if w.Meaning.Rank > 0 {
		parts = append(parts, fmt.Sprintf("number %d by its meaning (%.2f)", w.Meaning.Rank, w.Meaning.Score))
	}
	if w.Reranked > 0 {
		parts = append(parts, fmt.Sprintf("number %d by the model that orders the best", w.Reranked))
	}
	parts = append(parts, fmt.Sprintf("holds %.0f %% of the question's words by weight", 100*w.Coverage))
	return strings.Join(parts, ", ")
}

// Sentences say in words what was sought where, and what was left out.
func (s Shown) Sentences() []string {
	var all []string
	for _, l := range s.Lanes {
		name := map[string]string{Words: "words", Vector: "meaning", Sparse: "the words of the store", Reranked: "the model that orders the best"}[l.Name]
		if l.Says != "" {
			all = append(all, fmt.Sprintf("By %s: nothing, since %s.", name, l.Says))
			continue
		}
		all = append(all, fmt.Sprintf("By %s: %d passages in %.0f ms.", name, l.Found, l.MS))
	}
	for _, c := range s.Cut {
		all = append(all, fmt.Sprintf("Left out: %d, %s.", c.Count, c.Why))
	}
	return all
}
