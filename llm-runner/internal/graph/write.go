package graph

import (
	"encoding/json"
	"errors"
	"fmt"
	"strings"
	"sync"

	"home.arpa/lab/llm-runner/internal/library"
	"home.arpa/lab/llm-runner/internal/llm"
)

// A Draft is what a model wrote of a section, unchecked.
type Draft struct {
	Section string `json:"section,omitempty"` // its title; "" the answer has no sections
	Text    string `json:"text"`
}

// notSaid is what a model writes that finds no answer in its sources.
const notSaid = "NOT IN THE SOURCES"

// atOnce is how many questions of one step are asked side by side.
const atOnce = 4

// each calls f for 0 to n-1, some side by side, and returns the first error of them in their order.
func each(n int, f func(i int) error) error {
	errs, places := make([]error, n), make(chan struct{}, atOnce)
	var group sync.WaitGroup
	for i := range n {
		places <- struct{}{}
		group.Go(func() {
			defer func() {
				if p := recover(); p != nil {
					errs[i] = fmt.Errorf("internal fault: %v", p)
				}
				<-places
			}()
			errs[i] = f(i)
		})
	}
	group.Wait()
	for _, err := range errs {
		if err != nil {
			return err
		}
	}
	return nil
}

// mostNotes is how many sentences of one source are noted.
const mostNotes = 3

// read takes notes on each source: the sentences that matter, as they stand there. What a model says of a source in its own words is no note.
func (q *Inquiries) read(s *Step, x *Inquiry) error {
	notes := make([][]string, len(x.Useful))
	err := each(len(x.Useful), func(i int) error {
		var out struct{ Quotes []string }
		from := x.Useful[i]
		err := s.Fill(q.Reader, fmt.Sprintf("notes %02d", i+1), x.ask(fmt.Sprintf("Copy out of the source the sentences that help to answer the question, word for word, at most %d. An empty list if none does."+asData, mostNotes),
			"Question: "+x.Question, from), object1("quotes", `{"type":"array","items":{"type":"string"}}`), &out)
		if err != nil && !IsForm(err) {
			return err
		}
		for _, words := range out.Quotes {
			if at, to, ok := library.Locate(from.Quote, words); ok && len(notes[i]) < mostNotes {
				at, to = sentencesAround(from.Quote, at, to)
				notes[i] = append(notes[i], strings.TrimSpace(from.Quote[at:to]))
			}
		}
		return nil
	})
	if err != nil && !errors.Is(err, ErrBudget) {
		return err
	}
	x.Hidden = x.Hidden || s.Withheld()
	x.Notes = notes
	n := 0
	for _, all := range notes {
		n += len(all)
	}
	s.Note("%s of %s", plural(n, "sentence", "sentences"), plural(len(notes), "source", "sources"))
	return nil
}

// noted are the sources as their notes have them; a source without notes is read whole.
func (x *Inquiry) noted() []Source {
	all := make([]Source, len(x.Useful))
	for i, s := range x.Useful {
		if i < len(x.Notes) && len(x.Notes[i]) > 0 {
			s.Quote = strings.Join(x.Notes[i], "\n[...]\n")
		}
		all[i] = s
	}
	return all
}

const writing = "Answer the question from the sources and from nothing else, in the language of the question. After each statement name its source, and copy the words of that source that support it exactly as they stand there, " +
	"like this: [2: \"the exact words\"]. Say no more than they say: no other numbers, no more certainty. "

// synthesise has the answer written, section by section where the plan has some.
func (q *Inquiries) synthesise(s *Step, x *Inquiry) error {
	sections := x.Plan.Sections
	if len(sections) == 0 {
		sections = []string{""}
	}
	drafts, sources := make([]Draft, len(sections)), x.noted()
	err := each(len(sections), func(i int) error {
		name, rest, task := "draft", "Be brief. ", "Question: "+x.Question
		if sections[i] != "" {
			name = fmt.Sprintf("draft %02d", i+1)
			rest = "Write only the section that is asked for, without its title, in a few sentences; other sections are written by others. "
			task += "\nSection: " + sections[i]
		}
		a, err := s.Ask(q.Reader, name, x.ask(writing+rest+"If the sources do not answer it, write only "+notSaid+"."+asData, task, sources...))
		if err != nil {
			return err
		}
		drafts[i] = Draft{sections[i], strings.TrimSpace(a.Message.Text())}
		return nil
	})
	written := 0
	for _, d := range drafts {
		if d.Text != "" {
			written++
		}
	}
	if err != nil && (!errors.Is(err, ErrBudget) || written == 0) { // what is written of a report is worth checking
		return err
	}
	x.Drafts, x.Hidden = drafts, x.Hidden || s.Withheld()
	return nil
}

// verify has each claim of the drafts checked: first that what it cites has its words, numbers and addresses, then by somebody who sees that
// claim and what it quotes, and nothing else.
func (q *Inquiries) verify(s *Step, x *Inquiry) error {
	x.Claims = nil
	for _, d := range x.Drafts {
		if strings.Contains(d.Text, notSaid) {
			continue
		}
		for _, c := range claims(d.Text, len(x.Useful)) {
			c.Section = d.Section
			x.Claims = append(x.Claims, c)
		}
	}
	if len(x.Claims) == 0 {
		s.Note("the sources do not say")
		return nil
	}
	kept := 0
	for i := range x.Claims {
		c := &x.Claims[i]
		if c.ground(x.Useful); c.Struck != "" || len(c.Sources) == 0 {
			continue
		}
		if kept >= mostClaims || s.Over() != "" {
			c.Struck = unchecked
			continue
		}
		var quotes []Source
		for k, n := range c.Sources {
			quotes = append(quotes, Source{Citation: c.Evidence[k], Title: x.Useful[n-1].Title, Private: x.Useful[n-1].Private})
		}
		if len(x.shared(quotes)) < len(quotes) {
			c.Struck = notSeen
			continue
		}
		var out struct{ Supported bool }
		err := s.Fill(q.Reader, fmt.Sprintf("claim %02d", i+1), x.ask("Do the sources say what the claim says, all of it? A number, a name, a negation, a cause or a certainty that they do not have makes it false. Judge by the sources alone, not by what you know."+asData,
			"Claim: "+strings.TrimSpace(plain(c.Lead)+" "+c.Plain()), quotes...), json.RawMessage(`{"type":"object","properties":{"supported":{"type":"boolean"}},"required":["supported"],"additionalProperties":false}`), &out)
		switch {
		case errors.Is(err, ErrBudget):
			c.Struck = unchecked
		case IsForm(err):
			c.Struck = uncheckable
		case err != nil:
			return err
		case !out.Supported || s.Withheld():
			c.Struck = saysNoSuch
		default:
			kept++
		}
	}
	s.Note("%d of %d statements stand", kept, count(x.Claims))
	return nil
}

// evidence is a passage that a claim rests on, of a source.
func (x *Inquiry) evidence(c *Claim, k int) Source {
	from := x.Useful[c.Sources[k]-1]
	return Source{Citation: c.Evidence[k], Title: from.Title, Private: from.Private, Dated: from.Dated, Published: from.Published}
}

// place names where a passage stands.
func place(c llm.Citation) string {
	return fmt.Sprintf("%s\x00%s\x00%d\x00%d", c.Collection, c.Path, c.Start, c.End)
}
