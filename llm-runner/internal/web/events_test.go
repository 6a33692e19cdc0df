package web

import (
	"bufio"
	"context"
	"encoding/json"
	"fmt"
	"net/http"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"sync"
	"testing"

	"home.arpa/lab/llm-runner/internal/chat"
	"home.arpa/lab/llm-runner/internal/db"
	"home.arpa/lab/llm-runner/internal/llm"
	"home.arpa/lab/llm-runner/internal/sse"
)

// listener is a page that follows a turn.
type listener struct {
	t      testing.TB
	reader // what it shows
	stop   context.CancelFunc
	sse    *sse.Reader
	last   int64
	state  stateEvent
	ended  bool // the server closed the stream
	names  []string
}

// listen follows a turn from a place; shown is what the page had.
func (r *rig) listen(turn, after int64, shown []block) *listener {
	r.t.Helper()
	ctx, stop := context.WithCancel(context.Background())
	req := r.request("GET", fmt.Sprintf("/turns/%d/events", turn), nil).WithContext(ctx)
	req.Header.Set("Last-Event-ID", strconv.FormatInt(after, 10))
	res, err := r.server.Client().Do(req)
	if err != nil {
		r.t.Fatal(err)
	}
	if res.StatusCode != http.StatusOK || res.Header.Get("Content-Type") != "text/event-stream" {
		r.t.Fatal(res.Status, res.Header)
	}
	r.t.Cleanup(func() { stop(); res.Body.Close() })
	return &listener{t: r.t, reader: reader{slices.Clone(shown)}, stop: stop, sse: sse.NewReader(bufio.NewReader(res.Body)), last: after}
}

// next takes one event; false at the end of the stream.
func (l *listener) next() bool {
	l.t.Helper()
	ev, err := l.sse.Next()
	if err != nil {
		l.ended = true
		return false
	}
	if !ev.Dispatched {
		return true
	}
	l.names = append(l.names, string(ev.Name))
	if id, err := strconv.ParseInt(string(ev.ID), 10, 64); err == nil {
		l.last = id
	}
	switch string(ev.Name) {
	case "blocks":
		var all [][2]any
		if err := json.Unmarshal(ev.Data, &all); err != nil {
			l.t.Fatal(err)
		}
		var changes []change
		for _, c := range all {
			changes = append(changes, change{int(c[0].(float64)), c[1]})
		}
		l.apply(changes)
	case "state":
		if err := json.Unmarshal(ev.Data, &l.state); err != nil {
			l.t.Fatal(err)
		}
	}
	return true
}

// until takes events until the page shows text.
func (l *listener) until(text string) {
	l.t.Helper()
	for !strings.Contains(strings.Join(l.blocks, ""), text) {
		if !l.next() {
			l.t.Fatalf("the stream ended at %q", l.blocks)
		}
	}
}

func (l *listener) rest() {
	l.t.Helper()
	for l.next() {
	}
}

func TestAReaderResumesAtEveryPlace(t *testing.T) {
	r := newRig(t)
	turn, x := r.ask("q")
	first := r.listen(turn.ID, 0, nil)
	words := []string{"# One\n\n", "A *first* ", "paragraph.\n\n", "- item\n", "- item\n\n", "```go\nx := 1\n", "```\n\n", "See [1].\n"}
	said := ""
	var back []*listener
	for _, w := range words {
		x.text(w)
		said += w
		want := r.markdown.blocks(said, nil)
		for !slices.Equal(first.blocks, want) {
			if !first.next() {
				t.Fatal("ended early")
			}
		}
		back = append(back, r.listen(turn.ID, first.last, first.blocks)) // another tab, or this one again
	}
	x.done(llm.Citation{Path: "handbook/restore it.md", Start: 1, End: 4, Line: 1})
	want := r.markdown.blocks(said, r.end(turn.ID).Citations)
	for i, l := range append(back, first) {
		l.rest()
		if !slices.Equal(l.blocks, want) {
			t.Errorf("reader %d\n got %q\nwant %q", i, l.blocks, want)
		}
		if l.state.State != chat.Finished || l.state.Running || !strings.Contains(l.state.Line, "why this model") ||
			!strings.Contains(l.state.Line, "From your notes") {
			t.Errorf("reader %d: %+v", i, l.state)
		}
	}
	if !strings.Contains(want[len(want)-1], "/notes/handbook/restore%20it.md?from=1") {
		t.Errorf("the source is no link: %s", want[len(want)-1])
	}

	// Whatever place a reader comes back from, a turn that is over gives it the whole.
	for after := int64(0); after < 15; after++ {
		l := r.listen(turn.ID, after, []block{"<p>old</p>", "x", "x", "x", "x", "x", "x", "x", "x"})
		l.rest()
		if after == first.last {
			if slices.Equal(l.names, []string{"state"}) {
				continue
			}
			t.Errorf("up to date, and yet was sent %q", l.names)
		}
		if !slices.Equal(l.blocks, want) || l.state.State != chat.Finished {
			t.Errorf("after %d: %s %q", after, l.state.State, l.blocks)
		}
	}
}

