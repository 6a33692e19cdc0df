package gateway_test

import (
	"encoding/json"
	"fmt"
	"net/http"
	"slices"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"home.arpa/lab/llm-runner/internal/fake"
	"home.arpa/lab/llm-runner/internal/fake/script"
	"home.arpa/lab/llm-runner/internal/gateway"
	"home.arpa/lab/llm-runner/internal/provider/openai/wire"
	"home.arpa/lab/llm-runner/internal/route"
	"home.arpa/lab/llm-runner/internal/usage"
)

// The sixteen faults of Failover Bench (https://github.com/failoverbench/failoverbench, scenarios/catalogue.yaml and
// METHODOLOGY.md, version 0.1 of September 2026), made anew from their description, with the times of its published profile: a first token after
// 20 s, stalls of 30 s, silence of 120 s, an outage of 60 s, 15 ms between tokens. Where the catalogue cuts a stream after 40 of 60 tokens, or spoils the
// tenth, the fake does it in the middle.
//
// Each fault is asked for five times: as a stream and in one piece, of a model alone and of one with a named fallback, and as a stream
// that is held back until it is whole. The verdicts are the catalogue's own:
//
//	pass     the complete answer came (S13: the clean error), and every check held
//	partial  it came, but a check that is advice did not hold
//	safe     it did not come, but a clear error within bounds, and every check that is required held
//	fail     a hang, half an answer that looks whole, or a required check
//
// A stream that breaks in its middle is safe at best, unless it is held back: what the client has read cannot be taken back,
// and another model's words must not follow it.
var bench = []scenario{
	{id: "S01", title: "429 with Retry-After, once", faults: []script.Fault{{Kind: script.RateLimited, On: []int{1}, Wait: 2 * time.Second}},
		check: func(m measured) []string {
			return m.all(required(m.within(1500*time.Millisecond) <= 2, "hammers"), advice(m.primary >= 2, "not asked again"), advice(m.primary < 2 || m.gap >= 1800*time.Millisecond, "Retry-After not heeded"))
		}, want: [5]string{"pass", "pass", "pass", "pass", "pass"}},
	{id: "S02", title: "429 without Retry-After, again and again", faults: []script.Fault{{Kind: script.RateNoHint}},
		check: func(m measured) []string {
			return m.all(required(m.within(3*time.Second) <= 4, "hammers"), required(m.primary <= 6, "asks too often"))
		}, want: [5]string{"safe", "safe", "pass", "pass", "pass"}},
	{id: "S03", title: "500 once, then healthy", faults: []script.Fault{{Kind: script.Internal, On: []int{1}}},
		check: func(m measured) []string { return m.all(advice(m.primary >= 2, "not asked again")) }, want: [5]string{"pass", "pass", "pass", "pass", "pass"}},
	{id: "S04", title: "503 again and again", faults: []script.Fault{{Kind: script.Busy}},
		check: func(m measured) []string { return m.all(required(m.primary <= 6, "asks too often")) }, want: [5]string{"safe", "safe", "pass", "pass", "pass"}},
	{id: "S05", title: "connection reset before headers, once", faults: []script.Fault{{Kind: script.ResetBeforeHeaders, On: []int{1}}},
		want: [5]string{"pass", "pass", "pass", "pass", "pass"}},
	{id: "S06", title: "no response at all", faults: []script.Fault{{Kind: script.StallBeforeHeaders}},
		check: func(m measured) []string {
			return m.all(required(m.took <= 100*time.Second, "takes too long"), advice(m.primary <= 1, "a silent provider is asked again"))
		}, want: [5]string{"safe", "safe", "pass", "pass", "pass"}},
	{id: "S07", title: "first token after 20 s", faults: []script.Fault{{Kind: script.SlowFirstToken, Wait: 20 * time.Second}},
		check: func(m measured) []string {
			return m.all(advice(m.took <= 15*time.Second || !m.fallback, "no limit on the first token"))
		}, want: [5]string{"pass", "pass", "pass", "pass", "pass"}},
	{id: "S08", title: "stream cut in the middle", faults: []script.Fault{{Kind: script.CloseMidStream}}, want: [5]string{"safe", "safe", "safe", "pass", "pass"}},
	{id: "S09", title: "stream stalls", faults: []script.Fault{{Kind: script.StallMidStream}},
		check: func(m measured) []string { return m.all(required(m.took <= 45*time.Second, "takes too long")) }, want: [5]string{"safe", "safe", "safe", "pass", "pass"}},
	{id: "S10", title: "malformed chunk", faults: []script.Fault{{Kind: script.MalformedChunk}}, want: [5]string{"safe", "safe", "safe", "pass", "pass"}},
	{id: "S11", title: "stream ends without [DONE]", faults: []script.Fault{{Kind: script.NoDone}},
		check: func(m measured) []string {
			return m.all(required(m.took <= 8*time.Second, "waits for the mark"), advice(m.usage, "no usage"))
		}, want: [5]string{"pass", "pass", "pass", "pass", "pass"}},
	{id: "S12", title: "context length exceeded", faults: []script.Fault{{Kind: script.Verbatim, Status: 400,
		Body: `{"error":{"message":"This model's maximum context length is 8192 tokens. However, your messages resulted in 9631 tokens. Please reduce the length of the messages.","type":"invalid_request_error","param":"messages","code":"context_length_exceeded"}}`}},
		check: func(m measured) []string { return m.all(required(m.primary == 1, "the same is sent again")) }, want: [5]string{"safe", "safe", "pass", "pass", "pass"}},
	{id: "S13", title: "rejected by a content filter", ideal: http.StatusBadRequest, faults: []script.Fault{{Kind: script.Verbatim, Status: 400,
		Body: `{"error":{"message":"Your request was rejected as a result of our safety system.","type":"invalid_request_error","param":null,"code":"content_policy_violation"}}`}},
		check: func(m measured) []string {
			return m.all(required(m.primary == 1, "the same is sent again"), required(m.spare == 0, "the refusal is dodged"))
		}, want: [5]string{"pass", "pass", "pass", "pass", "pass"}},
	{id: "S14", title: "stream cut, and the fallback takes no prefill", faults: []script.Fault{{Kind: script.CloseMidStream}},
		check: func(m measured) []string { return m.all(required(m.prefills == 0, "half an answer is sent on")) }, want: [5]string{"safe", "safe", "safe", "pass", "pass"}},
	{id: "S15", title: "down for 60 s, then healthy", want: [5]string{"safe", "safe", "pass", "pass", "pass"}}, // TestBenchFlap
	{id: "S16", title: "the books of a fallback", faults: []script.Fault{{Kind: script.Busy}},
		check: func(m measured) []string {
			return m.all(required(m.primary <= 6, "asks too often"), required(!m.fallback || m.Model == "spare", "the model is not told"),
				advice(!m.fallback || m.usage, "no usage"), required(m.billed == 0, "a failed attempt is billed"))
		}, want: [5]string{"safe", "safe", "pass", "pass", "pass"}},
}

