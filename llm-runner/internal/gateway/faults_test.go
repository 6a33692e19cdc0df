package gateway_test

import (
	"cmp"
	"encoding/json"
	"fmt"
	"net"
	"net/http"
	"os"
	"slices"
	"strconv"
	"strings"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"home.arpa/lab/llm-runner/internal/fake"
	"home.arpa/lab/llm-runner/internal/fake/script"
	"home.arpa/lab/llm-runner/internal/llm"
	"home.arpa/lab/llm-runner/internal/provider/openai/wire"
	"home.arpa/lab/llm-runner/internal/route"
	"home.arpa/lab/llm-runner/internal/usage"
)

// A mishap is one fault, as the handbook tells of it.
type mishap struct {
	name  string
	fault script.Fault
	// net is what is wrong with the network while the fault lasts; nil: nothing, the fake misbehaves.
	net func() error
	// label is a Content-Type that the answer does not have.
	label string
}

// mishaps are all faults that a fake can play, and those of the network.
func mishaps() []mishap {
	page := "<!doctype html><html><head><title>503</title></head><body>Back soon.</body></html>\n"
	all := []mishap{
		{name: "no host of that name", net: func() error { return &net.DNSError{Err: "no such host", Name: "up.test", IsNotFound: true} }},
		{name: "connection refused", net: func() error { return nobody("up.test:80") }},
	}
	for _, k := range script.FaultKinds() {
		if k == script.Verbatim {
			continue
		}
		m := mishap{name: "`" + string(k) + "`", fault: script.Fault{Kind: k}}
		switch k {
		case script.SlowFirstToken:
			m.fault.Wait = 20 * time.Second
		case script.Busy, script.Overloaded:
			all = append(all, mishap{name: m.name + " with a time to come back", fault: script.Fault{Kind: k, Wait: 7 * time.Second}})
		}
		all = append(all, m)
	}
	verbatim := func(name string, status int, body string, headers ...string) {
		f := script.Fault{Kind: script.Verbatim, Status: status, Body: body, Headers: map[string]string{"Content-Type": "text/html"}}
		for i := 0; i < len(headers); i += 2 {
			f.Headers[headers[i]] = headers[i+1]
		}
		all = append(all, mishap{name: name, fault: f})
	}
	verbatim("502 with a proxy's page", 502, page)
	verbatim("503 with a proxy's page", 503, page)
	verbatim("500 with ten megabytes", 500, strings.Repeat("x", 10<<20))
	verbatim("307 to another host", 307, "", "Location", "http://elsewhere.test/v1/chat/completions")
	verbatim("200 with nothing", 200, "", "Content-Type", "text/event-stream")
	return append(all, mishap{name: "200 with the wrong content type", label: "text/plain"})
}

// faultText is the answer of the provider that has faults, spareText that of the fallback.
const (
	faultText = "one two three four five six 😀."
	spareText = "the fallback answers"
)

// asked is a request for model; what it says decides whether the fake misbehaves.
func asked(model, says string, stream bool) string {
	return fmt.Sprintf(`{"model":%q,"stream":%v,"max_tokens":1000,"messages":[{"role":"user","content":%q}]}`, model, stream, says)
}

// Every fault of every provider, before the whole gateway: as a stream and in one piece, without a fallback and with one.
// The tables of docs/faults.md are what is seen here; run with -update to write them anew. Besides, whatever happens:
//
//   - the client has the whole answer with a proper end, or a failure that nobody can take for one;
//   - nothing is said twice, and no two models' words are mixed;
//   - each request that a provider saw is one row of the ledger, with an honest outcome;
//   - what was reserved of rate limits is given back or settled, and no place in line stays taken;
//   - a refusal that passes says when, and a request that waits until then is answered;
//   - no key is told, and none leaves for another host;
//   - no goroutine is left (synctest fails a test that leaves one).
func TestEveryFaultOfEveryProvider(t *testing.T) {
	seen := &table{cells: map[[2]string]string{}}
	var names []string
	t.Run("all", func(t *testing.T) {
		for i, m := range mishaps() {
			names = append(names, m.name)
			kinds := fake.Kinds()
			if testing.Short() { // under the race detector: each fault of one provider, each provider with some
				kinds = kinds[i%len(kinds):][:1]
			}
			for _, kind := range kinds {
				t.Run(m.name+"/"+kind, func(t *testing.T) {
					t.Parallel()
					synctest.Test(t, func(t *testing.T) { seen.put(m.name, kind, m.play(t, kind)) })
				})
			}
		}
	})
	if len(seen.cells) == len(names)*len(fake.Kinds()) && !t.Failed() {
		handbook(t, "Each fault", seen.lines("Fault", names))
	}
}

