package library

import (
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"testing"

	"home.arpa/lab/llm-runner/internal/llm"
)

var (
	_ llm.Provider = (*Vault)(nil)
	_ llm.Lister   = (*Vault)(nil)
)

func no() bool  { return false }
func yes() bool { return true }

func TestAnAnswerQuotesAndNamesItsSources(t *testing.T) {
	dir := folder(t, map[string]string{
		"home/lamp.md": "# Home\r\n\r\n## The [lamp]\r\n\r\nThe red lamp needs an E14 bulb.\r\n\r\n- bought in Oslo\r\n",
		"other.md":     "# Other\nNothing about it.\n",
	})
	l := open(t, at(t, dir))
	const quoted = "> The red lamp needs an E14 bulb.\n>\n> - bought in Oslo\n\n[1] home/lamp.md › Home › The \\[lamp\\]\n"
	for _, tt := range []struct {
		name      string
		connected func() bool
		messages  []llm.Message
		want      string
	}{
		{"a model is connected", yes, []llm.Message{llm.Says(llm.User, "Which bulb does the red lamp need?")}, quoted},
		{"nobody knows", nil, []llm.Message{llm.Says(llm.User, "Which bulb does the red lamp need?")}, quoted},
		{"no model is connected", no, []llm.Message{llm.Says(llm.User, "Which bulb does the red lamp need?")},
			"No model is connected. Here is what your notes say.\n\n" + quoted + "\n" + saysTheWayOn},
		{"the way on is told once", no, []llm.Message{llm.Says(llm.User, "hello"), llm.Says(llm.Assistant, "x\n\n"+saysTheWayOn),
			llm.Says(llm.User, "red lamp bulb")}, "No model is connected. Here is what your notes say.\n\n" + quoted},
		{"a follow-up", yes, []llm.Message{llm.Says(llm.System, "Be brief."), llm.Says(llm.User, "Tell me of the red lamp"), llm.Says(llm.Assistant, "It is red."),
			llm.Says(llm.User, "and the bulb?")}, quoted},
		{"unknown", yes, []llm.Message{llm.Says(llm.User, "Who painted the Mona Lisa?")}, "Your notes do not say.\n"},
		{"unknown, with something near", yes, []llm.Message{llm.Says(llm.User, "Which bulb did Vermeer paint in Delft?")},
			"Your notes do not say. The nearest passages are these:\n\n" + quoted},
		{"no words", yes, []llm.Message{llm.Says(llm.User, "?")}, saysNoWords + "\n"},
	} {
		t.Run(tt.name, func(t *testing.T) {
			a, err := llm.Collect(NewVault(l, tt.connected).Stream(t.Context(), llm.Request{Messages: tt.messages}))
			if err != nil {
				t.Fatal(err)
			}
			if got := a.Message.Text(); got != tt.want {
				t.Errorf("got\n%s\nwant\n%s", got, tt.want)
			}
			if a.Finish != llm.FinishStop || a.Usage.Input != llm.Known(0) || a.Usage.Output != llm.Known(0) {
				t.Errorf("finish %q, usage %+v", a.Finish, a.Usage)
			}
			if strings.Contains(tt.want, "[1]") {
				c := a.Citations[0]
				if c.Quote != "The red lamp needs an E14 bulb.\r\n\r\n- bought in Oslo" || c.Line != 5 || c.EndLine != 7 || len(a.Citations) != 1 {
					t.Errorf("citations %+v", a.Citations)
				}
			}
		})
	}
}

func TestNotesThatAreNotThereAreNotAnswered(t *testing.T) {
	empty := open(t, at(t, t.TempDir()))
	a, err := llm.Collect(NewVault(empty, nil).Stream(t.Context(), asks("anything")))
	if err != nil || a.Message.Text() != saysNothing+"\n" {
		t.Errorf("%q, %v", a.Message.Text(), err)
	}
	fresh := unread(t, at(t, folder(t, map[string]string{"a.md": "x"})))
	a, err = llm.Collect(NewVault(fresh, nil).Stream(t.Context(), asks("anything")))
	if err != nil || !strings.Contains(a.Message.Text(), "still being read") {
		t.Errorf("%q, %v", a.Message.Text(), err)
	}
}

