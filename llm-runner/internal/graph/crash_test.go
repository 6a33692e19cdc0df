package graph

import (
	"bufio"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"math/rand/v2"
	"net/http"
	"net/http/httptest"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"home.arpa/lab/llm-runner/internal/db"
	"home.arpa/lab/llm-runner/internal/library"
	"home.arpa/lab/llm-runner/internal/llm"
	"home.arpa/lab/llm-runner/internal/provider/openai"
)

// crashDir names the folder in which a child process answers a question until it is killed, crashURL the provider that it asks.
const (
	crashDir = "GRAPH_CRASH_DIR"
	crashURL = "GRAPH_CRASH_URL"
	crashWay = "GRAPH_CRASH_WAY" // Straight, or else thorough
)

// everywhere has TestKilledAtEveryNode kill before, in and after each node; in make prove. Otherwise it is some of them.
var everywhere = false

// TestCrashChild is the process that is killed. It says where it is, and goes on when it is told to.
func TestCrashChild(t *testing.T) {
	dir := os.Getenv(crashDir)
	if dir == "" {
		t.Skip("only as a child")
	}
	d, err := db.Open(t.Context(), filepath.Join(dir, db.Name))
	if err != nil {
		t.Fatal(err)
	}
	in, mu := bufio.NewReader(os.Stdin), sync.Mutex{}
	at := func(format string, args ...any) {
		mu.Lock()
		defer mu.Unlock()
		fmt.Printf("at "+format+"\n", args...)
		if _, err := in.ReadString('\n'); err != nil {
			os.Exit(1) // the one who asks is gone
		}
	}
	st := NewStore(d)
	node := ""
	q := &Inquiries{Store: st, Reader: openai.New(openai.Config{URL: os.Getenv(crashURL)}),
		Search: func(_ context.Context, collection, query string, _ int, _ bool) ([]Source, error) {
			at("in %s", node)
			switch {
			case collection == "vault" && strings.Contains(query, "washing"):
				return []Source{passage("house.md", "The filter of the heat pump is washed every spring. It takes 20 minutes."), passage("garden.md", "The pond's filter too, twice a year.")}, nil
			case collection == "vault":
				return []Source{passage("car.md", "Winter tyres from October.")}, nil
			}
			return nil, nil
		},
		Web: func(_ context.Context, _ int64, query string) ([]Source, []Drop, error) {
			at("in %s", node)
			p := passage("https://example.org/"+strings.ReplaceAll(query, " ", "-"), "Error 404: page not found.")
			p.Collection = "web"
			return []Source{p}, nil, nil
		},
		Stands: func(_ context.Context, s Source) (llm.Citation, bool) {
			at("in %s", node)
			return s.Citation, true
		}}
	if os.Getenv(crashWay) == Straight {
		crashStraight(t, q, d, dir, at)
		return
	}
	ask := Ask[Inquiry]{Key: "turn-1", State: Inquiry{Model: "m", Asked: "And the other one?", Before: []string{"When is the filter of the pump washed?"}, Asks: true, Report: true}, Budget: DefaultBudget,
		Watch: func(r StepRow) {
			if node = r.Node; r.Ended.IsZero() {
				at("before %s", r.Node)
			} else {
				at("after %s", r.Node)
			}
		}}
	for {
		_, x, err := q.Graph().Run(t.Context(), st, ask)
		var paused *PausedError
		if errors.As(err, &paused) {
			at("in plan")
			b, _ := json.Marshal(Plan{Questions: []string{"pump", "pond"}, Sources: PlanSources, Sections: []string{"The pump", "The pond"}})
			if err := st.Answer(t.Context(), paused.Run, string(b)); err != nil {
				t.Fatal(err)
			}
			continue
		}
		if err != nil {
			t.Fatal(err)
		}
		b, _ := json.Marshal(struct {
			Answer string
			Cited  []llm.Citation
			Drops  []Drop
		}{x.Answer, x.Cited, x.Dropped})
		fmt.Println("done " + string(b))
		return
	}
}

