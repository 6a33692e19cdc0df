package gateway_test

import (
	"encoding/json"
	"errors"
	"math/rand/v2"
	"reflect"
	"strings"
	"testing"

	"home.arpa/lab/llm-runner/internal/llm"
	"home.arpa/lab/llm-runner/internal/provider/openai/wire"
	"home.arpa/lab/llm-runner/internal/route"
	"home.arpa/lab/llm-runner/internal/sse"
	"home.arpa/lab/llm-runner/internal/usage"
)

// decode adds up a stream as a client of OpenAI's dialect would.
func decode(t *testing.T, stream string) llm.Answer {
	t.Helper()
	var d wire.Decoder
	var sum llm.Accumulator
	r := sse.NewReader(strings.NewReader(stream))
	for {
		ev, err := r.Next()
		if err != nil {
			t.Fatalf("no [DONE] at the end of %q: %v", stream, err)
		}
		if string(ev.Data) == wire.Done {
			break
		}
		if !ev.Dispatched {
			continue
		}
		events, err := d.Add(ev.Data)
		if err != nil {
			t.Fatalf("%v in %q", err, ev.Data)
		}
		for _, ev := range events {
			sum.Add(ev)
		}
	}
	sum.Add(llm.Event{Finish: d.Finish()})
	return sum.Answer()
}

// randomEvents returns a random answer in the making.
func randomEvents(r *rand.Rand) []llm.Event {
	words := []string{"hello ", "wörld", "😀", "\n\n", `"quoted"`, "data: [DONE]", "\u2028", "</script>", "\x00"}
	word := func() string { return words[r.IntN(len(words))] }
	var all []llm.Event
	calls := 0
	for range r.IntN(12) {
		switch r.IntN(4) {
		case 0:
			all = append(all, llm.Event{Text: word()})
		case 1:
			all = append(all, llm.Event{Thinking: word()})
		case 2:
			all = append(all, llm.Event{Call: &llm.CallDelta{Index: calls, ID: "call" + string(rune('a'+calls)), Name: "f", Arguments: `{"a":`}},
				llm.Event{Call: &llm.CallDelta{Index: calls, Arguments: `1}`}})
			calls++
		case 3:
			all = append(all, llm.Event{Usage: &llm.Usage{Input: llm.Known(r.Int64N(100))}})
		}
	}
	finish := llm.FinishStop
	if calls > 0 {
		finish = llm.FinishTools
	}
	all = append(all, llm.Event{Finish: finish})
	if r.IntN(2) == 0 {
		all = append(all, llm.Event{Usage: &llm.Usage{Input: llm.Known(5), Output: llm.Known(6)}})
	}
	return all
}

func TestStreamsAndWholeAnswersAgree(t *testing.T) {
	r := rand.New(rand.NewPCG(1, 2))
	for i := range 30 {
		events := randomEvents(r)
		l := openLab(t, []route.Member{says("up", events...)})
		s, w := l.post(chat, streamed), l.post(chat, whole)
		if s.err != nil || w.err != nil || s.StatusCode != 200 || w.StatusCode != 200 {
			t.Fatalf("%d: %v, %v", i, s, w)
		}
		a := decode(t, s.body)
		b, err := wire.ParseResponse([]byte(w.body))
		if err != nil {
			t.Fatal(err)
		}
		if !reflect.DeepEqual(plain(a), plain(b)) {
			t.Fatalf("%d: %+v\nstream %+v\n whole %+v", i, events, plain(a), plain(b))
		}
		var want llm.Accumulator
		for _, ev := range events {
			want.Add(ev)
		}
		if !reflect.DeepEqual(plain(want.Answer()), plain(b)) {
			t.Fatalf("%d: said %+v\n whole %+v", i, plain(want.Answer()), plain(b))
		}
		for _, row := range l.rows() {
			if row.Outcome != usage.OK || row.Usage != b.Usage {
				t.Fatalf("%d: ledger %+v", i, row)
			}
		}
	}
}

// plain is what the dialect can say of an answer: text, thinking and calls each in order, but not how they are mixed.
func plain(a llm.Answer) any {
	var text, thinking string
	var calls []llm.ToolCall
	for _, p := range a.Message.Parts {
		switch {
		case p.Call != nil:
			calls = append(calls, *p.Call)
		case p.Thinking != nil:
			thinking += p.Thinking.Text
		default:
			text += p.Text
		}
	}
	return []any{text, thinking, calls, a.Usage, a.Finish}
}