// A scenario is one fault of the catalogue.
type scenario struct {
	id, title string
	faults    []script.Fault
	ideal     int                     // the status of the error that is right; 0: the answer is
	check     func(measured) []string // what does not hold, advice in brackets
	want      [5]string               // verdicts by setup
}

// setups are the five ways in which each fault is asked for.
var setups = [5]string{"alone, stream", "alone, whole", "fallback, stream", "fallback, whole", "fallback, stream held back"}

// A setup is an index of setups.
type setup int

func (u setup) fallback() bool { return u >= 2 }
func (u setup) stream() bool   { return u != 1 && u != 3 }
func (u setup) heldBack() bool { return u == 4 }

// benchText is sixty words, so that half an answer is never taken for a whole one.
var benchText = strings.TrimSpace(strings.Repeat("one two three four five six seven eight nine ten ", 6))

// measured is what one request showed on both sides.
type measured struct {
	fallback       bool // is named
	took           time.Duration
	primary, spare int           // attempts that the providers saw
	times          []time.Time   // of the primary's
	gap            time.Duration // between the first two of them
	prefills       int           // requests at the fallback that end with an assistant's message
	complete       bool          // the whole answer came, and nothing said that it did not
	status         int
	said           string
	Model          string // that the answer names
	usage          bool
	billed         int // failed attempts in the ledger with usage or cost
}