// crashStraight is the child that goes the straight way, over a library of its own.
func crashStraight(t *testing.T, q *Inquiries, d *db.DB, dir string, at func(string, ...any)) {
	notes := filepath.Join(dir, "notes")
	if err := os.MkdirAll(notes, 0o700); err != nil {
		t.Fatal(err)
	}
	for name, text := range map[string]string{"house.md": "The filter of the heat pump is washed every spring.", "garden.md": "The filter of the pond is washed twice a year."} {
		if err := os.WriteFile(filepath.Join(notes, name), []byte(text), 0o600); err != nil {
			t.Fatal(err)
		}
	}
	l := read(t, d, notes)
	l.Rerank(q.Reader, "small")
	q.Notes, q.Orders, q.Model = library.NewVault(l, nil), l.Orders, func(llm.Request) (string, bool) { return "m", true }
	req := asksVault("When is the filter washed?", "turn-1")
	x, err := vault{q}.asked(t.Context(), req)
	if err != nil {
		t.Fatal(err)
	}
	node, heard := "", ""
	_, x, err = q.Graph().Run(t.Context(), q.Store, Ask[Inquiry]{Key: req.Run, State: x, As: library.Model, Fleeting: true,
		Tell: func(ev llm.Event) bool {
			at("hears %s", node)
			heard += ev.Text
			return true
		},
		Watch: func(r StepRow) {
			if node = r.Node; r.Ended.IsZero() {
				at("before %s", r.Node)
			} else {
				at("after %s", r.Node)
			}
		}})
	if err != nil {
		t.Fatal(err)
	}
	if heard != "" && heard != x.Answer {
		t.Fatalf("told %q of %q", heard, x.Answer)
	}
	b, _ := json.Marshal(struct {
		Answer string
		Cited  []llm.Citation
		End    llm.Event
	}{x.Answer, x.Cited, x.end()})
	fmt.Println("done " + string(b))
}

// crashModel answers what the child asks, and counts what it has answered, by question.
type crashModel struct {
	mu       sync.Mutex
	came     map[string]int
	answered map[string]int
	hold     bool // requests are not answered any more, but for the next few: whoever asks is about to be killed
	few      int
	asks     chan struct{} // told of each that is held
}

func (m *crashModel) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	body, err := io.ReadAll(r.Body)
	if err != nil {
		return
	}
	var in struct {
		Messages []struct{ Role, Content string }
	}
	if err := json.Unmarshal(body, &in); err != nil || len(in.Messages) < 2 {
		http.Error(w, "no request", http.StatusBadRequest)
		return
	}
	system, user := in.Messages[0].Content, in.Messages[1].Content
	m.mu.Lock()
	m.came[system+user]++
	hold := m.hold && m.few == 0
	if m.hold && m.few > 0 {
		m.few--
	}
	m.mu.Unlock()
	if hold {
		select {
		case m.asks <- struct{}{}:
		default:
		}
		<-r.Context().Done()
		return
	}
	text := "?"
	switch {
	case strings.HasPrefix(system, "You order"):
		text = "2, 1"
	case strings.HasPrefix(system, "You answer"):
		text = `In spring [1: "washed every spring"] or [2: "washed every spring"], and twice a year [1: "twice a year"]. Never [1: "is never washed"]. See [1` // half a mark is held back until all has come, and been kept
	case strings.HasPrefix(system, "Rewrite the last"):
		text = `{"question": "When are the filters washed?"}`
	case strings.HasPrefix(system, "Take the question"):
		text = `{"questions": ["pump", "pond"], "sections": []}`
	case strings.HasPrefix(system, "Which of"):
		if text = `{"useful": []}`; strings.Contains(user, "house.md") {
			n := strings.Index(user, "house.md")
			first := strings.Count(user[:n], "<source ")
			text = fmt.Sprintf(`{"useful": [%d, %d]}`, first, first+1)
		}
	case strings.HasPrefix(system, "A search for"):
		text = `{"query": "washing filters"}`
	case strings.HasPrefix(system, "Copy out"):
		text = `{"quotes": ["washed every spring", "twice a year"]}`
	case strings.Contains(user, "Section: The pump"):
		text = `The pump's is washed in spring [1: "washed every spring"]. It takes 20 minutes [1: "It takes 20 minutes"]. It takes 30 minutes [1: "It takes 20 minutes"].`
	case strings.Contains(user, "Section: The pond"):
		text = `The pond's is washed twice a year [2: "twice a year"].`
	case strings.HasPrefix(system, "Do the sources"):
		text = `{"supported": true}`
	}
	m.mu.Lock()
	m.answered[system+user]++
	m.mu.Unlock()
	w.Header().Set("Content-Type", "text/event-stream")
	b, _ := json.Marshal(text)
	fmt.Fprintf(w, "data: {\"choices\":[{\"delta\":{\"content\":%s},\"finish_reason\":null}]}\n\ndata: {\"choices\":[{\"delta\":{},\"finish_reason\":\"stop\"}],\"usage\":{\"prompt_tokens\":9,\"completion_tokens\":5}}\n\ndata: [DONE]\n\n", b)
}