// The property that citations live by: over a vault with everything in it, each quote is the bytes that its citation
// names, on the lines that it names.
func TestEveryQuoteIsItsBytes(t *testing.T) {
	if testing.Short() {
		t.Skip("asks two hundred questions, one after the other")
	}
	files := generate(6, 120)
	l := open(t, at(t, folder(t, files)))
	v := NewVault(l, nil)
	quoted := 0
	for i := range 50 {
		for _, question := range []string{fmt.Sprintf("note %d", 2*i), fmt.Sprintf("w%d backup Größe", i*31), fmt.Sprintf("Zürich restore w%d", i*17), fmt.Sprintf("\"alias %d\"", i)} {
			a, err := llm.Collect(v.Stream(t.Context(), asks(question)))
			if err != nil {
				t.Fatal(err)
			}
			for n, c := range a.Citations {
				text := files[c.Path]
				if c.Start < 0 || c.End > len(text) || text[c.Start:c.End] != c.Quote || c.Quote == "" {
					t.Fatalf("%q: %+v is not in the file", question, c)
				}
				if line := 1 + strings.Count(text[:c.Start], "\n"); c.Line != line || c.EndLine != line+strings.Count(c.Quote, "\n") {
					t.Fatalf("%q: lines %d to %d, want %d", question, c.Line, c.EndLine, line)
				}
				if !strings.Contains(a.Message.Text(), fmt.Sprintf("[%d] %s", n+1, c.Path)) {
					t.Fatalf("%q: citation %d is not in the text:\n%s", question, n+1, a.Message.Text())
				}
				quoted++
			}
		}
	}
	if quoted < 100 {
		t.Errorf("only %d quotes were looked at", quoted)
	}
}

func TestPassagesThatHaveChangedAreNotQuoted(t *testing.T) {
	dir := folder(t, map[string]string{
		"a.md": "The red lamp stands in the hall.\n", "b.md": "The red lamp was sold.\n", "c.md": "# C\n\nThe red lamp is old.\n", "d.md": "The red lamp in short.\n",
	})
	l := open(t, at(t, dir))
	v := NewVault(l, nil)
	write(t, dir, "a.md", "The red lamp stood in the hall.\n")
	write(t, dir, "d.md", "")
	if err := os.Remove(filepath.Join(dir, "b.md")); err != nil {
		t.Fatal(err)
	}
	a, err := llm.Collect(v.Stream(t.Context(), asks("red lamp")))
	if err != nil {
		t.Fatal(err)
	}
	if len(a.Citations) != 1 || a.Citations[0].Path != "c.md" || !strings.Contains(a.Message.Text(), "3 passages have changed") {
		t.Errorf("%+v\n%s", a.Citations, a.Message.Text())
	}
	select {
	case <-l.wake:
	default:
		t.Error("the library was not told to look again")
	}
	if _, err := l.Sync(t.Context()); err != nil {
		t.Fatal(err)
	}
	if a, err = llm.Collect(v.Stream(t.Context(), asks("red lamp"))); err != nil || len(a.Citations) != 2 || strings.Contains(a.Message.Text(), "changed") {
		t.Errorf("%+v, %v\n%s", a.Citations, err, a.Message.Text())
	}
}

