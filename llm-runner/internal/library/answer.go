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

// A Vault answers with passages of the notes instead of a model: quoted byte for byte, each read again from its file at
// the moment of the answer. It costs no tokens.
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
	return []llm.ModelInfo{{Name: Model}}, nil
}

const (
	shown   = 3 // passages in an answer
	nearest = 2 // passages where the notes do not say
	// answers is the Coverage from which a passage is said to answer. With two words of like weight both must be there, with
	// three or four most of them; common words count little.
	answers = 0.55
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

// Stream implements llm.Provider. The answer is Markdown: one sentence, then each passage as a quote with its number,
// path and heading below it. The n-th Citation of the stream is the passage numbered [n].
func (v *Vault) Stream(ctx context.Context, req llm.Request) iter.Seq2[llm.Event, error] {
	return func(yield func(llm.Event, error) bool) {
		started := false
		fail := func(err error) {
			e := &llm.Error{Kind: llm.Unavailable, Provider: Model, Model: Model, Message: err.Error(), Started: started, Err: err}
			var given *llm.Error
			switch {
			case errors.As(err, &given):
				e = given
			case ctx.Err() != nil:
				e.Kind, e.Message = llm.Cancelled, "cancelled by the caller"
			}
			yield(llm.Event{}, e)
		}
		pieces, err := v.answer(ctx, req)
		if err != nil {
			fail(err)
			return
		}
		for _, p := range pieces {
			if err := ctx.Err(); err != nil {
				fail(err)
				return
			}
			if !yield(p, nil) {
				return
			}
			started = true
		}
		if err := ctx.Err(); err != nil {
			fail(err)
			return
		}
		yield(llm.Event{Finish: llm.FinishStop, Usage: &llm.Usage{Input: llm.Known(0), Output: llm.Known(0)}}, nil)
	}
}

// answer returns the answer in pieces, each passage with its Citation.
func (v *Vault) answer(ctx context.Context, req llm.Request) ([]llm.Event, error) {
	if err := ctx.Err(); err != nil {
		return nil, err
	}
	if req.Model != "" && req.Model != Model {
		return nil, &llm.Error{Kind: llm.NotFound, Provider: Model, Model: req.Model,
			Message: fmt.Sprintf("there is no model %q here, only %q", req.Model, Model)}
	}
	asked, err := question(req.Messages)
	if err != nil {
		return nil, err
	}
	hits, err := v.library.Search(ctx, asked, 4*shown)
	if err != nil {
		return nil, err
	}
	hits, known := choose(hits)
	cited, changed, err := v.verify(hits, known)
	if err != nil {
		return nil, err
	}
	return v.compose(req, asked, cited, known, changed), nil
}

// question returns what is asked: the last message of the user, and the one before it where the last says too little to
// be understood alone ("and on Windows?").
func question(messages []llm.Message) (string, error) {
	var said []string
	for _, m := range messages {
		if text := strings.TrimSpace(m.Text()); m.Role == llm.User && text != "" {
			said = append(said, text)
		}
	}
	if len(said) == 0 {
		return "", &llm.Error{Kind: llm.BadRequest, Provider: Model, Model: Model, Message: "nothing is asked: the request has no message of the user"}
	}
	last := said[len(said)-1]
	if len(said) > 1 && meaning(last) < 2 && len(quotations(last)) == 0 {
		return said[len(said)-2] + "\n" + last, nil
	}
	return last, nil
}

// meaning counts the words of text that are not stop words.
func meaning(text string) int {
	n := 0
	for _, t := range tokens(text) {
		if !stopWords[t.word] {
			n++
		}
	}
	return n
}

// choose keeps the hits that answer; where none does, the nearest ones, and known is false.
func choose(hits []Hit) (kept []Hit, known bool) {
	best := 0.0
	for _, h := range hits {
		known = known || h.exact || h.Coverage >= answers
		if h.exact || h.Coverage >= answers {
			best = max(best, h.Score)
		}
	}
	for _, h := range hits {
		if strings.TrimSpace(h.Quote) == "" {
			continue
		}
		if !known || h.exact || h.Coverage >= answers && h.Score >= worth*best {
			kept = append(kept, h)
		}
	}
	return kept, known
}

// verify reads each passage again from its file and keeps those that still stand there, as many as are shown. changed
// counts the others; the index is then brought up to date in the background.
func (v *Vault) verify(hits []Hit, known bool) (cited []llm.Citation, changed int, err error) {
	most := nearest
	if known {
		most = shown
	}
	if len(hits) == 0 {
		return nil, 0, nil
	}
	t, done, err := v.library.source.open()
	if err != nil {
		return nil, 0, err
	}
	defer done() //nolint:errcheck // it was only read
	files := map[string][]byte{}
	for _, h := range hits {
		if len(cited) == most {
			break
		}
		text, had := files[h.Path]
		if !had {
			text, err = read(t, h.Path)
			if err != nil {
				text = nil // gone, or not readable now: nothing in it can be quoted
			}
			files[h.Path] = text
		}
		if c := trim(h); text != nil && stands(text, c) {
			cited = append(cited, c)
			continue
		}
		changed++
	}
	if changed > 0 {
		v.library.nudge()
	}
	return cited, changed, nil
}

// compose writes the answer down.
func (v *Vault) compose(req llm.Request, asked string, cited []llm.Citation, known bool, changed int) []llm.Event {
	unconnected := v.connected != nil && !v.connected()
	status := v.library.Status()
	var opening string
	if unconnected {
		opening = saysNoModel
	}
	switch {
	case len(cited) > 0 && known:
		if unconnected {
			opening += saysNotes
		}
	case status.Notes == 0 && !status.Syncing && !status.Synced.IsZero():
		opening += saysNothing
	case meaning(asked) == 0:
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
	if unconnected && !saidBefore(req.Messages) {
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

func saidBefore(messages []llm.Message) bool {
	for _, m := range messages {
		if m.Role == llm.Assistant && strings.Contains(m.Text(), strings.TrimSpace(saysTheWayOn)) {
			return true
		}
	}
	return false
}

// quote writes a passage as a block quote with its source below.
func quote(n int, c llm.Citation) string {
	var b strings.Builder
	for line := range strings.SplitSeq(c.Quote, "\n") {
		b.WriteString(strings.TrimRight("> "+strings.TrimSuffix(line, "\r"), " "))
		b.WriteByte('\n')
	}
	fmt.Fprintf(&b, "\n[%d] %s", n, label(c.Path))
	for _, h := range c.Heading {
		b.WriteString(" › " + label(h))
	}
	return b.String()
}

// label keeps a name from being taken for Markdown, and on one line.
func label(s string) string {
	return strings.NewReplacer("\\", "\\\\", "`", "\\`", "*", "\\*", "[", "\\[", "]", "\\]", "<", "\\<", "\n", " ", "\r", " ").Replace(s)
}