func TestCitationsComeWithTheEnd(t *testing.T) {
	cites := []llm.Citation{{Path: "a b.md", Start: 1, End: 3, Line: 1, EndLine: 1, Quote: "<x>"}}
	l := openLab(t, []route.Member{says("vault", llm.Event{Text: "hello"}, llm.Event{Citations: cites}, llm.Event{Finish: llm.FinishStop})})
	type cited struct{ Citations []llm.Citation }
	var last, all cited
	s := l.post(chat, streamed).body
	chunks := strings.Split(strings.TrimSuffix(s, "\n\n"+done), "\n\n")
	if err := json.Unmarshal([]byte(strings.TrimPrefix(chunks[len(chunks)-1], "data: ")), &last); err != nil || !reflect.DeepEqual(last.Citations, cites) {
		t.Errorf("error %v, stream %s", err, s)
	}
	w := l.post(chat, whole).body
	if err := json.Unmarshal([]byte(w), &all); err != nil || !reflect.DeepEqual(all.Citations, cites) {
		t.Errorf("error %v, answer %s", err, w)
	}
}

func TestTranslatedFailures(t *testing.T) {
	broken := &llm.Error{Kind: llm.Unavailable, Message: "fell over"}
	t.Run("in the middle of a stream", func(t *testing.T) {
		l := openLab(t, []route.Member{fails("up", broken, llm.Event{Text: "hello"})})
		g := l.post(chat, streamed)
		if g.err == nil || g.StatusCode != 200 || !strings.Contains(g.body, "hello") || !strings.Contains(g.body, "fell over") || strings.Contains(g.body, "[DONE]") {
			t.Errorf("error %v, body %s", g.err, g.body)
		}
		if got := l.outcome(); got != usage.Failed {
			t.Errorf("ledger: %s", got)
		}
	})
	t.Run("in the middle of a whole answer", func(t *testing.T) {
		l := openLab(t, []route.Member{fails("up", broken, llm.Event{Text: "hello"}), says("spare", llm.Event{Text: "rescue", Finish: llm.FinishStop})}, fallback("up", "spare"))
		if g := l.post(chat, whole); g.StatusCode != 503 {
			t.Errorf("status %d, body %s", g.status(), g.body)
		}
		if g := l.post(chat, strings.Replace(whole, `"x"`, `"up"`, 1)); g.StatusCode != 200 || !strings.Contains(g.body, "rescue") || strings.Contains(g.body, "hello") {
			t.Errorf("with a fallback: status %d, body %s", g.status(), g.body)
		}
	})
	t.Run("before the first event", func(t *testing.T) {
		l := openLab(t, []route.Member{fails("up", broken, llm.Event{Usage: &told}), says("spare", llm.Event{Text: "rescue", Finish: llm.FinishStop})}, fallback("up", "spare"))
		if g := l.post(chat, streamed); g.StatusCode != 503 {
			t.Errorf("status %d, body %s", g.status(), g.body)
		}
		if g := l.post(chat, strings.Replace(streamed, `"x"`, `"up"`, 1)); g.StatusCode != 200 || !strings.Contains(g.body, "rescue") {
			t.Errorf("with a fallback: status %d, body %s", g.status(), g.body)
		}
	})
	t.Run("an end without a finish", func(t *testing.T) {
		for _, body := range []string{streamed, whole} {
			l := openLab(t, []route.Member{says("up", llm.Event{Text: "hello"})})
			if g := l.post(chat, body); g.err == nil && g.StatusCode == 200 || strings.Contains(g.body, "[DONE]") {
				t.Errorf("status %d, error %v, body %s", g.status(), g.err, g.body)
			}
			if got := l.outcome(); got != usage.Failed {
				t.Errorf("ledger: %s", got)
			}
		}
	})
	t.Run("an error of no kind", func(t *testing.T) {
		l := openLab(t, []route.Member{fails("up", errors.New("odd"))})
		if g := l.post(chat, streamed); g.StatusCode != 500 {
			t.Errorf("status %d, body %s", g.status(), g.body)
		}
	})
}

func TestUsageIsToldOnlyToWhoAsks(t *testing.T) {
	l := openLab(t, []route.Member{says("up", llm.Event{Usage: &told}, llm.Event{Text: "hello"}, llm.Event{Finish: llm.FinishStop})})
	if g := l.post(chat, streamed); !strings.Contains(g.body, `"choices":[],"usage":{"prompt_tokens":12`) {
		t.Errorf("asked: %s", g.body)
	}
	if g := l.post(chat, strings.Replace(streamed, "true}", "false}", 1)); strings.Contains(g.body, "usage") {
		t.Errorf("not asked: %s", g.body)
	}
}
