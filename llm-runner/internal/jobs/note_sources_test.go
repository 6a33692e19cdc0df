package jobs

import (
	"testing"
	"time"

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

func TestANoteBelongsToAJobByItsNumberAndItsEnd(t *testing.T) {
	j := Job{ID: 1, Title: "x", Answer: "now", Ended: time.Date(2026, 11, 1, 1, 30, 0, 0, time.UTC)}
	other := j
	other.Ended, other.Answer = j.Ended.Add(time.Hour), "of another database, "+j.created()
	next := j
	next.ID = 12
	for _, tt := range []struct {
		note []byte
		want bool
	}{{render(&j, "", 0, "", ""), true}, {render(&other, "", 0, "", ""), false}, {render(&next, "", 0, "", ""), false}, {[]byte("---\n" + owned(1)), false}, {nil, false}} {
		if got := j.isNoteOf(tt.note); got != tt.want {
			t.Errorf("%v: %q", got, tt.note)
		}
	}
}