// A kill says where: the nth time that the child comes to a place ("in grade"). A place that begins with "asks" is within a question to the model, one
// with "hears" within its answer. few questions are answered before that. way is the one that the child goes.
type kill struct {
	place string
	n     int
	few   int
	way   string
}

// crash runs children in one folder: the first is killed at k, where k has a place, and the next goes on to the end. places are those that the
// last child came to.
func crash(t *testing.T, k kill) (final string, places []string, m *crashModel) {
	t.Helper()
	m = &crashModel{came: map[string]int{}, answered: map[string]int{}, asks: make(chan struct{}, 64)}
	server := httptest.NewServer(m)
	defer server.Close()
	dir := t.TempDir()
	for try := range 2 {
		c := exec.CommandContext(t.Context(), os.Args[0], "-test.run=^TestCrashChild$", "-test.v")
		c.Env = append(os.Environ(), crashDir+"="+dir, crashURL+"="+server.URL+"/v1", crashWay+"="+k.way)
		c.Stderr = os.Stderr
		stdin, err := c.StdinPipe()
		if err != nil {
			t.Fatal(err)
		}
		stdout, err := c.StdoutPipe()
		if err != nil {
			t.Fatal(err)
		}
		if err := c.Start(); err != nil {
			t.Fatal(err)
		}
		places = nil
		killed := false
		die := func() {
			killed = true
			if err := c.Process.Kill(); err != nil { // SIGKILL
				t.Fatal(err)
			}
		}
		times := map[string]int{}
		lines := bufio.NewScanner(stdout)
		for lines.Scan() {
			place, ok := strings.CutPrefix(lines.Text(), "at ")
			if result, done := strings.CutPrefix(lines.Text(), "done "); done {
				final = result
			}
			if !ok {
				continue
			}
			places = append(places, place)
			times[place]++
			if asks, ok := strings.CutPrefix(k.place, "asks "); ok && try == 0 && place == "before "+asks && times[place] == k.n {
				m.mu.Lock()
				m.hold, m.few = true, k.few
				m.mu.Unlock()
				if _, err := io.WriteString(stdin, "\n"); err != nil {
					t.Fatal(err)
				}
				select {
				case <-m.asks:
				case <-time.After(20 * time.Second):
					t.Errorf("%s asked nothing", asks)
				}
				die()
				break
			}
			if try == 0 && place == k.place && times[place] == k.n {
				die()
				break
			}
			if _, err := io.WriteString(stdin, "\n"); err != nil {
				t.Fatal(err)
			}
		}
		err = c.Wait()
		m.mu.Lock()
		m.hold = false
		m.mu.Unlock()
		if !killed {
			if err != nil || final == "" {
				t.Fatalf("the child ended with %v at %q", err, places)
			}
			if try == 0 && k.place != "" {
				t.Fatalf("nobody came to %v", k)
			}
			break
		}
	}
	return final, places, m
}