// play has the fault happen in four ways and returns what was seen as the cells of a row.
func (m mishap) play(t *testing.T, kind string) string {
	e := &ether{}
	l, up := m.town(t, e, kind)
	var cells []string
	for _, model := range []string{"lone", "covered"} {
		for _, stream := range []bool{true, false} {
			if m.net != nil {
				e.lose("up.test:80", m.net())
			}
			g := l.do(t.Context(), chat, asked(model, "break it", stream), "Prefer", "wait=0")
			e.lose("up.test:80", nil)
			s := readSight(t, g, stream)
			cells = append(cells, s.cell())
			m.judge(t, s, model)
			m.recovers(t, l, s, model)
		}
	}
	if len(e.strangers("up.test:80", "other.test:80", "runner.test:80")) > 0 {
		t.Errorf("a request went to %v", e.dialed)
	}
	time.Sleep(25 * time.Hour) // every limit is full again
	l.post(chat, asked("lone", "hi", true))
	l.settled(t)
	for i, cell := range cells[2:] {
		switch {
		case cell == spareText && cells[i] != "the answer":
			cells[2+i] = "answers"
		case cell == cells[i] && cell == "the answer":
			cells[2+i] = "is not needed"
		case cell == cells[i]:
			cells[2+i] = "does not answer"
		default:
			t.Errorf("alone: %s, with a fallback: %s", cells[i], cell)
		}
	}
	if cells[2] != cells[3] {
		cells[2] = fmt.Sprintf("streamed %s, in one piece %s", cells[2], cells[3])
	}
	return strings.Join([]string{cells[0], cells[1], cells[2], l.books(t, up, m.net != nil)}, " | ")
}

// town opens a lab with the provider that misbehaves, and a fallback for it.
func (m mishap) town(t *testing.T, e *ether, kind string) (*town, *fake.Server) {
	s := script.Script{Reply: []script.Rule{{Match: "break", Text: faultText}, {Text: faultText}}, Limits: []script.Limit{
		{Dimension: llm.RequestsPerMinute, Max: 600}, {Dimension: llm.RequestsPerDay, Max: 6000}, {Dimension: llm.TokensPerMinute, Max: 60000}}}
	if kind == "anthropic" {
		s.Limits = []script.Limit{{Dimension: llm.RequestsPerMinute, Max: 600}, {Dimension: llm.InputTokensPerMinute, Max: 60000}, {Dimension: llm.OutputTokensPerMinute, Max: 60000}}
	}
	if m.fault.Kind != "" {
		s.Reply[0].Fault = &m.fault
	}
	f, err := fake.New(kind, s)
	if err != nil {
		t.Fatal(err)
	}
	handler := http.Handler(f)
	if m.label != "" {
		handler = http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) { f.ServeHTTP(mislabelled{w, m.label}, r) })
	}
	up := e.serve(t, "up", kind, 30*time.Second, handler)
	up.Concurrency = 1
	other, _ := e.member(t, "other", "openai", 30*time.Second, script.Script{Reply: []script.Rule{{Text: spareText}}})
	return openTown(t, e, []route.Member{up, other}, cover("up", "other")), f
}

type mislabelled struct {
	http.ResponseWriter
	label string
}

func (m mislabelled) WriteHeader(status int) {
	m.Header().Set("Content-Type", m.label)
	m.ResponseWriter.WriteHeader(status)
}

func (m mislabelled) Unwrap() http.ResponseWriter { return m.ResponseWriter }

// A sight is what a client sees of one answer.
type sight struct {
	got
	stream bool
	whole  bool          // the answer came to its proper end
	said   string        // text, as far as it came
	code   string        // of the error
	retry  time.Duration // Retry-After
	at     time.Duration // until retry_at, which is exact
}

