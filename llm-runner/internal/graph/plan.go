package graph

import (
	"encoding/json"
	"fmt"
	"slices"
	"strings"

	"home.arpa/lab/llm-runner/internal/llm"
)

// A Plan is how an inquiry goes about a question. The zero value reads everything, and answers in one piece.
type Plan struct {
	Questions []string `json:"questions,omitempty"` // to look up one by one
	Sources   []string `json:"sources,omitempty"`   // of PlanSources; none: all
	Sections  []string `json:"sections,omitempty"`  // of the report; none: it has none
	Wish      string   `json:"wish,omitempty"`      // what a person wants to be different, until that is done
}

// PlanSources are where a plan may look: the notes and what was put beside them, what is remembered, the web.
var PlanSources = []string{"vault", "memory", "web"}

const (
	mostWishes   = 5   // how often a plan is changed in a person's words
	mostSections = 6   //
	longestTitle = 100 // of a section, in bytes
	longestAsk   = 500 // one question of a plan, in bytes
)

// reads says whether the plan looks in a collection.
func (p Plan) reads(collection string) bool {
	if collection == "uploads" {
		collection = "vault"
	}
	return len(p.Sources) == 0 || slices.Contains(p.Sources, collection)
}

// Check returns the plan without blanks, doubles and markup, and what is wrong with it.
func (p Plan) Check() (Plan, error) {
	out := Plan{Wish: strings.TrimSpace(p.Wish)}
	for _, q := range p.Questions {
		if q = oneLine(q); q != "" && !slices.Contains(out.Questions, q) {
			out.Questions = append(out.Questions, q)
		}
		if len(q) > longestAsk {
			return p, fmt.Errorf("plan: a question has %d bytes: shorten it to %d", len(q), longestAsk)
		}
	}
	for _, s := range p.Sections {
		if s = oneLine(strings.Trim(s, "#*_ \t")); s != "" && !slices.Contains(out.Sections, s) {
			out.Sections = append(out.Sections, s)
		}
		if len(s) > longestTitle {
			return p, fmt.Errorf("plan: the section %.20q... has %d bytes: shorten it to %d", s, len(s), longestTitle)
		}
	}
	for _, s := range p.Sources {
		if !slices.Contains(PlanSources, s) {
			return p, fmt.Errorf("plan: %q is no source: choose of %s", s, strings.Join(PlanSources, ", "))
		}
		if !slices.Contains(out.Sources, s) {
			out.Sources = append(out.Sources, s)
		}
	}
	switch {
	case len(out.Wish) > longestAsk:
		return p, fmt.Errorf("plan: what should be different has %d bytes: shorten it to %d", len(out.Wish), longestAsk)
	case out.Wish != "": // the rest is made anew
	case len(out.Questions) == 0:
		return p, fmt.Errorf("plan: it has no question: write at least one")
	case len(out.Questions) > 2*parts:
		return p, fmt.Errorf("plan: it has %d questions: %d are the most", len(out.Questions), 2*parts)
	case len(out.Sections) > mostSections:
		return p, fmt.Errorf("plan: it has %d sections: %d are the most", len(out.Sections), mostSections)
	case len(p.Sources) == 0:
		return p, fmt.Errorf("plan: it looks nowhere: choose of %s", strings.Join(PlanSources, ", "))
	}
	return out, nil
}

// oneLine is a text on one line, without what a page would take for markup.
func oneLine(s string) string {
	return strings.Join(strings.Fields(strings.NewReplacer("<", " ", ">", " ", "[", "(", "]", ")", "`", "'").Replace(s)), " ")
}

// planned says that a question is taken apart before anything is searched.
func planned(x *Inquiry) bool { return compound(x) || x.Report || x.Asks }

// thorough says that notes are taken on each source before anything is written.
func (x *Inquiry) thorough() bool { return x.Report || len(x.Plan.Sections) > 1 }

// decompose makes the plan: what is looked up, and what sections the answer has.
func (q *Inquiries) decompose(s *Step, x *Inquiry) error {
	text := x.Question
	if x.Plan.Wish != "" {
		old, _ := json.Marshal(x.Plan.Questions) // a list of texts
		text += "\n\nThe plan so far: " + string(old) + "\nWhat the person wants to be different: " + x.Plan.Wish
	}
	var out struct{ Questions, Sections []string }
	err := s.Fill(q.Reader, "questions", x.ask(fmt.Sprintf("Take the question apart into at most %d short questions that can be looked up one by one. Keep its language and its names. "+
		"If it is one question already, give it back alone. Give titles for at most %d sections of an answer too, in its language; none where a few sentences are enough.", parts, parts), text),
		json.RawMessage(`{"type":"object","properties":{"questions":{"type":"array","items":{"type":"string"}},"sections":{"type":"array","items":{"type":"string"}}},"required":["questions"],"additionalProperties":false}`), &out)
	if err != nil && !IsForm(err) {
		return err
	}
	p := Plan{Sources: x.Plan.Sources}
	for _, one := range out.Questions {
		if one = oneLine(one); one != "" && len(one) <= longestAsk && !slices.Contains(p.Questions, one) && len(p.Questions) < parts {
			p.Questions = append(p.Questions, one)
		}
	}
	for _, one := range out.Sections {
		if one = oneLine(strings.Trim(one, "#*_ \t")); one != "" && len(one) <= longestTitle && !slices.Contains(p.Sections, one) && len(p.Sections) < parts {
			p.Sections = append(p.Sections, one)
		}
	}
	if len(p.Sections) == 1 {
		p.Sections = nil // that is no division
	}
	x.Plan, x.Questions = p, []string{x.Question}
	for _, one := range p.Questions {
		if one != x.Question {
			x.Questions = append(x.Questions, one)
		}
	}
	if len(p.Questions) == 0 {
		x.Plan.Questions = []string{x.Question}
	}
	s.Note("%s", plural(len(x.Questions), "question", "questions"))
	return nil
}

// plan shows the plan to a person, and goes on as they decide: a Plan as JSON. A Wish has it made anew, and shown again.
func (q *Inquiries) plan(s *Step, x *Inquiry) error {
	text, err := s.Decide("Shall it go about it like this?")
	if err != nil {
		return err
	}
	var p Plan
	if err := json.Unmarshal([]byte(text), &p); err != nil {
		return &llm.Error{Kind: llm.BadRequest, Provider: Name, Message: "the decision about the plan is no plan: " + err.Error()}
	}
	if p, err = p.Check(); err != nil {
		return &llm.Error{Kind: llm.BadRequest, Provider: Name, Message: err.Error()}
	}
	if p.Wish != "" {
		x.Plan.Wish = p.Wish
		s.Note("to be made anew: %s", p.Wish)
		return nil
	}
	x.Plan, x.Questions, x.Report = p, p.Questions, true
	s.Note("%s, %s", plural(len(p.Questions), "question", "questions"), strings.Join(p.Sources, " and "))
	return nil
}
