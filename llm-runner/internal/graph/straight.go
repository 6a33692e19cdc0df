package graph

import (
	"context"
	"errors"
	"iter"
	"regexp"
	"strings"

	"home.arpa/lab/llm-runner/internal/library"
	"home.arpa/lab/llm-runner/internal/llm"
)

// The ways from a question to an answer. Auto is which of them a rule decides.
const (
	Auto     = "auto"
	Straight = "straight" // one question to a model, whose words are shown as they come
	Thorough = "thorough" // taken apart, graded, written from notes, each statement checked
)

var (
	// asksMore are words by which a person asks for more than a short answer: not those that a question may well be about.
	asksMore = regexp.MustCompile(`(?i)\b(thoroughly|in[- ]depth|in (great|full) detail|exhaustively|comprehensively|gründlich|ausführlich|umfassend|im detail)\b|^\W*((please|bitte)\W+)?(do (some )?research|research|recherchiere?)\b`)
	// compares are words by which two things are held against each other.
	compares = regexp.MustCompile(`(?i)\b(compare|versus|vs|differences? between|pros and cons|advantages and disadvantages|vergleiche|im vergleich|unterschiede? zwischen|vor- und nachteile)\b`)
	// asked is a question's end: no mark within an address.
	asked = regexp.MustCompile(`\?+(\W|$)`)
)

// leastAsked is how many words stand before a question mark that ends a question of its own ("really?" is none).
const leastAsked = 3

// wayOf decides by rule how a question is answered, and says why. No model is asked: who asks in passing waits for nothing.
func wayOf(x *Inquiry) (way, why string) {
	switch {
	case x.Wanted == Straight && !x.Writes:
		return Straight, "no model can write"
	case x.Wanted == Straight:
		return Straight, "it is always so here"
	case x.Wanted != Auto:
		return Thorough, "it is asked for"
	case asksMore.MatchString(x.Asked):
		return Thorough, "more than a short answer is asked for"
	case compares.MatchString(x.Asked):
		return Thorough, "things are compared"
	case questions(x.Asked) > 1:
		return Thorough, plural(questions(x.Asked), "question", "questions") + " at once"
	}
	return Straight, "one question"
}

// questions counts the questions of a text, by their marks.
func questions(text string) (n int) {
	parts := asked.Split(text, -1)
	for _, p := range parts[:len(parts)-1] {
		if len(strings.Fields(p)) >= leastAsked {
			n++
		}
	}
	return n
}

// straight says that an inquiry goes the straight way.
func (x *Inquiry) straight() bool { return x.Way == Straight }

// writes says that a model writes on the straight way.
func (x *Inquiry) writes() bool { return x.straight() && x.Writes }

// route decides the way.
func (q *Inquiries) route(s *Step, x *Inquiry) error {
	var why string
	x.Way, why = wayOf(x)
	s.Way(x.Way)
	s.Note("%s: %s", x.Way, why)
	return nil
}

// look finds what may answer.
func (q *Inquiries) look(s *Step, x *Inquiry) (err error) {
	if x.Leads, err = q.Notes.Look(s.Context(), x.Ask, x.Writes); err == nil {
		s.Note("%s", plural(len(x.Leads), "passage", "passages"))
	}
	return err
}

// write has a model answer from the passages, whose words are shown as they come, each citation checked.
func (q *Inquiries) write(s *Step, x *Inquiry) (err error) {
	if x.Numbered, _, err = q.Notes.Gather(s.Context(), x.Ask, x.Leads); err != nil {
		return err
	}
	if len(x.Numbered) == 0 {
		s.Note("there is nothing to write from")
		return nil
	}
	x.Draft, err = q.Notes.Write(s.Context(), x.Ask, x.Model, x.Numbered,
		func(req llm.Request) iter.Seq2[llm.Event, error] { return s.Listen(q.Reader, "answer", req) }, x.show(s))
	if err != nil {
		return err
	}
	d := x.Draft
	switch {
	case d.Opening != "":
		s.Note("%s", strings.TrimSuffix(d.Opening, "."))
	case !d.Answers():
		s.Note("the model finds no answer in %s", plural(len(x.Numbered), "passage", "passages"))
	default:
		s.Note("from %s: %d cited, %s left out", plural(len(x.Numbered), "passage", "passages"), len(d.Cited), plural(d.Dropped, "citation", "citations"))
	}
	return nil
}

// show tells a part of the answer, and keeps it. What a process before this one kept is told first.
func (x *Inquiry) show(s *Step) func(llm.Event) bool {
	return func(ev llm.Event) bool {
		if x.Answer != "" && !s.Told() && !s.Tell(x.whole()) {
			return false
		}
		x.Answer += ev.Text
		x.Cited = append(x.Cited, ev.Citations...)
		x.Private = x.Private || ev.Private
		return s.Tell(ev)
	}
}

