package library

import (
	"context"
	"iter"
	"strings"
	"testing"
	"time"

	"home.arpa/lab/llm-runner/internal/llm"
)

// A pen writes what it is told, as a cloud provider or as a machine at home.
type pen struct {
	text  string
	cloud bool
	err   error
	asked []llm.Request
	hook  func() // before it writes
}

func (p *pen) Stream(_ context.Context, req llm.Request) iter.Seq2[llm.Event, error] {
	return func(yield func(llm.Event, error) bool) {
		p.asked = append(p.asked, req)
		if p.err != nil {
			yield(llm.Event{}, p.err)
			return
		}
		if p.hook != nil {
			p.hook()
		}
		r := &llm.Route{Provider: "there", Model: "m"}
		if p.cloud {
			for _, m := range req.Messages {
				for _, part := range m.Parts {
					if part.Private {
						r.Withheld++
					}
				}
			}
		}
		words := strings.SplitAfter(p.text, " ")
		for i, w := range words {
			ev := llm.Event{Text: w}
			if i == 0 {
				ev.Route = r
			}
			if !yield(ev, nil) {
				return
			}
		}
		yield(llm.Event{Finish: llm.FinishStop, Usage: &llm.Usage{Input: llm.Known(7), Output: llm.Known(3)}}, nil)
	}
}

// A desk is a Vault whose parts are put together, with a pen that writes.
type desk struct {
	*Vault
	pen *pen
}

func (d desk) Stream(ctx context.Context, req llm.Request) iter.Seq2[llm.Event, error] {
	return func(yield func(llm.Event, error) bool) {
		end, err := d.answer(ctx, req, func(ev llm.Event) bool { return yield(ev, nil) })
		yield(end, err)
	}
}

func (d desk) answer(ctx context.Context, req llm.Request, show func(llm.Event) bool) (end llm.Event, err error) {
	q, err := NewQuestion(req)
	if err != nil {
		return end, err
	}
	leads, err := d.Look(ctx, q, true)
	if err != nil {
		return end, err
	}
	all, _, err := d.Gather(ctx, q, leads)
	if err != nil {
		return end, err
	}
	var draft *Draft
	if len(all) > 0 {
		if draft, err = d.Write(ctx, q, "m", all, func(req llm.Request) iter.Seq2[llm.Event, error] { return d.pen.Stream(ctx, req) }, show); err != nil {
			return end, err
		}
	}
	return d.Close(ctx, q, leads, draft, show)
}

func writtenBy(t *testing.T, files map[string]string, never ...string) (*Library, desk, *pen) {
	t.Helper()
	private, faults := NewPrivacy(never)
	if len(faults) > 0 {
		t.Fatal(faults)
	}
	l, err := New(t.Context(), Config{DB: database(t), Source: at(t, folder(t, files)), NeverSend: private})
	if err != nil {
		t.Fatal(err)
	}
	if _, err := l.Sync(t.Context()); err != nil {
		t.Fatal(err)
	}
	p := &pen{}
	return l, desk{NewVault(l, nil), p}, p
}

var house = map[string]string{
	"boiler.md": "# Boiler\n\n## Care\n\nThe anode of the boiler is replaced every **three years**. Drain the tank in May.\n\nIt was installed by Mrs Lindqvist.\n",
	"old.md":    "# Boiler (old)\n\nThe anode of the boiler is replaced every five years.\n",
}