// readSight reads an answer as a careful client does, and checks what holds for every answer.
func readSight(t *testing.T, g got, stream bool) sight {
	t.Helper()
	s := sight{got: g, stream: stream}
	if g.Response == nil {
		t.Fatalf("no response: %v", g.err)
	}
	if strings.Contains(g.body+fmt.Sprint(g.Header), "sk-secret-key") {
		t.Errorf("the key is told: %s", clip(g.body))
	}
	failure := g.body
	switch {
	case g.StatusCode == 200 && stream:
		failure = ""
		for _, event := range strings.Split(strings.ReplaceAll(g.body, "\r", ""), "\n\n") {
			data, _ := strings.CutPrefix(event, "data: ")
			switch {
			case data == "[DONE]":
				s.whole = g.err == nil
			case strings.Contains(data, `"error"`):
				failure = data
			default:
				var c struct {
					Choices []struct{ Delta struct{ Content string } }
				}
				if json.Unmarshal([]byte(data), &c) == nil && len(c.Choices) > 0 {
					s.said += c.Choices[0].Delta.Content
				}
			}
		}
		if s.whole == (failure != "") {
			t.Errorf("an end and an error, or neither: %v, %s", g.err, clip(g.body))
		}
	case g.StatusCode == 200:
		failure = ""
		if a, err := wire.ParseResponse([]byte(g.body)); err == nil && g.err == nil {
			s.said, s.whole = a.Message.Text(), true
		} else {
			t.Errorf("half an answer: %v, %v, %s", err, g.err, clip(g.body))
		}
	}
	if failure != "" {
		s.failed(t, failure)
	}
	return s
}

// failed reads an error.
func (s *sight) failed(t *testing.T, body string) {
	var e struct {
		Error struct {
			Message, Type string
			Code          any
			RetryAt       *time.Time `json:"retry_at"`
		}
	}
	if err := json.Unmarshal([]byte(body), &e); err != nil || e.Error.Message == "" || e.Error.Type == "" {
		t.Errorf("no error that clients can read: %s", clip(body))
	}
	s.code = fmt.Sprint(cmp.Or(e.Error.Code, any(e.Error.Type)))
	if after := s.Header.Get("Retry-After"); after != "" && s.StatusCode != 200 {
		n, err := strconv.Atoi(after)
		if s.retry = time.Duration(n) * time.Second; err != nil || n < 1 {
			t.Errorf("Retry-After: %s", after)
		}
		if at := e.Error.RetryAt; at != nil {
			if s.at = time.Until(*at); s.at > s.retry || s.at <= s.retry-time.Second {
				t.Errorf("Retry-After: %s, retry_at in %s", after, s.at)
			}
		}
	}
	if (s.StatusCode == 429 || s.StatusCode == 503) && s.retry == 0 {
		t.Errorf("%d without a time to come back: %s", s.StatusCode, body)
	}
}

// cell says it in the handbook's words.
func (s sight) cell() string {
	switch {
	case s.whole && s.said == faultText:
		return "the answer"
	case s.whole:
		return s.said
	case s.StatusCode == 200:
		return "its beginning, then `" + s.code + "`"
	case s.retry > 0:
		return fmt.Sprintf("%d `%s`, again in %s", s.StatusCode, s.code, s.retry)
	}
	return fmt.Sprintf("%d `%s`", s.StatusCode, s.code)
}

// judge checks what holds for whatever a client sees.
func (m mishap) judge(t *testing.T, s sight, model string) {
	t.Helper()
	switch {
	case s.whole && s.said != faultText && (s.said != spareText || model != "covered"):
		t.Errorf("said %q", s.said)
	case !s.whole && !strings.HasPrefix(faultText, s.said):
		t.Errorf("half an answer is not its beginning: %q", s.said)
	case s.said == spareText && s.Header.Get("X-Runner-Rule") != "fallback", s.said == spareText && s.Header.Get("X-Runner-Provider") != "other":
		t.Errorf("a silent fallback: %v", s.Header)
	}
}

// recovers checks that a request after the fault is answered: at once, or when it was said that it could be.
func (m mishap) recovers(t *testing.T, l *town, s sight, model string) {
	t.Helper()
	began := time.Now()
	g := l.do(t.Context(), chat, asked("lone", "hi", s.stream), "Prefer", "wait=300")
	if again := readSight(t, g, s.stream); !again.whole || again.said != faultText || g.Header.Get("X-Runner-Provider") != "up" {
		t.Errorf("after the fault: %d %s", g.status(), clip(g.body))
	}
	most := s.retry
	switch {
	case model == "covered":
		most = 3 * time.Minute // the fallback's client was told nothing
	case s.code == "unavailable", s.code == "upstream_broken":
		most = 0 // when it will work again nobody knows: the next one tries
	}
	if took := time.Since(began); took > most {
		t.Errorf("the next request was held for %s, told was %s", took, s.retry)
	}
	time.Sleep(3 * time.Minute)
}