func (m measured) within(d time.Duration) (n int) {
	for _, at := range m.times {
		if at.Sub(m.times[0]) < d {
			n++
		}
	}
	return n
}

func required(holds bool, what string) string {
	if holds {
		return ""
	}
	return what
}

func advice(holds bool, what string) string {
	if holds {
		return ""
	}
	return "[" + what + "]"
}

func (measured) all(faults ...string) (list []string) {
	for _, f := range faults {
		if f != "" {
			list = append(list, f)
		}
	}
	return list
}

// verdict is the catalogue's rule. half says that an error came too late to be clean.
func (s scenario) verdict(m measured) string {
	var faults []string
	if s.check != nil {
		faults = s.check(m)
	}
	for _, f := range faults {
		if f[0] != '[' {
			return "fail: " + f
		}
	}
	rescued := m.complete
	if s.ideal != 0 {
		rescued = m.status == s.ideal
	}
	switch {
	case rescued && len(faults) > 0:
		return "partial"
	case rescued:
		return "pass"
	case m.complete || m.said == benchText:
		return "fail: the answer came, but not as one"
	}
	return "safe"
}

func TestFailoverBench(t *testing.T) {
	lines := []string{"| | Fault | " + strings.Join(setups[:], " | ") + " |", "|---|---|---|---|---|---|---|"}
	for _, s := range bench {
		lines = append(lines, fmt.Sprintf("| %s | %s | %s |", s.id, s.title, strings.Join(s.want[:], " | ")))
	}
	handbook(t, "Failover Bench", lines)
	for _, s := range bench {
		if s.faults == nil {
			continue
		}
		for i, name := range setups {
			t.Run(s.id+" "+s.title+"/"+name, func(t *testing.T) {
				t.Parallel()
				synctest.Test(t, func(t *testing.T) {
					if got := s.verdict(s.run(t, setup(i))); got != s.want[i] {
						t.Errorf("%s, want %s", got, s.want[i])
					}
				})
			})
		}
	}
}

// benchTown is a primary with faults and a spare: rows with and without the spare as a fallback. Who names a fallback can
// afford less patience with the primary: its timeout is 10 s instead of 30.
func benchTown(t *testing.T, u setup, handler func(script.Script) (http.Handler, *fake.Server), s script.Script) (l *town, primary, spare *fake.Server) {
	e := &ether{}
	silence := 30 * time.Second
	if u.fallback() {
		silence = 10 * time.Second
	}
	s.Reply = []script.Rule{{Text: benchText, ChunkDelay: 15 * time.Millisecond}}
	h, primary := handler(s)
	m := e.serve(t, "primary", "openai", silence, h)
	o, spare := e.member(t, "spare", "openai", silence, script.Script{Reply: []script.Rule{{Text: benchText}}})
	l = openTown(t, e, []route.Member{m, o}, func(_ *gateway.Config, rc *route.Config) {
		rc.Table.Models["asked"] = route.Entry{Target: route.Target{Provider: "primary", Model: "primary"}}
		if u.fallback() {
			rc.Table.Models["asked"] = route.Entry{Target: route.Target{Provider: "primary", Model: "primary"}, Fallback: "spare", Whole: u.heldBack()}
			rc.Table.Models["spare"] = route.Entry{Target: route.Target{Provider: "spare", Model: "spare"}}
		}
	})
	return l, primary, spare
}

func steady(t *testing.T) func(script.Script) (http.Handler, *fake.Server) {
	return func(s script.Script) (http.Handler, *fake.Server) {
		f, err := fake.New("openai", s)
		if err != nil {
			t.Fatal(err)
		}
		return f, f
	}
}

func (s scenario) run(t *testing.T, u setup) measured {
	l, primary, spare := benchTown(t, u, steady(t), script.Script{Faults: s.faults})
	m := l.measure(t, u.stream())
	m.fallback = u.fallback()
	for _, r := range primary.Requests() {
		m.primary, m.times = m.primary+1, append(m.times, r.Time)
	}
	if m.primary > 1 {
		m.gap = m.times[1].Sub(m.times[0])
	}
	for _, r := range spare.Requests() {
		m.spare++
		if prefilled(r.Body) {
			m.prefills++
		}
	}
	// The alive probe: the same gateway answers a healthy request within ten seconds.
	began := time.Now()
	if g := l.post(chat, strings.Replace(whole, `"x"`, `"spare"`, 1)); g.err != nil || g.StatusCode != 200 || time.Since(began) > 10*time.Second {
		t.Errorf("not alive after it: %d, %v", g.status(), g.err)
	}
	for _, r := range l.rows() {
		if r.Outcome != usage.OK && r.Usage.Output.Or(0)+r.Cost.Or(0) > 0 {
			m.billed++
		}
	}
	return m
}

