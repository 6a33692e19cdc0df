package graph

import (
	"context"
	"errors"
	"fmt"
	"iter"
	"slices"
	"strings"

	"home.arpa/lab/llm-runner/internal/llm"
	"home.arpa/lab/llm-runner/internal/toolbox/loop"
)

// Name is the provider's and its one model's; Plain is the model that answers without any other.
const (
	Name  = "research"
	Plain = "vault"
)

const (
	nearest    = 2 // passages that are shown where the sources do not say
	saysNot    = "Your notes do not say."
	saysThese  = " The nearest passages are these:"
	notReached = "The budget was used up before an answer was written."
)

// answer puts together what stands, numbers its sources in the order in which they are cited, and reads each of them once more.
func (q *Inquiries) answer(s *Step, x *Inquiry) error {
	if x.straight() {
		return q.close(s, x)
	}
	number := map[string]int{} // by place; 0: it does not stand there any more
	changed, struck := 0, 0
	x.Cited, x.Evidence, x.Known, x.Open = nil, nil, false, nil
	cite := func(from Source) int {
		at, had := number[place(from.Citation)]
		if !had {
			at = q.cite(s, x, from)
			if number[place(from.Citation)] = at; at == 0 {
				changed++
			}
		}
		return at
	}
	var out strings.Builder
	section := ""
	var lead *Claim // of a list: shown once something of the list stands
	says := map[string]bool{}
	for i := range x.Claims {
		c := &x.Claims[i]
		switch {
		case c.Struck != "":
			struck++
			breaks(&out, c.After)
		case len(c.Sources) == 0:
			lead = c
		default:
			var marks strings.Builder
			for k := range c.Sources {
				if at := cite(x.evidence(c, k)); at > 0 && !strings.Contains(marks.String(), fmt.Sprintf("[%d]", at)) {
					fmt.Fprintf(&marks, "[%d]", at)
				}
			}
			if marks.Len() == 0 {
				c.Struck = hasChanged
				struck++
				breaks(&out, c.After)
				continue
			}
			if c.Section != section {
				text := strings.TrimRight(out.String(), "\n ")
				out.Reset()
				if text != "" {
					text += "\n\n"
				}
				out.WriteString(text + "## " + c.Section + "\n\n")
				section = c.Section
			}
			if lead != nil && c.Lead == lead.Text {
				out.WriteString(lead.Plain() + lead.After)
			}
			lead, x.Known = nil, true
			says[c.Section] = true
			text, stop := c.Plain(), ""
			if n := len(strings.TrimRight(text, ".!?")); n < len(text) {
				text, stop = text[:n], text[n:]
			}
			out.WriteString(text + " " + marks.String() + stop + c.After)
		}
	}
	for _, title := range x.Plan.Sections {
		if !says[title] {
			x.Open = append(x.Open, title)
		}
	}
	over := s.Over()
	x.Answer = strings.TrimSpace(out.String())
	if !x.Known {
		x.Open = []string{x.Question}
		if x.Answer, x.Cited, x.Evidence = saysNot, nil, nil; over != "" && len(x.Drafts) == 0 && len(x.Found) > 0 {
			x.Answer = notReached
		}
		if len(x.Found) > 0 {
			var quotes strings.Builder
			for _, f := range x.Found {
				if len(x.Cited) < nearest && q.cite(s, x, f) > 0 {
					fmt.Fprintf(&quotes, "\n\n> %s\n\n[%d] %s", strings.ReplaceAll(harmless(excerpt(f.Quote)), "\n", "\n> "), len(x.Cited), escape(f.Path))
				}
			}
			if len(x.Cited) > 0 {
				x.Answer += saysThese + quotes.String()
			}
		}
	} else if len(x.Open) > 0 {
		x.Remarks = append(x.Remarks, "Nothing could be established about: "+strings.Join(x.Open, "; ")+".")
	}
	if struck > 0 {
		x.Remarks = append(x.Remarks, plural(struck, "statement was left out: what it cites", "statements were left out: what they cite")+" does not say so.")
	}
	if changed > 0 {
		x.Remarks = append(x.Remarks, plural(changed, "source has", "sources have")+" changed since they were read and are left out.")
	}
	if x.Hidden {
		x.Remarks = append(x.Remarks, "Some of what was found is never sent to a cloud provider, and was left out.")
	}
	if over != "" {
		x.Remarks = append(x.Remarks, "This is as far as the budget went ("+over+").")
	}
	s.Note("%s", plural(len(x.Cited), "source", "sources"))
	return nil
}

// harmless is a quotation without what a page would load: pictures and links show their words, markup is shown as it is written.
func harmless(quote string) string {
	return strings.TrimSpace(strings.ReplaceAll(pictures.ReplaceAllString(quote, "$1"), "<", "\\<"))
}

// cite reads a source once more and returns its number among those that are cited; 0 where it does not stand there any more.
func (q *Inquiries) cite(s *Step, x *Inquiry, from Source) int {
	c, ok := q.Stands(s.Context(), from)
	if !ok {
		return 0
	}
	from.Citation = c
	x.Cited, x.Evidence = append(x.Cited, c), append(x.Evidence, from)
	x.Private = x.Private || from.Private
	return len(x.Cited)
}

// breaks keeps the paragraphs apart that stood around something left out.
func breaks(out *strings.Builder, space string) {
	if strings.Contains(space, "\n") && out.Len() > 0 && !strings.HasSuffix(out.String(), "\n") {
		out.WriteString(space)
	}
}