func TestLongPassagesAreTrimmedToWhatAnswers(t *testing.T) {
	filler := strings.Repeat("Die Küche ist groß und hell. ", 15)
	for _, tt := range []struct{ name, text, want, not string }{
		{"sentences", filler + "The spare key hangs behind the clock. " + filler, "The spare key hangs behind the clock.", ""},
		{"items", "- " + strings.Repeat(strings.TrimSpace(filler)+"\n- ", 2) + "The spare key hangs behind the clock.\n- last\n", "- The spare key hangs behind the clock.", ""},
		{"what a colon introduces", filler + "\n\nTo find the spare key run this:\n\n```\nfind / -name key\n```\n\n" + filler, "run this:\n\n```\nfind / -name key\n```", ""},
	} {
		t.Run(tt.name, func(t *testing.T) {
			l := open(t, at(t, folder(t, map[string]string{"n.md": tt.text})))
			a, err := llm.Collect(NewVault(l, nil).Stream(t.Context(), asks("Where is the spare key?")))
			if err != nil || len(a.Citations) == 0 {
				t.Fatalf("%+v, %v", a, err)
			}
			if q := a.Citations[0].Quote; !strings.Contains(q, tt.want) || len(q) > quoteWhole {
				t.Errorf("%d bytes: %q", len(q), q)
			}
		})
	}
}

func TestVaultKeepsTheContractOfProviders(t *testing.T) {
	v := NewVault(open(t, at(t, folder(t, generate(7, 30)))), no)
	t.Run("one finish, at the end, and in pieces", func(t *testing.T) {
		finishes, pieces, last := 0, 0, llm.Event{}
		for ev, err := range v.Stream(t.Context(), asks("backup of the server")) {
			if err != nil {
				t.Fatal(err)
			}
			if ev.Finish != "" {
				finishes++
			}
			if ev.Text != "" {
				pieces++
			}
			if len(ev.Citations) > 0 && finishes > 0 {
				t.Error("citations follow the finish")
			}
			last = ev
		}
		if finishes != 1 || last.Finish == "" || pieces < 3 {
			t.Errorf("%d finishes, %d pieces, the last event is %+v", finishes, pieces, last)
		}
	})
	t.Run("nothing follows a break", func(t *testing.T) {
		for range v.Stream(t.Context(), asks("backup of the server")) {
			break
		}
	})
	for _, tt := range []struct {
		name string
		req  llm.Request
		want llm.Kind
	}{
		{"an unknown model", llm.Request{Model: "gpt", Messages: asks("x").Messages}, llm.NotFound},
		{"no message", llm.Request{}, llm.BadRequest},
		{"an empty message", asks(" \n"), llm.BadRequest},
	} {
		t.Run(tt.name, func(t *testing.T) {
			_, err := llm.Collect(v.Stream(t.Context(), tt.req))
			var e *llm.Error
			if !errors.As(err, &e) || e.Kind != tt.want || e.Started {
				t.Errorf("got %#v", err)
			}
		})
	}
	t.Run("cancelled before it began", func(t *testing.T) {
		ctx, cancel := context.WithCancel(t.Context())
		cancel()
		_, err := llm.Collect(v.Stream(ctx, asks("backup")))
		var e *llm.Error
		if !errors.As(err, &e) || e.Kind != llm.Cancelled || e.Started {
			t.Errorf("got %#v", err)
		}
	})
	t.Run("cancelled in the middle", func(t *testing.T) {
		ctx, cancel := context.WithCancel(t.Context())
		defer cancel()
		var failed error
		for ev, err := range v.Stream(ctx, asks("backup of the server")) {
			if failed = err; ev.Text != "" {
				cancel()
			}
		}
		var e *llm.Error
		if !errors.As(failed, &e) || e.Kind != llm.Cancelled || !e.Started {
			t.Errorf("got %#v", failed)
		}
	})
	t.Run("concurrent use, while the notes are read again", func(t *testing.T) {
		var wg sync.WaitGroup
		for i := range 8 {
			wg.Go(func() {
				for j := range 5 {
					if _, err := llm.Collect(v.Stream(t.Context(), asks(fmt.Sprintf("note %d backup", i*5+j)))); err != nil {
						t.Error(err)
					}
				}
			})
		}
		wg.Go(func() {
			if _, err := v.library.Sync(t.Context()); err != nil {
				t.Error(err)
			}
		})
		wg.Wait()
	})
	if models, err := v.Models(t.Context()); err != nil || len(models) != 1 || models[0].Name != Model {
		t.Errorf("models %+v, %v", models, err)
	}
}