// TestKilledAtEveryNode kills a process with SIGKILL before, in and after each node, and within its questions to the model: the next process comes to the same answer, and
// what the provider has answered is not asked for again.
func TestKilledAtEveryNode(t *testing.T) {
	if testing.Short() {
		t.Skip("starts processes")
	}
	want, places, m := crash(t, kill{})
	var all []kill
	times := map[string]int{}
	for _, p := range places {
		times[p]++
		all = append(all, kill{place: p, n: times[p]})
	}
	var nodes []string
	for _, n := range newInquiries(t, &scholar{}).Graph().Shape().Nodes {
		if n.Name == "write" {
			continue // see TestKilledAtEveryNodeOfTheStraightWay
		}
		nodes = append(nodes, n.Name)
		if times["before "+n.Name] == 0 || times["after "+n.Name] == 0 {
			t.Errorf("the run does not come through %s: %q", n.Name, places)
		}
	}
	for _, asking := range []string{"understand", "decompose", "grade", "rewrite", "read", "synthesise", "verify"} {
		for n := range times["before "+asking] {
			all = append(all, kill{place: "asks " + asking, n: n + 1})
		}
	}
	for few := range 2 { // one question after the other: what came before is kept when the next one comes
		all = append(all, kill{place: "asks verify", n: 1, few: few + 1})
	}
	questions := len(m.answered)
	if !strings.Contains(want, "spring [1]") || strings.Contains(want, "30 minutes") || !strings.Contains(want, "## The pond") || questions < 12 {
		t.Fatalf("%s, %d questions", want, questions)
	}
	r := rand.New(rand.NewPCG(26, 9))
	r.Shuffle(len(all), func(i, j int) { all[i], all[j] = all[j], all[i] })
	if !everywhere {
		all = append(all[:5], kill{place: "asks verify", n: 1, few: 2})
	}
	began := time.Now()
	for _, k := range all {
		got, _, m := crash(t, k)
		if got != want {
			t.Errorf("killed %s (%d): %s\nwant %s", k.place, k.n, got, want)
		}
		for text, n := range m.answered {
			if n != 1 {
				t.Errorf("killed %s (%d): answered %d times: %.120s", k.place, k.n, n, text)
			}
			if most := 1 + strings.Count(k.place, "asks"); m.came[text] > most {
				t.Errorf("killed %s (%d): asked %d times: %.120s", k.place, k.n, m.came[text], text)
			}
		}
		if len(m.answered) != questions {
			t.Errorf("killed %s (%d): %d questions, want %d", k.place, k.n, len(m.answered), questions)
		}
	}
	slices.Sort(nodes)
	t.Logf("killed %d times at %d nodes in %s: one answer, %d questions answered once each", len(all), len(nodes), time.Since(began).Round(time.Second), questions)
}

// TestKilledAtEveryNodeOfTheStraightWay does the same straight on, also while the words come: what the model has written whole is not asked for again, and who comes
// back hears all of it.
func TestKilledAtEveryNodeOfTheStraightWay(t *testing.T) {
	if testing.Short() {
		t.Skip("starts processes")
	}
	want, places, m := crash(t, kill{way: Straight})
	var all []kill
	times := map[string]int{}
	for _, p := range places {
		times[p]++
		all = append(all, kill{place: p, n: times[p], way: Straight})
	}
	for _, node := range []string{"route", "retrieve", "rerank", "write", "answer"} {
		if times["before "+node] != 1 || times["after "+node] != 1 {
			t.Errorf("the run does not come through %s: %q", node, places)
		}
	}
	all = append(all, kill{place: "asks rerank", n: 1, way: Straight}, kill{place: "asks write", n: 1, way: Straight})
	if !strings.Contains(want, "In spring [1]") || !strings.Contains(want, "twice a year [2]") || !strings.Contains(want, "left out") || len(m.answered) != 2 || times["hears write"] != 2 || times["hears answer"] == 0 {
		t.Fatalf("%s, %d questions, %q", want, len(m.answered), places)
	}
	began := time.Now()
	if !everywhere {
		all = []kill{{place: "after write", n: 1, way: Straight}, {place: "hears write", n: 1, way: Straight}, {place: "hears write", n: 2, way: Straight}, {place: "hears answer", n: 1, way: Straight}, {place: "asks write", n: 1, way: Straight}}
	}
	for _, k := range all {
		got, _, m := crash(t, k)
		if got != want {
			t.Errorf("killed %s (%d): %s\nwant %s", k.place, k.n, got, want)
		}
		for text, n := range m.answered {
			most := 1
			if k.place == "hears write" && k.n == 1 && strings.HasPrefix(text, "You answer") {
				most = 2 // it died in the middle of the words
			}
			if n > most || m.came[text] > most+strings.Count(k.place, "asks") {
				t.Errorf("killed %s (%d): answered %d times, asked %d times: %.120s", k.place, k.n, n, m.came[text], text)
			}
		}
		if len(m.answered) != 2 {
			t.Errorf("killed %s (%d): %d questions", k.place, k.n, len(m.answered))
		}
	}
	t.Logf("killed %d times at 5 nodes and within %d parts of the answer in %s: one answer", len(all), times["hears write"]+times["hears answer"], time.Since(began).Round(time.Second))
}
