package library

import (
	"context"
	"errors"
	"fmt"
	"iter"
	"strings"

	"home.arpa/lab/llm-runner/internal/llm"
)

// Model is the name of the one model of a Vault, and by custom of the provider too.
const Model = "vault"

// A Vault answers from the notes. As a provider it gives the passages, quoted byte for byte, each read again from its file at that moment, at no cost.
// Look, Ranking, Gather, Write and Close are the parts of an answer that a model writes, each citation of which is checked.
type Vault struct {
	library   *Library
	connected func() bool
}

// NewVault returns the provider that answers from l. connected says whether any model could answer instead; while it
// says no, answers say so and how to connect one. nil: it is not mentioned.
func NewVault(l *Library, connected func() bool) *Vault {
	return &Vault{library: l, connected: connected}
}

// Models implements llm.Lister.
func (v *Vault) Models(context.Context) ([]llm.ModelInfo, error) {
	return []llm.ModelInfo{{Name: Model}}, nil // Quotes is for those who know of it
}

const (
	shown   = 3 // passages in an answer
	nearest = 2 // passages where the notes do not say
	// answers is the Coverage from which a passage is said to answer, and lacks the Missed up to which: what it lacks of the question
	// must not be what the question is about. Calibrated on vaults made up by eval.Generate with other seeds than those of its test:
	// at 0.6 and 0.7 they refuse 94 % of what the notes do not say and 0.5 % of what they do; at 0.67 99 % and 8 %; at 0.5 and 0.8 83 % and 0.5 %.
	answers = 0.6
	lacks   = 0.7
	// What scores less than this part of the best hit is left out.
	worth = 0.4
)

// What the Vault says.
const (
	saysNoModel  = "No model is connected. "
	saysNotes    = "Here is what your notes say."
	saysUnknown  = "Your notes do not say."
	saysNearest  = " The nearest passages are these:"
	saysNothing  = "There are no notes yet. Start the runner with `--vault DIR` to show it a folder of Markdown files."
	saysNoWords  = "Ask with a word or two that your notes would use."
	saysTheWayOn = "To connect a model: start Ollama (it is found by itself, at 127.0.0.1:11434 or `OLLAMA_HOST`); " +
		"or set one of `GROQ_API_KEY`, `GEMINI_API_KEY`, `ANTHROPIC_API_KEY`, `OPENAI_API_KEY`, " +
		"or name a provider in `runner.yaml`, and start the runner again.\n"
)

// Stream implements llm.Provider. The answer is Markdown: one sentence, then each passage as a quote with its number, path and heading below it. The n-th
// Citation of the stream is the passage numbered [n].
func (v *Vault) Stream(ctx context.Context, req llm.Request) iter.Seq2[llm.Event, error] {
	return func(yield func(llm.Event, error) bool) {
		started := false
		fail := func(err error) {
			e := &llm.Error{Kind: llm.Unavailable, Provider: Model, Model: Model, Message: err.Error(), Started: started, Err: err}
			var given *llm.Error
			var busy *llm.BusyError
			switch {
			case ctx.Err() != nil:
				e.Kind, e.Message = llm.Cancelled, "cancelled by the caller"
			case errors.As(err, &busy):
				yield(llm.Event{}, err)
				return
			case errors.As(err, &given):
				e = given
			}
			yield(llm.Event{}, e)
		}
		show := func(ev llm.Event) bool {
			started = started || ev.Text != ""
			return yield(ev, nil)
		}
		end, err := v.reply(ctx, req, show)
		if err == nil {
			err = ctx.Err()
		}
		switch {
		case errors.Is(err, ErrLeft):
		case err != nil:
			fail(err)
		default:
			yield(end, nil)
		}
	}
}

// reply shows the answer and returns its last event.
func (v *Vault) reply(ctx context.Context, req llm.Request, show func(llm.Event) bool) (end llm.Event, err error) {
	if err := ctx.Err(); err != nil {
		return end, err
	}
	q, err := NewQuestion(req)
	if err != nil {
		return end, err
	}
	leads, err := v.Look(ctx, q, false)
	if err != nil {
		return end, err
	}
	if leads, err = v.ranked(ctx, q, leads); err != nil {
		return end, err
	}
	return v.Close(ctx, q, leads, nil, show)
}

// Close shows what stands below the words of a model, or the passages in their place, and returns the last event of the answer. d is what a model made
// of them; nil: none was asked. ErrLeft: show said that the reader went away.
func (v *Vault) Close(ctx context.Context, q Question, leads []Lead, d *Draft, show func(llm.Event) bool) (end llm.Event, err error) {
	end = llm.Event{Finish: llm.FinishStop, Usage: &llm.Usage{Input: llm.Known(0), Output: llm.Known(0)}}
	if d != nil {
		end.Finish, end.Route, end.Private = d.Finish, d.Route, d.Private
		if d.Usage != nil {
			end.Usage = d.Usage
		}
		if d.Answers() {
			if text := d.Afterword(q.Purpose); text != "" && !show(llm.Event{Text: "\n\n" + text + "\n", Private: d.Private}) {
				return end, ErrLeft
			}
			return end, nil
		}
	}
	pieces, err := v.quoted(ctx, q, leads, d)
	if err != nil {
		return end, err
	}
	for _, p := range pieces {
		if err := ctx.Err(); err != nil {
			return end, err
		}
		p.Private = p.Private || end.Private
		end.Private = p.Private
		if d != nil {
			p.Route = d.told()
			d.shown = true
		}
		if !show(p) {
			return end, ErrLeft
		}
	}
	return end, nil
}