func TestEveryCitationOfAModelIsResolvedOrDropped(t *testing.T) {
	l, v, p := writtenBy(t, house)
	for _, x := range []struct {
		what, writes, reads string
		quotes              []string
		says                string // of what was dropped
	}{
		{"words as they stand", `Every three years [1: "replaced every **three years**"].`, "Every three years [1].", []string{"replaced every **three years**"}, ""},
		{"words without their marks", `Every three years [1: "replaced every three years"].`, "Every three years [1].", []string{"replaced every **three years"}, ""},
		{"another case, German marks", `Drei [1: „Every Three Years“].`, "Drei [1].", []string{"every **three years"}, ""},
		{"a gap", `Three [1: "The anode ... every three years"].`, "Three [1].", []string{"every **three years"}, ""},
		{"the wrong number", `Five years [1: "replaced every five years"], it says.`, "Five years [1], it says.", []string{"replaced every five years"}, ""},
		{"words that stand nowhere", `Seven [1: "replaced every seven years"]. Done.`, "Seven. Done.", nil, "One citation was left out"},
		{"a source that is none", `Seven years [9] and [12: "five years"].`, "Seven years and [1].", []string{"five years"}, "One citation was left out"},
		{"a number alone", `The tank is drained in May [1].`, "The tank is drained in May [1].", []string{"Drain the tank in May."}, ""},
		{"a number alone that nothing supports", `Penguins live on ice floes [1].`, "Penguins live on ice floes.", nil, "One citation was left out"},
		{"two numbers, and one again", `Anodes are replaced [1, 2]. Every five years [2: "every five years"], [2: "every five years"].`, "Anodes are replaced [1][2]. Every five years [3], [3].", nil, ""},
		{"what is no mark", "See [the note](boiler.md), `x[1]`, [x], a [1\n", "See [the note](boiler.md), `x[1]`, [x], a [1\n", nil, "No statement of this answer"},
		{"marks by another name", `Three years [Source 1: "three years"].`, "Three years [1].", []string{"three years"}, ""},
	} {
		p.text = x.writes
		a, err := llm.Collect(v.Stream(t.Context(), asks("how often is the anode of the boiler replaced, and when is the tank drained")))
		if err != nil {
			t.Errorf("%s: %v", x.what, err)
			continue
		}
		text := a.Message.Text()
		if !strings.HasPrefix(text, x.reads) {
			t.Errorf("%s: reads %q, want %q", x.what, text, x.reads)
		}
		if x.says != "" && !strings.Contains(text, x.says) || x.says == "" && strings.Contains(text, "left out") {
			t.Errorf("%s: says %q", x.what, text)
		}
		for i, q := range x.quotes {
			if i >= len(a.Citations) || !strings.Contains(a.Citations[i].Quote, strings.Trim(q, ".")) {
				t.Errorf("%s: cites %+v, want %q", x.what, a.Citations, q)
			}
		}
		for _, c := range a.Citations {
			if n, err := l.Note(t.Context(), c.Path); err != nil || !stands(n.Text, c) {
				t.Errorf("%s: %+v does not stand there", x.what, c)
			}
		}
		if in, _ := a.Usage.Input.Get(); in != 7 || a.Route == nil || a.Route.Provider != "there" || a.Private {
			t.Errorf("%s: %+v %+v", x.what, a.Route, a.Usage)
		}
	}
	prompt := p.asked[0].Messages
	if prompt[0].Role != llm.System || !strings.Contains(prompt[1].Text(), "[1] boiler.md > Boiler > Care\n") || !strings.HasSuffix(prompt[1].Text(), "when is the tank drained") {
		t.Errorf("the prompt is %+v", prompt)
	}
}

func TestANoteThatChangesWhileTheModelWritesIsNotCited(t *testing.T) {
	l, v, p := writtenBy(t, house)
	p.text = `Three years [1: "three years"].`
	p.hook = func() {
		touch(t, l.source.dir, "boiler.md", time.Now().Add(-time.Minute))
		write(t, l.source.dir, "boiler.md", "# Boiler\n\nSold.\n")
	}
	a, err := llm.Collect(v.Stream(t.Context(), asks("how often is the anode of the boiler replaced")))
	if err != nil || len(a.Citations) != 0 || !strings.Contains(a.Message.Text(), "One citation was left out") {
		t.Errorf("%q, %+v, %v", a.Message.Text(), a.Citations, err)
	}
}

func TestAModelThatFindsNothingLeavesTheNearestPassages(t *testing.T) {
	_, v, p := writtenBy(t, house)
	for _, says := range []string{"NOTES_DO_NOT_SAY", "NOTES_DO_NOT_SAY.", "**NOTES_DO_NOT_SAY**\n", "\nNOTES_DO_NOT_SAY because the sources are silent"} {
		p.text = says
		a, err := llm.Collect(v.Stream(t.Context(), asks("how often is the anode of the boiler painted")))
		if text := a.Message.Text(); err != nil || !strings.HasPrefix(text, saysUnknown+saysNearest) || strings.Contains(text, "NOTES_DO") || len(a.Citations) == 0 {
			t.Errorf("%q: %q, %v", says, text, err)
		}
	}
	asked := len(p.asked)
	a, err := llm.Collect(v.Stream(t.Context(), asks("zygomorphic quaternions")))
	if err != nil || !strings.HasPrefix(a.Message.Text(), saysUnknown) || len(p.asked) != asked {
		t.Errorf("a model was asked about nothing: %q, %v", a.Message.Text(), err)
	}
	p.text = "NOTES"
	if a, err := llm.Collect(v.Stream(t.Context(), asks("the anode of the boiler"))); err != nil || !strings.HasPrefix(a.Message.Text(), "NOTES") {
		t.Errorf("%q, %v", a.Message.Text(), err)
	}
}

