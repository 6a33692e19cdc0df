package chat

import (
	"bytes"
	"encoding/json"
	"errors"
	"strings"
	"testing"

	"home.arpa/lab/llm-runner/internal/llm"
)

// shown writes a branch as "q1 a1 q2 a2", each with its place among its alternatives where it has any.
func shown(t *testing.T, s *Service, chat int64) string {
	t.Helper()
	all, err := s.Branch(t.Context(), chat)
	if err != nil {
		t.Fatal(err)
	}
	var words []string
	for _, m := range all {
		w := m.Text
		if len(m.Siblings) > 1 {
			for i, id := range m.Siblings {
				if id == m.ID {
					w += "(" + string(rune('1'+i)) + "/" + string(rune('0'+len(m.Siblings))) + ")"
				}
			}
		}
		words = append(words, w)
	}
	return strings.Join(words, " ")
}

// sent writes what went upstream.
func sent(x *play) string {
	var words []string
	for _, m := range x.req.Messages {
		words = append(words, string(m.Role[0])+":"+m.Text())
	}
	return strings.Join(words, " ")
}

func TestBranches(t *testing.T) {
	s, p := open(t)
	play := func(turn Turn, err error, answer, upstream string) Turn {
		t.Helper()
		if err != nil {
			t.Fatal(err)
		}
		x := <-p.asked
		if got := sent(x); got != upstream {
			t.Errorf("sent %q, want %q", got, upstream)
		}
		x.text(answer)
		x.done()
		_, end, _ := follow(t, s, turn.ID, 0)
		return end
	}
	expect := func(want string) {
		t.Helper()
		if got := shown(t, s, 1); got != want {
			t.Errorf("shown %q, want %q", got, want)
		}
	}
	ctx := t.Context()
	a1, err := s.Send(ctx, 0, 0, "q1", Options{})
	a1 = play(a1, err, "a1", "u:q1")
	a2, err := s.Send(ctx, a1.Chat, a1.ID, "q2", Options{})
	a2 = play(a2, err, "a2", "u:q1 a:a1 u:q2")
	expect("q1 a1 q2 a2")

	// Regenerating puts a second answer beside the first; what followed the first is not lost.
	b1, err := s.Regenerate(ctx, a1.ID, Options{})
	b1 = play(b1, err, "b1", "u:q1")
	expect("q1 b1(2/2)")
	if _, err := s.Select(ctx, a1.ID); err != nil {
		t.Fatal(err)
	}
	expect("q1 a1(1/2) q2 a2")

	// Editing asks beside the question, with the history up to it.
	q2, err := s.Message(ctx, a2.ID)
	if err != nil {
		t.Fatal(err)
	}
	e2, err := s.Edit(ctx, q2.Parent, "e2", Options{})
	play(e2, err, "ea2", "u:q1 a:a1 u:e2")
	expect("q1 a1(1/2) e2(2/2) ea2")

	// The branch that is shown is the one that is remembered, and the youngest leaf below the chosen message.
	if _, err := s.Select(ctx, q2.Parent); err != nil {
		t.Fatal(err)
	}
	expect("q1 a1(1/2) q2(1/2) a2")
	if _, err := s.Select(ctx, b1.ID); err != nil {
		t.Fatal(err)
	}
	expect("q1 b1(2/2)")

	// Editing the first question begins a second tree in the same conversation.
	q1, err := s.Message(ctx, a1.ID)
	if err != nil {
		t.Fatal(err)
	}
	f1, err := s.Edit(ctx, q1.Parent, "f1", Options{})
	play(f1, err, "fa1", "u:f1")
	expect("f1(2/2) fa1")

	if _, err := s.Edit(ctx, a1.ID, "an answer", Options{}); !errors.Is(err, ErrNotFound) {
		t.Errorf("an answer was edited: %v", err)
	}
}

func TestAskingAgain(t *testing.T) {
	s, p := open(t)
	turn := send(t, s, 0, 0, "q1")
	x := <-p.asked
	x.say <- error(&llm.BusyError{Reason: "davas is down"})
	_, held, _ := follow(t, s, turn.ID, 0)
	if held.State != Held {
		t.Fatal(held.State)
	}

	// Nothing came: the same turn is asked in its place, and its log goes on.
	again, err := s.Again(t.Context(), turn.ID)
	if err != nil || again.ID != turn.ID {
		t.Fatal(again.ID, err)
	}
	if _, err := s.Again(t.Context(), turn.ID); !errors.Is(err, ErrRunning) {
		t.Errorf("asked again while it runs: %v", err)
	}
	x = <-p.asked
	x.text("part")
	for batch, err := range s.Events(t.Context(), turn.ID, held.Seq) {
		if err != nil || batch[0].Seq != held.Seq+1 {
			t.Errorf("%+v after %d, %v", batch, held.Seq, err)
		}
		break
	}
	x.say <- error(&llm.Error{Kind: llm.Unavailable, Message: "reset"})
	text, broken, _ := follow(t, s, turn.ID, held.Seq)
	if broken.State != Broken || text != "part" {
		t.Errorf("%s %q", broken.State, text)
	}

	// Something came: it stays, and the new answer stands beside it.
	beside, err := s.Again(t.Context(), turn.ID)
	if err != nil || beside.ID == turn.ID {
		t.Fatal(beside.ID, err)
	}
	x = <-p.asked
	x.text("whole")
	x.done()
	follow(t, s, beside.ID, 0)
	if got := shown(t, s, turn.Chat); got != "q1 whole(2/2)" {
		t.Errorf("shown %q", got)
	}
}