func TestManyReadersSeeTheSame(t *testing.T) {
	r := newRig(t)
	turn, x := r.ask("q")
	var wg sync.WaitGroup
	readers := make([]*listener, 5)
	for i := range readers {
		readers[i] = r.listen(turn.ID, 0, nil)
		wg.Go(readers[i].rest)
	}
	text := ""
	for i := range 200 {
		w := fmt.Sprintf("word %d ", i)
		if i%20 == 19 {
			w += "\n\n"
		}
		text += w
		x.text(w)
	}
	x.done()
	wg.Wait()
	for _, l := range readers {
		if want := r.markdown.blocks(text, nil); !slices.Equal(l.blocks, want) {
			t.Errorf("got %q", l.blocks)
		}
	}
}

func TestReadersAreToldThatTheServerRestarts(t *testing.T) {
	r := newRig(t)
	turn, x := r.ask("q")
	l := r.listen(turn.ID, 0, nil)
	x.text("half ")
	l.until("half")
	r.Drain()
	l.rest()
	if last := l.names[len(l.names)-1]; last != "restart" {
		t.Errorf("events %q", l.names)
	}
}

func TestAnAnswerThatARestartCutOff(t *testing.T) {
	path := filepath.Join(t.TempDir(), db.Name)
	var turn chat.Turn
	var last int64
	var shown []block
	t.Run("before", func(t *testing.T) {
		r := rigAt(t, path)
		var x *play
		turn, x = r.ask("q")
		l := r.listen(turn.ID, 0, nil)
		x.text("half of *it*")
		l.until("<em>it</em>")
		last, shown = l.last, l.blocks
	})
	r := rigAt(t, path)
	l := r.listen(turn.ID, last, shown)
	l.rest()
	if l.state.State != chat.Interrupted || !strings.Contains(l.state.Line, "Ask again") || !slices.Equal(l.blocks, shown) {
		t.Errorf("%+v, %q", l.state, l.blocks)
	}
	_, body := r.get(chatPath(turn))
	contains(t, body, "half of <em>it</em>", "Interrupted.", "Ask again")
}

func TestThinkingIsToldBeforeTheAnswerAndKeptUnderIt(t *testing.T) {
	r := newRig(t)
	turn, x := r.ask("q")
	l := r.listen(turn.ID, 0, nil)
	x.say <- llm.Event{Thinking: "let me <see>"}
	for !strings.Contains(l.state.Line, "Thinking: qwen2.5:14b on contabo") {
		l.next()
	}
	x.text("done")
	for !strings.Contains(l.state.Line, "Arriving from qwen2.5:14b on contabo") {
		l.next()
	}
	x.done()
	l.rest()
	if !strings.Contains(l.state.Line, "let me &lt;see&gt;") {
		t.Error(l.state.Line)
	}
}

func TestEventsOfNothing(t *testing.T) {
	r := newRig(t)
	for _, path := range []string{"/turns/99/events", "/turns/x/events", "/messages/9/text", "/chats/9/export.md", "/chats/9/export.json"} {
		if status, _ := r.get(path); status != http.StatusNotFound {
			t.Errorf("%s: %d", path, status)
		}
	}
}