// quoted returns the passages as an answer, in pieces, each with its Citation. d is what a model made of them before; nil: none was asked.
func (v *Vault) quoted(ctx context.Context, q Question, leads []Lead, d *Draft) ([]llm.Event, error) {
	_, hits, gone, err := v.follow(ctx, q, leads[:min(len(leads), 4*shown)])
	if err != nil {
		return nil, err
	}
	hits, known := choose(hits)
	if d != nil && d.Refused { // the model has read them, and words alone know no better
		known = false
	}
	cited, changed, err := v.verify(ctx, hits, known)
	if err != nil {
		return nil, err
	}
	opening := ""
	if d != nil {
		opening = d.Opening
	}
	pieces := v.compose(q, cited, known, changed+gone, opening)
	for _, c := range cited {
		if v.library.NeverSent(collectionName(c), c.Path) {
			pieces[0].Private = true
		}
	}
	return pieces, nil
}

// collectionName is the collection that a citation's document is in.
func collectionName(c llm.Citation) string {
	if c.Collection == "" {
		return Notes
	}
	return c.Collection
}

// says that the passage answers, as far as words can tell.
func (h *Hit) says() bool { return h.exact || h.Coverage >= answers && h.Missed <= lacks }

// choose keeps the hits that answer; where none does, the nearest ones, and known is false.
func choose(hits []Hit) (kept []Hit, known bool) {
	best := 0.0
	for _, h := range hits {
		if h.says() {
			known, best = true, max(best, h.Score)
		}
	}
	for _, h := range hits {
		if strings.TrimSpace(h.Quote) == "" {
			continue
		}
		if !known || h.exact || h.says() && h.Score >= worth*best {
			kept = append(kept, h)
		}
	}
	return kept, known
}

// verify reads each passage again from its document and keeps those that still stand there, as many as are shown. changed
// counts the others; the index is then brought up to date in the background.
func (v *Vault) verify(ctx context.Context, hits []Hit, known bool) (cited []llm.Citation, changed int, err error) {
	most := nearest
	if known {
		most = shown
	}
	if len(hits) == 0 {
		return nil, 0, nil
	}
	look := v.library.shelf()
	defer look.close()
	for _, h := range hits {
		if len(cited) == most {
			break
		}
		c, ok, err := look.cite(ctx, h.Collection, trim(h))
		if err != nil {
			return nil, 0, err
		}
		if !ok {
			changed++
			continue
		}
		cited = append(cited, c)
	}
	if changed > 0 {
		v.library.nudge()
	}
	return cited, changed, nil
}

// compose writes the answer down.
// before stands above it all.
func (v *Vault) compose(q Question, cited []llm.Citation, known bool, changed int, before string) []llm.Event {
	unconnected := v.connected != nil && !v.connected()
	status := v.library.Status()
	var opening string
	if before != "" {
		opening = before + " "
	}
	if unconnected {
		opening += saysNoModel
	}
	switch {
	case len(cited) > 0 && known:
		if unconnected {
			opening += saysNotes
		} else if before != "" {
			opening += "Here they are, with what else your notes say."
		}
	case status.Notes == 0 && len(status.Collections) == 0 && !status.Syncing && !status.Synced.IsZero():
		opening += saysNothing
	case meaning(q.Asked) == 0:
		opening += saysNoWords
	default:
		opening += saysUnknown
		if len(cited) > 0 {
			opening += saysNearest
		}
	}
	var pieces []llm.Event
	say := func(text string, cs ...llm.Citation) {
		if text != "" {
			pieces = append(pieces, llm.Event{Text: text + "\n\n", Citations: cs})
		}
	}
	say(opening)
	for i, c := range cited {
		say(quote(i+1, c), c)
	}
	say(strings.Join(remarks(status, changed), " "))
	if unconnected && !q.Told {
		say(strings.TrimSpace(saysTheWayOn))
	}
	last := &pieces[len(pieces)-1]
	last.Text = strings.TrimSuffix(last.Text, "\n")
	return pieces
}

// remarks are what a reader must know of the notes' state to trust an answer.
func remarks(s Status, changed int) []string {
	var all []string
	switch {
	case changed == 1:
		all = append(all, "One passage has changed since it was read and is left out; the notes are being read again.")
	case changed > 1:
		all = append(all, fmt.Sprintf("%d passages have changed since they were read and are left out; the notes are being read again.", changed))
	}
	switch {
	case s.Synced.IsZero() && s.Error == "":
		all = append(all, fmt.Sprintf("The notes are still being read: %d of %d so far.", s.Notes, max(s.Found, s.Notes)))
	case s.Error != "":
		all = append(all, "The notes cannot be read at present ("+s.Error+"), so newer ones are missing.")
	}
	return all
}

// quote writes a passage as a block quote with its source below.
func quote(n int, c llm.Citation) string {
	var b strings.Builder
	for line := range strings.SplitSeq(c.Quote, "\n") {
		b.WriteString(strings.TrimRight("> "+strings.TrimSuffix(line, "\r"), " "))
		b.WriteByte('\n')
	}
	fmt.Fprintf(&b, "\n[%d] %s", n, where(c))
	return b.String()
}

// label keeps a name from being taken for Markdown, and on one line.
func label(s string) string {
	return strings.NewReplacer("\\", "\\\\", "`", "\\`", "*", "\\*", "[", "\\[", "]", "\\]", "<", "\\<", "\n", " ", "\r", " ").Replace(s)
}