// settled checks that nothing of a limit is still taken but for the last request, and no place in line.
func (l *town) settled(t *testing.T) {
	t.Helper()
	for _, r := range l.router.Reports() {
		if r.Active != 0 || r.Waiting != 0 {
			t.Errorf("a place stays taken: %+v", r)
		}
		for _, q := range r.Quota {
			most, known := q.Max.Get()
			if left, ok := q.Remaining.Get(); q.Exhausted || known && ok && left < most-100 {
				t.Errorf("%s: %d of %d %s are left after one small request", r.Name, left, most, q.Dimension)
			}
		}
	}
}

// books returns the outcomes of the attempts with the fault, as a row of the handbook has them, and checks that there is one
// row for each request that the provider saw; unreached says that some never came there.
func (l *town) books(t *testing.T, up *fake.Server, unreached bool) string {
	t.Helper()
	rows := l.rows()
	slices.Reverse(rows)
	var first []string
	count := 0
	for _, r := range rows {
		if r.Outcome == usage.Unfinished || r.Outcome == usage.Interrupted || r.Outcome == usage.Cancelled {
			t.Errorf("ledger: %+v", r)
		}
		if r.Outcome != usage.OK && (r.Error == "" || strings.Contains(r.Error, "sk-secret-key")) {
			t.Errorf("ledger: %q", r.Error)
		}
		if r.Provider != "up" {
			continue
		}
		if count++; len(first) == count-1 && (r.Outcome != usage.OK || count == 1) {
			first = append(first, string(r.Outcome))
		}
	}
	if n := len(up.Requests()); n != count && !(unreached && n < count) {
		t.Errorf("the provider saw %d requests, the ledger has %d", n, count)
	}
	return strings.Join(first, ", ")
}

// A table gathers rows that are equal for several providers.
type table struct {
	mu    sync.Mutex
	cells map[[2]string]string // by name and provider
}

func (x *table) put(name, kind, cells string) {
	x.mu.Lock()
	defer x.mu.Unlock()
	x.cells[[2]string{name, kind}] = cells
}

// lines returns the rows, in the order of names.
func (x *table) lines(what string, names []string) []string {
	all := []string{"| " + what + " | Provider | Streamed | In one piece | A named fallback | In the books |", "|---|---|---|---|---|---|"}
	for _, name := range names {
		var order []string
		kinds := map[string][]string{}
		for _, k := range []string{"openai", "groq", "anthropic", "gemini", "ollama"} {
			c := x.cells[[2]string{name, k}]
			if kinds[c] == nil {
				order = append(order, c)
			}
			kinds[c] = append(kinds[c], k)
		}
		for _, c := range order {
			who := strings.Join(kinds[c], ", ")
			if len(order) == 1 {
				who = "all"
			}
			all = append(all, fmt.Sprintf("| %s | %s | %s |", name, who, c))
		}
	}
	return all
}

const handbookPage = "../../../docs/faults.md"

// handbook compares the table under a heading of docs/faults.md with what was seen.
func handbook(t *testing.T, heading string, lines []string) {
	t.Helper()
	page, err := os.ReadFile(handbookPage)
	if err != nil {
		t.Fatal(err)
	}
	before, rest, ok := strings.Cut(string(page), "## "+heading+"\n")
	if !ok {
		t.Fatalf("docs/faults.md has no heading %q", heading)
	}
	start := strings.Index(rest, "\n|")
	if start < 0 {
		t.Fatalf("docs/faults.md has no table under %q", heading)
	}
	end := start + 1
	for strings.HasPrefix(rest[end:], "|") {
		end += strings.IndexByte(rest[end:], '\n') + 1
	}
	now := strings.Join(lines, "\n") + "\n"
	if rest[start+1:end] == now {
		return
	}
	if *update {
		if err := os.WriteFile(handbookPage, []byte(before+"## "+heading+"\n"+rest[:start+1]+now+rest[end:]), 0o600); err != nil {
			t.Fatal(err)
		}
		return
	}
	t.Errorf("docs/faults.md is not what is seen; run go test ./llm-runner/internal/gateway -update and read the difference. Under %q it should be\n%s", heading, now)
}
