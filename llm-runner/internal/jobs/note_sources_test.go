package jobs

import (
	"testing"

	"home.arpa/lab/llm-runner/internal/llm"
)

func TestSourcesOfEveryKindAreLinked(t *testing.T) {
	for want, c := range map[string]llm.Citation{
		"[[House/heat#Filter|House/heat, Filter]]":             {Path: "House/heat.md", Heading: []string{"Filter"}},
		"[[scans/report.pdf#page=3|scans/report.pdf, page 3]]": {Path: "scans/report.pdf", Page: 3},
		"[[plan.docx]]": {Path: "plan.docx", Heading: []string{"Plan"}},
		`[a \[b\]](<https://example.org/a?b=(c)>)`: {Path: "a [b]", Collection: "web", URL: "https://example.org/a?b=(c)"},
		"boiler.pdf (uploads), page 2":             {Path: "boiler.pdf", Collection: "uploads", Page: 2},
		"x (web)":                                  {Path: "x", Collection: "web", URL: "javascript:alert(1)"},
	} {
		if got := cited(c); got != want {
			t.Errorf("%+v is linked as %s, want %s", c, got, want)
		}
	}
}