// whole is the answer so far, at once.
func (x *Inquiry) whole() llm.Event {
	ev := llm.Event{Text: x.Answer, Citations: x.Cited, Private: x.Private}
	if x.Draft != nil {
		ev.Route = x.Draft.Route
	}
	return ev
}

// close puts below the model's words what a reader must know, or the passages in their place.
func (q *Inquiries) close(s *Step, x *Inquiry) error {
	end, err := q.Notes.Close(s.Context(), x.Ask, x.Leads, x.Draft, x.show(s))
	if err != nil {
		return err
	}
	x.Private = x.Private || end.Private
	if x.Draft == nil || !x.Draft.Answers() {
		s.Note("%s shown in place of an answer", plural(len(x.Cited), "passage is", "passages are"))
		return nil
	}
	x.Known = true
	s.Note("%s", plural(len(x.Cited), "source", "sources"))
	return nil
}

// Vault is the provider of the model vault: of the same graph, which decides its way.
func (q *Inquiries) Vault() llm.Provider { return vault{q} }

type vault struct{ *Inquiries }

// Models implements llm.Lister.
func (v vault) Models(ctx context.Context) ([]llm.ModelInfo, error) { return v.Notes.Models(ctx) }

// Stream implements llm.Provider. Straight on, what the model writes is shown as it comes; the thorough way is told in Thinking, as that of Inquiries is.
func (v vault) Stream(ctx context.Context, req llm.Request) iter.Seq2[llm.Event, error] {
	if req.Model == library.Quotes {
		return v.Notes.Stream(ctx, req)
	}
	return func(yield func(llm.Event, error) bool) {
		x, err := v.asked(ctx, req)
		switch w, _ := wayOf(&x); {
		case err != nil:
			yield(llm.Event{}, failed(ctx, err, library.Model, false))
		case w == Thorough:
			v.thorough(ctx, req, x, library.Model, yield)
		default:
			v.direct(ctx, req, x, yield)
		}
	}
}

// asked begins an inquiry of the model vault.
func (v vault) asked(ctx context.Context, req llm.Request) (x Inquiry, err error) {
	if err := ctx.Err(); err != nil {
		return x, err
	}
	ask, err := library.NewQuestion(req)
	if err != nil {
		return x, err
	}
	model, writes := v.Model(req)
	x, err = inquire(req, model)
	if x.Ask, x.Writes, x.Wanted = ask, writes, v.Way; x.Wanted == "" {
		x.Wanted = Auto
	}
	if err != nil { // the last word is not the user's: it is what they said last that is asked
		x.Asked = ask.Asked
	}
	if err != nil || !writes {
		x.Wanted = Straight
	}
	return x, nil
}

// direct runs the straight way in the caller's own routine, so that words are shown by whoever makes them.
func (v vault) direct(ctx context.Context, req llm.Request, x Inquiry, yield func(llm.Event, error) bool) {
	told, started, left := false, false, false
	tell := func(ev llm.Event) bool {
		told, started = true, started || ev.Text != ""
		left = left || !yield(ev, nil)
		return !left
	}
	_, x, err := v.Graph().Run(ctx, v.Store, Ask[Inquiry]{Key: req.Run, Chat: req.Chat, Title: x.Asked, State: x, As: library.Model, Fleeting: true, Tell: tell})
	if err == nil {
		err = ctx.Err()
	}
	switch {
	case left:
	case err != nil:
		yield(llm.Event{}, failed(ctx, err, library.Model, started))
	case told || tell(x.final()): // a process before this one had all of it
		yield(x.end(), nil)
	}
}

// end is the last event of the straight way's answer.
func (x *Inquiry) end() llm.Event {
	ev := llm.Event{Finish: llm.FinishStop, Usage: &llm.Usage{Input: llm.Known(0), Output: llm.Known(0)}, Private: x.Private}
	if d := x.Draft; d != nil {
		ev.Finish, ev.Route = d.Finish, d.Route
		if d.Usage != nil {
			ev.Usage = d.Usage
		}
	}
	return ev
}

// final is the answer with its remarks, at once.
func (x *Inquiry) final() llm.Event {
	ev := x.whole()
	if len(x.Remarks) > 0 {
		ev.Text += "\n\n" + strings.Join(x.Remarks, " ")
	}
	return ev
}

// failed is an error as a provider tells it.
func failed(ctx context.Context, err error, name string, started bool) error {
	var busy *llm.BusyError
	var e *llm.Error
	switch {
	case ctx.Err() != nil:
		return &llm.Error{Kind: llm.Cancelled, Provider: name, Model: name, Message: "cancelled by the caller", Started: started, Err: err}
	case errors.As(err, &busy), errors.As(err, &e):
		return err
	}
	return &llm.Error{Kind: llm.Unavailable, Provider: name, Model: name, Message: err.Error(), Started: started, Err: err}
}