func TestAnswersWithoutTextAreNotSentUpstream(t *testing.T) {
	s, p := open(t)
	turn := send(t, s, 0, 0, "q1")
	(<-p.asked).say <- error(&llm.Error{Kind: llm.BadRequest, Message: "no"})
	follow(t, s, turn.ID, 0)
	next := send(t, s, turn.Chat, turn.ID, "q2")
	x := <-p.asked
	if got := sent(x); got != "u:q1 u:q2" {
		t.Errorf("sent %q", got)
	}
	x.text("partly ")
	if err := s.Stop(t.Context(), next.ID); err != nil {
		t.Fatal(err)
	}
	send(t, s, turn.Chat, next.ID, "q3")
	if got := sent(<-p.asked); got != "u:q1 u:q2 a:partly  u:q3" {
		t.Errorf("sent %q", got)
	}
}

func TestSearchRenameAndDelete(t *testing.T) {
	s, p := open(t)
	a := answered(t, s, p, 0, 0, "Where are the photos?", "In the slow bucket, Glacier tier.")
	b := answered(t, s, p, 0, 0, "Restart the résumé service", "Use systemctl.")
	titles := func(q string) string {
		t.Helper()
		all, err := s.Chats(t.Context(), q, 10)
		if err != nil {
			t.Fatal(err)
		}
		var out []string
		for _, c := range all {
			out = append(out, c.Title)
		}
		return strings.Join(out, "|")
	}
	for q, want := range map[string]string{
		"":                     "Restart the résumé service|Where are the photos?",
		"glac":                 "Where are the photos?",
		"GLACIER bucket":       "Where are the photos?",
		"resume":               "Restart the résumé service",
		"photos":               "Where are the photos?",
		"nothing like it":      "",
		`"; DROP TABLE chats`:  "",
		`AND OR NOT ( * near:`: "",
		"%":                    "",
	} {
		if got := titles(q); got != want {
			t.Errorf("%q finds %q, want %q", q, got, want)
		}
	}
	all, _ := s.Chats(t.Context(), "slow bucket", 10)
	if len(all) != 1 || !strings.Contains(all[0].Snippet, "\x02slow\x03 \x02bucket\x03") {
		t.Errorf("snippet %q", all[0].Snippet)
	}
	if err := s.Rename(t.Context(), a.Chat, "  Photo\tarchive "); err != nil || titles("archive") != "Photo archive" {
		t.Errorf("renamed: %v, %q", err, titles("archive"))
	}
	running := send(t, s, b.Chat, b.ID, "more")
	<-p.asked
	if err := s.Delete(t.Context(), b.Chat); err != nil {
		t.Fatal(err)
	}
	if _, err := s.Turn(t.Context(), running.ID); !errors.Is(err, ErrNotFound) {
		t.Errorf("a turn of a deleted conversation: %v", err)
	}
	if got := titles("systemctl"); got != "" {
		t.Errorf("deleted text is found in %q", got)
	}
	if err := s.Delete(t.Context(), b.Chat); !errors.Is(err, ErrNotFound) {
		t.Errorf("deleted twice: %v", err)
	}
}

func TestExports(t *testing.T) {
	s, p := open(t)
	a := answered(t, s, p, 0, 0, "q1", "a1")
	b, err := s.Regenerate(t.Context(), a.ID, Options{})
	if err != nil {
		t.Fatal(err)
	}
	x := <-p.asked
	x.text("b1")
	x.done()
	follow(t, s, b.ID, 0)
	var md, js bytes.Buffer
	if err := s.ExportMarkdown(t.Context(), &md, a.Chat); err != nil {
		t.Fatal(err)
	}
	if got := md.String(); !strings.Contains(got, "# q1\n") || !strings.Contains(got, "b1") || strings.Contains(got, "a1") {
		t.Errorf("Markdown has the branch that is shown:\n%s", got)
	}
	if err := s.ExportJSON(t.Context(), &js, a.Chat); err != nil {
		t.Fatal(err)
	}
	var out struct {
		Title    string
		Messages []struct {
			ID, Parent int64
			Role, Text string
			Turn       *struct{ State State }
		}
	}
	if err := json.Unmarshal(js.Bytes(), &out); err != nil {
		t.Fatal(err)
	}
	if out.Title != "q1" || len(out.Messages) != 3 || out.Messages[2].Text != "b1" || out.Messages[2].Turn.State != Finished ||
		out.Messages[1].Parent != out.Messages[2].Parent || out.Messages[0].Turn != nil {
		t.Errorf("JSON has every branch: %s", js.String())
	}
}

func TestTitles(t *testing.T) {
	for text, want := range map[string]string{
		"short":                     "short",
		" many\n\nlines  of it ":    "many lines of it",
		strings.Repeat("word ", 30): "word word word word word word word word word word word word\u2026",
		strings.Repeat("x", 100):    strings.Repeat("x", 60) + "\u2026",
		strings.Repeat("ü", 61):     strings.Repeat("ü", 60) + "\u2026",
		"bad \xff bytes":            "bad bytes",
	} {
		if got := title(text); got != want {
			t.Errorf("%q: %q, want %q", text, got, want)
		}
	}
}