func plural(n int, one, many string) string {
	if n == 1 {
		return "1 " + one
	}
	return fmt.Sprintf("%d %s", n, many)
}

// escape keeps a path from being taken for Markdown.
func escape(s string) string {
	return strings.NewReplacer("\\", "\\\\", "`", "\\`", "*", "\\*", "[", "\\[", "]", "\\]", "<", "\\<", "\n", " ").Replace(s)
}

// Stream implements llm.Provider: of the model research, which goes the thorough way. While the graph runs, Thinking tells what it does; then the whole answer follows with its citations, whose n-th is the
// source [n].
func (q *Inquiries) Stream(ctx context.Context, req llm.Request) iter.Seq2[llm.Event, error] {
	model, ok := q.Model(req)
	if !ok {
		req.Model = Plain
		return q.Plain.Stream(ctx, req)
	}
	return func(yield func(llm.Event, error) bool) {
		x, err := inquire(req, model)
		if err != nil {
			yield(llm.Event{}, err)
			return
		}
		if x.Wanted, x.Report = Thorough, req.Purpose == "job"; req.Run != "" {
			if x.Asks, err = q.asks(ctx, req); err != nil {
				yield(llm.Event{}, failed(ctx, err, Name, false))
				return
			}
		}
		q.thorough(ctx, req, x, Name, yield)
	}
}

// thorough runs the thorough way for the model of a name, and tells what it does.
func (q *Inquiries) thorough(ctx context.Context, req llm.Request, x Inquiry, name string, yield func(llm.Event, error) bool) {
	ctx, cancel := context.WithCancel(ctx)
	defer cancel()
	type result struct {
		x   Inquiry
		err error
	}
	steps, done := make(chan StepRow), make(chan result, 1)
	go func() {
		_, x, err := q.Graph().Run(ctx, q.Store, Ask[Inquiry]{Key: req.Run, Chat: req.Chat, Title: x.Asked, State: x, As: name, Budget: q.Budget, Watch: func(r StepRow) {
			select {
			case steps <- r:
			case <-ctx.Done():
			}
		}})
		done <- result{x, err}
	}()
	for {
		select {
		case r := <-steps:
			text := ""
			if r.Ended.IsZero() {
				text = strings.ToUpper(r.Says[:1]) + r.Says[1:]
			} else if r.Note != "" {
				text = ": " + r.Note
			}
			if !r.Ended.IsZero() {
				text += ".\n"
			}
			if !yield(llm.Event{Thinking: text}, nil) {
				return // the deferred cancel ends the run's models
			}
		case end := <-done:
			var paused *PausedError
			if errors.As(end.err, &paused) {
				end.err = &llm.BusyError{Provider: loop.Approval, Kind: llm.Unavailable, Reason: "the plan of this research waits for your word"}
			}
			if end.err != nil {
				yield(llm.Event{}, failed(ctx, end.err, name, false))
				return
			}
			if yield(end.x.final(), nil) {
				yield(end.x.end(), nil) // each question has its own row in the books
			}
			return
		}
	}
}

// asks says whether a person sees the plan of a request first: as the request says, else as its conversation does, else as is usual for people.
// Who asks without a name for the work (a program) cannot be asked back.
func (q *Inquiries) asks(ctx context.Context, req llm.Request) (bool, error) {
	if req.Plan != "" || req.Purpose != "chat" {
		return req.Plan == llm.PlanAsk, nil
	}
	if req.Chat > 0 {
		if first, known, err := q.Store.PlanFirst(ctx, req.Chat); err != nil || known {
			return first, err
		}
	}
	return q.PlanFirst, nil
}

// Models implements llm.Lister.
func (q *Inquiries) Models(context.Context) ([]llm.ModelInfo, error) {
	return []llm.ModelInfo{{Name: Name}}, nil
}

// inquire begins an inquiry with the last question of a conversation, and what was said shortly before it.
func inquire(req llm.Request, model string) (Inquiry, error) {
	x := Inquiry{Model: model, Chat: req.Chat}
	for _, m := range req.Messages {
		text := strings.TrimSpace(m.Text())
		if text == "" || m.Role != llm.User && m.Role != llm.Assistant {
			continue
		}
		private := slices.ContainsFunc(m.Parts, func(p llm.Part) bool { return p.Private })
		if x.Asked != "" && !x.Secret {
			x.Before = append(x.Before, x.Asked)
		}
		x.Asked, x.Secret = "", false
		if private && m.Role == llm.Assistant {
			continue // whoever reads must not hear of it
		}
		if m.Role == llm.User {
			x.Asked, x.Secret = text, private
		} else {
			if len(text) > 600 {
				text = strings.ToValidUTF8(text[:600], "") + " ..."
			}
			x.Before = append(x.Before, text)
		}
	}
	if len(x.Before) > 6 {
		x.Before = x.Before[len(x.Before)-6:]
	}
	if x.Asked == "" {
		return x, &llm.Error{Kind: llm.BadRequest, Provider: Name, Model: Name, Message: "nothing is asked: the request has no message of the user at its end"}
	}
	return x, nil
}

// Go goes on with a run that was forked, or whose pause a person ended, until ctx ends. A *llm.BusyError says when to try again.
func (q *Inquiries) Go(ctx context.Context, id int64) error {
	_, _, err := q.Graph().Proceed(ctx, q.Store, id, q.Budget, nil)
	var paused *PausedError
	if errors.As(err, &paused) || errors.Is(err, errElsewhere) {
		return nil
	}
	return err
}