// measure asks once and reads the answer as a careful client does.
func (l *town) measure(t *testing.T, stream bool) measured {
	body := strings.Replace(whole, `"x"`, `"asked"`, 1)
	if stream {
		body = strings.Replace(streamed, `"x"`, `"asked"`, 1)
	}
	began := time.Now()
	g := l.do(t.Context(), chat, body)
	m := measured{took: time.Since(began), status: g.status()}
	clean := g.err == nil && g.StatusCode == 200
	if stream && clean {
		m.complete = strings.HasSuffix(g.body, "data: [DONE]\n\n")
		for line := range strings.SplitSeq(g.body, "\n\n") {
			var c struct {
				Model   string
				Choices []struct{ Delta struct{ Content string } }
				Usage   *struct{}
				Error   any
			}
			if data, ok := strings.CutPrefix(line, "data: {"); ok && json.Unmarshal([]byte("{"+data), &c) == nil {
				m.Model, m.usage, m.complete = c.Model, m.usage || c.Usage != nil, m.complete && c.Error == nil
				for _, choice := range c.Choices {
					m.said += choice.Delta.Content
				}
			}
		}
	} else if a, err := wire.ParseResponse([]byte(g.body)); clean && err == nil {
		_ = json.Unmarshal([]byte(g.body), &m)
		m.said, m.usage, m.complete = a.Message.Text(), strings.Contains(g.body, `"usage":{`), true
	}
	m.complete = m.complete && m.said == benchText
	return m
}

func prefilled(body string) bool {
	var in struct{ Messages []struct{ Role string } }
	return json.Unmarshal([]byte(body), &in) == nil && len(in.Messages) > 0 && in.Messages[len(in.Messages)-1].Role == "assistant"
}

// S15: twenty requests, one every 4 s; for the first 60 s the primary answers 503. While it is down each is answered by the
// fallback, and within 30 s of its recovery the primary answers again.
func TestFailoverBenchFlap(t *testing.T) {
	if testing.Short() {
		t.Skip("simulates minutes")
	}
	for i, name := range setups {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			synctest.Test(t, func(t *testing.T) {
				const outage = 60 * time.Second
				began := time.Now()
				l, primary, _ := benchTown(t, setup(i), func(s script.Script) (http.Handler, *fake.Server) {
					up, primary := steady(t)(s)
					s.Faults = []script.Fault{{Kind: script.Busy}}
					down, _ := steady(t)(s)
					return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
						if time.Since(began) < outage {
							down.ServeHTTP(w, r)
							return
						}
						up.ServeHTTP(w, r)
					}), primary
				}, script.Script{})
				served, during, complete := 0, 0, 0
				for n := range 20 {
					time.Sleep(max(0, time.Duration(n)*4*time.Second-time.Since(began)))
					sent := time.Since(began)
					m := l.measure(t, setup(i).stream())
					if m.took > 30*time.Second {
						t.Errorf("request %d hung for %s", n, m.took)
					}
					if m.complete {
						complete++
					} else if m.status == 200 {
						t.Errorf("request %d: no clean error", n)
					}
					if sent < outage {
						during++
						if m.complete {
							served++
						}
					}
				}
				if setup(i).fallback() && served != during {
					t.Errorf("%d of %d were served while the primary was down", served, during)
				}
				back := primary.Requests()
				if len(back) == 0 || back[0].Time.Sub(began) > outage+30*time.Second {
					t.Errorf("the primary is not used again: %+v", back)
				}
				want := bench[slices.IndexFunc(bench, func(s scenario) bool { return s.id == "S15" })].want[i]
				if got := map[bool]string{true: "pass", false: "safe"}[complete == 20]; got != want {
					t.Errorf("%s (%d of 20), want %s", got, complete, want)
				}
				l.stop()
			})
		})
	}
}