func TestAPersonReadsPassagesWhileNoModelCanWrite(t *testing.T) {
	_, v, p := writtenBy(t, house)
	p.err = &llm.BusyError{Provider: "there", Reason: "there: 5 of 5 requests are used", Kind: llm.Quota}
	a, err := llm.Collect(v.Stream(t.Context(), asks("how often is the anode of the boiler replaced")))
	if err != nil || !strings.HasPrefix(a.Message.Text(), "No model can write an answer now (there: 5 of 5 requests are used).") || len(a.Citations) == 0 {
		t.Errorf("%q, %v", a.Message.Text(), err)
	}
	for _, refusal := range []*llm.Error{{Kind: llm.Auth, Message: "the key is wrong"}, {Kind: llm.Spend, Message: "the money is gone"},
		{Kind: llm.NotFound, Message: "there is no model x"}, {Kind: llm.BadRequest, TooLong: true, Message: "the prompt is too long"}} {
		p.err = refusal
		a, err := llm.Collect(v.Stream(t.Context(), asks("how often is the anode of the boiler replaced")))
		if err != nil || !strings.HasPrefix(a.Message.Text(), "No model can write an answer (") || !strings.Contains(a.Message.Text(), refusal.Message) || len(a.Citations) == 0 {
			t.Errorf("%s: %q, %v", refusal.Kind, a.Message.Text(), err)
		}
	}
	p.err = &llm.Error{Kind: llm.BadRequest, Message: "a field is unknown"}
	if a, err := llm.Collect(v.Stream(t.Context(), asks("how often is the anode of the boiler replaced"))); err == nil {
		t.Errorf("a fault of ours is hidden: %q", a.Message.Text())
	}
	p.err = &llm.BusyError{Provider: "there", Reason: "there: 5 of 5 requests are used", Kind: llm.Quota}
	req := asks("how often is the anode of the boiler replaced")
	req.Purpose = "job"
	if _, err := llm.Collect(v.Stream(t.Context(), req)); err != p.err { //nolint:errorlint // the very one
		t.Errorf("a job that can wait gets %v", err)
	}
}

func TestWhatIsNeverSentIsMarkedInThePromptAndInTheAnswer(t *testing.T) {
	files := map[string]string{"Private/anode.md": "# Anode\n\nThe anode of the boiler hides the spare key.\n", "boiler.md": house["boiler.md"]}
	_, v, p := writtenBy(t, files, "Private")
	question := asks("where is the spare key, and how often is the anode of the boiler replaced")
	p.text = `Every three years [2: "three years"], and it hides a key [1: "hides the spare key"].`
	a, err := llm.Collect(v.Stream(t.Context(), question))
	if err != nil || !a.Private || len(a.Citations) != 2 {
		t.Errorf("at home: %+v, %v", a, err)
	}
	marked := 0
	for _, part := range p.asked[0].Messages[1].Parts {
		if part.Private != strings.Contains(part.Text, "Private/anode.md") {
			t.Errorf("marked %v: %q", part.Private, part.Text)
		}
		if part.Private {
			marked++
		}
	}
	if marked != 1 {
		t.Errorf("%d parts are marked", marked)
	}

	p.cloud = true // what it cites of the private note, it cannot have read
	a, err = llm.Collect(v.Stream(t.Context(), question))
	text := a.Message.Text()
	if err != nil || a.Private || len(a.Citations) != 1 || !strings.Contains(text, "One citation was left out") ||
		!strings.Contains(text, "One passage was left out: it is in a folder that is never sent, and there is a cloud provider.") {
		t.Errorf("in a cloud: %q, %+v, %v", text, a, err)
	}
	a, err = llm.Collect(v.Stream(t.Context(), asks("who hides the spare key")))
	if text := a.Message.Text(); err != nil || !a.Private || !strings.HasPrefix(text, "One passage was left out") || len(a.Citations) == 0 || a.Citations[0].Path != "Private/anode.md" {
		t.Errorf("nothing is left for a cloud: %q, %+v, %v", text, a.Citations, err)
	}

	// A step of a chain whose question is private itself.
	step := asks("how often is the anode of the boiler replaced")
	step.Messages[0].Parts[0].Private = true
	a, err = llm.Collect(v.Stream(t.Context(), step))
	if err != nil || strings.Contains(a.Message.Text(), "[2:") || len(a.Citations) == 0 {
		t.Errorf("%q, %v", a.Message.Text(), err)
	}
}

func FuzzResolve(f *testing.F) {
	f.Add(`Every three [1: "three years"] and [2], [x](y) "a`, uint8(3))
	f.Add("[1: „a“] `[1]` [1", uint8(1))
	d := "The anode is replaced every **three years**.\n"
	f.Fuzz(func(t *testing.T, text string, size uint8) {
		from, to, ok := locate(d, text)
		if ok && (from < 0 || to > len(d) || from >= to) {
			t.Fatalf("%q is found at [%d, %d)", text, from, to)
		}
		r := newResolver(t.Context(), nil, nil) // without sources every mark is dropped
		var out strings.Builder
		for at := 0; at < len(text); at += int(size) + 1 {
			said, cited := r.feed(text[at:min(len(text), at+int(size)+1)])
			out.WriteString(said)
			if len(cited) > 0 {
				t.Fatal("something is cited of nothing")
			}
		}
		said, _ := r.end()
		out.WriteString(said)
		if !r.refused && r.dropped == 0 && out.String() != text {
			t.Fatalf("%q became %q", text, out.String())
		}
	})
}
