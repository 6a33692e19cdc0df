package gateway_test

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"iter"
	"net/http"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"home.arpa/lab/llm-runner/internal/fake"
	"home.arpa/lab/llm-runner/internal/fake/script"
	"home.arpa/lab/llm-runner/internal/gateway"
	"home.arpa/lab/llm-runner/internal/llm"
	"home.arpa/lab/llm-runner/internal/route"
)

// What a client of Anthropic's or Ollama's API reads from the gateway is what the provider said, whatever dialect that speaks. The clients are
// this repository's own providers, which pass their contract against faithful servers.
func TestEveryDoorTellsWhatTheProviderSaid(t *testing.T) {
	rules := []script.Rule{
		{Match: "words", Text: "one two  three\n\nünd <b> & \"so\""},
		{Match: "think", Thinking: "hm hm", Text: "so it is"},
		{Match: "call", Text: "look", Calls: []script.Call{{ID: "a1", Name: "f", Arguments: `{"x":[1,2,{"y":"z"}]}`}, {ID: "b2", Name: "g", Arguments: `{}`}}},
		{Match: "cut", Text: "cut", Finish: llm.FinishLength},
	}
	for _, door := range []string{"anthropic", "ollama"} {
		for _, kind := range fake.Kinds() {
			t.Run(door+"/"+kind, func(t *testing.T) {
				t.Parallel()
				synctest.Test(t, func(t *testing.T) {
					e := &ether{}
					m, up := e.member(t, "up", kind, time.Minute, script.Script{Reply: rules})
					l := openTown(t, e, []route.Member{m})
					client := speakers[door]("client", l.url, time.Minute, e.dial)
					defer client.(interface{ CloseIdle() }).CloseIdle()
					for _, r := range rules {
						req := llm.Request{Model: "up", MaxTokens: 500, Messages: []llm.Message{llm.Says(llm.System, "be brief"), llm.Says(llm.User, r.Match+" please")},
							Tools: []llm.ToolSpec{{Name: "f", Schema: json.RawMessage(`{"type":"object"}`)}, {Name: "g", Schema: json.RawMessage(`{"type":"object"}`)}}}
						got, err := llm.Collect(client.Stream(t.Context(), req))
						if err != nil {
							t.Fatalf("%s: %v", r.Match, err)
						}
						wanted, err := llm.Collect(m.Provider.Stream(t.Context(), func() llm.Request { req.Model = "m"; return req }()))
						if err != nil {
							t.Fatalf("%s, asked directly: %v", r.Match, err)
						}
						if got.Message.Text() != r.Text || got.Finish != wanted.Finish || thought(got) != thought(wanted) || called(got) != called(wanted) {
							t.Errorf("%s: %q %s, thought %q, called %s; the provider said %q %s, %q, %s", r.Match,
								got.Message.Text(), got.Finish, thought(got), called(got), wanted.Message.Text(), wanted.Finish, thought(wanted), called(wanted))
						}
						if got.Usage.Input != wanted.Usage.Input || got.Usage.Output != wanted.Usage.Output {
							t.Errorf("%s: usage %+v, the provider said %+v", r.Match, got.Usage, wanted.Usage)
						}
					}
					asked := up.Requests()
					if len(asked) != 2*len(rules) || asked[0].Body != asked[1].Body {
						t.Errorf("%d requests; the provider was asked\n%s\nand directly\n%s", len(asked), asked[0].Body, asked[1].Body)
					}
				})
			})
		}
	}
}

func thought(a llm.Answer) (s string) {
	for _, p := range a.Message.Parts {
		if p.Thinking != nil {
			s += p.Thinking.Text
		}
	}
	return s
}

func called(a llm.Answer) (s string) {
	for _, p := range a.Message.Parts {
		if p.Call != nil {
			var v any
			_ = json.Unmarshal([]byte(p.Call.Arguments), &v)
			s += fmt.Sprintf("%s(%v) ", p.Call.Name, v)
		}
	}
	return s
}

// An answer that begins with reasoning that only its model can read keeps it: Anthropic wants it back with the results of tools.
func TestReasoningThatIsRedactedGoesThroughTheDoor(t *testing.T) {
	l := openLab(t, []route.Member{says("up", llm.Event{Redacted: "sealed"}, llm.Event{Signature: "S"}, llm.Event{Text: "hi"}, llm.Event{Finish: llm.FinishStop})})
	const asks = `{"model":"up","max_tokens":9,"stream":%t,"messages":[{"role":"user","content":"x"}]}`
	for _, stream := range []bool{false, true} {
		if g := l.post("/v1/messages", fmt.Sprintf(asks, stream)); !strings.Contains(g.body, `"content_block":{"type":"redacted_thinking","data":"sealed"}`) && !strings.Contains(g.body, `"content":[{"type":"redacted_thinking","data":"sealed"}`) {
			t.Errorf("stream %t: %s", stream, g.body)
		}
	}
}

// Who answers is decided once: a second name of a model, which readers of JSON take for the first, is not asked behind the table's back.
func TestNoDoorAsksAnotherModelThanWasDecided(t *testing.T) {
	asked := make(chan string, 9)
	l := openLab(t, []route.Member{{Name: "up", Kind: "scripted", Provider: source(func(_ context.Context, req llm.Request) iter.Seq2[llm.Event, error] {
		asked <- req.Model
		return func(yield func(llm.Event, error) bool) { yield(llm.Event{Text: "hi", Finish: llm.FinishStop}, nil) }
	})}})
	for _, path := range []string{chat, "/v1/messages", "/api/chat"} {
		g := l.post(path, `{"model":"up","MODEL":"dear","max_tokens":9,"messages":[{"role":"user","content":"x"}]}`)
		if m := <-asked; g.status() != 200 || m != g.Header.Get("X-Runner-Model") {
			t.Errorf("%s: %d, asked %q, told %q", path, g.status(), m, g.Header.Get("X-Runner-Model"))
		}
	}
}

// A provider may be silent for longer than a client may take to read. Why the stream then ends is told all the same.
func TestWhyAStreamEndsIsToldAfterALongSilence(t *testing.T) {
	for _, path := range []string{chat, "/v1/messages", "/api/chat"} {
		t.Run(path, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				e := &ether{}
				m, _ := e.member(t, "up", "openai", time.Minute, script.Script{Reply: []script.Rule{{Text: faultText}}, Faults: []script.Fault{{Kind: script.StallMidStream}}})
				l := openTown(t, e, []route.Member{m}, func(c *gateway.Config, _ *route.Config) { c.Patience = time.Minute })
				if g := l.do(t.Context(), path, asked("up", "break it", true)); !strings.Contains(g.body, "up: no answer for 1m0s") {
					t.Errorf("%d %s", g.status(), clip(g.body))
				}
			})
		})
	}
}

// Refusals keep their kind and their time, and a stream that breaks is an error in the client's own words.
func TestEveryDoorRefusesInItsOwnWords(t *testing.T) {
	for _, door := range []string{"anthropic", "ollama"} {
		for _, c := range []struct {
			fault script.Fault
			kind  llm.Kind
			wait  time.Duration
		}{
			{script.Fault{Kind: script.RateLimited, Wait: 90 * time.Second}, llm.Quota, 90 * time.Second},
			{script.Fault{Kind: script.Busy}, llm.Overload, 0},
			{script.Fault{Kind: script.Spend}, llm.Spend, 0},
			{script.Fault{Kind: script.CloseMidStream}, llm.Unavailable, 0},
		} {
			t.Run(door+"/"+string(c.fault.Kind), func(t *testing.T) {
				t.Parallel()
				synctest.Test(t, func(t *testing.T) {
					e := &ether{}
					m, _ := e.member(t, "up", "openai", time.Minute, script.Script{Reply: []script.Rule{{Text: faultText}}, Faults: []script.Fault{c.fault}})
					l := openTown(t, e, []route.Member{m}, func(c *gateway.Config, _ *route.Config) { c.Wait = 0 })
					client := speakers[door]("client", l.url, time.Minute, e.dial)
					defer client.(interface{ CloseIdle() }).CloseIdle()
					began := time.Now()
					a, err := llm.Collect(client.Stream(t.Context(), llm.Request{Model: "up", MaxTokens: 9, Messages: []llm.Message{llm.Says(llm.User, "break it")}}))
					var failed *llm.Error
					if !errors.As(err, &failed) || failed.Kind != c.kind || a.Finish != "" {
						t.Fatalf("%v, answer %q %s", err, a.Message.Text(), a.Finish)
					}
					if c.wait > 0 && (failed.Until.Sub(began) < c.wait || failed.Until.Sub(began) > c.wait+2*time.Second) {
						t.Errorf("come back in %s, want %s", failed.Until.Sub(began), c.wait)
					}
				})
			})
		}
	}
}

// A stream that is held back is saved by the fallback whatever the client speaks.
func TestEveryDoorHoldsStreamsBack(t *testing.T) {
	for _, door := range []string{"anthropic", "ollama"} {
		t.Run(door, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				e := &ether{}
				m, _ := e.member(t, "up", "openai", time.Minute, script.Script{Reply: []script.Rule{{Text: faultText}}, Faults: []script.Fault{{Kind: script.CloseMidStream}}})
				o, _ := e.member(t, "other", "openai", time.Minute, script.Script{Reply: []script.Rule{{Text: "saved"}}})
				l := openTown(t, e, []route.Member{m, o}, cover("up", "other"), holdBack("covered"))
				client := speakers[door]("client", l.url, time.Minute, e.dial)
				defer client.(interface{ CloseIdle() }).CloseIdle()
				a, err := llm.Collect(client.Stream(t.Context(), llm.Request{Model: "covered", MaxTokens: 9, Messages: []llm.Message{llm.Says(llm.User, "break it")}}))
				if err != nil || a.Message.Text() != "saved" || a.Finish != llm.FinishStop {
					t.Errorf("%q %s, %v", a.Message.Text(), a.Finish, err)
				}
			})
		})
	}
}

func TestTheDoorsOfOtherDialects(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		e := &ether{}
		m, up := e.member(t, "up", "openai", time.Minute, script.Script{Reply: []script.Rule{{Text: "well"}}})
		l := openTown(t, e, []route.Member{m})
		for _, c := range []struct {
			path, body string
			header     string // Anthropic-Version
			status     int
			has        string
		}{
			{"/v1/messages", `{"model":"up","max_tokens":9,"messages":[{"role":"user","content":"hi"}]}`, "2023-06-01", 200, `"type":"message","role":"assistant","model":"m","content":[{"type":"text","text":"well"}],"stop_reason":"end_turn"`},
			{"/v1/messages", `{"model":"up","max_tokens":9,"messages":[]}`, "", 400, `{"error":{"message":"up: messages: must hold at least one message","type":"invalid_request_error"},"type":"error"}`},
			{"/v1/messages", `{"model":"up","tools":[{"type":"web_search_20250305","name":"web_search"}],"messages":[{"role":"user","content":"hi"}]}`, "", 400, `tools[0].type: \"web_search_20250305\" is Anthropic's own tool`},
			{"/v1/messages", `[]`, "", 400, `"type":"invalid_request_error"`},
			{"/v1/messages/count_tokens", `{"model":"up","messages":[{"role":"user","content":"hi"}]}`, "", 200, `{"input_tokens":1}`},
			{"/v1/messages/count_tokens", `{"model":"up","tools":[{"name":"f","description":"12345678","input_schema":{}}],"messages":[{"role":"user","content":[{"type":"text","text":"see this, please"},{"type":"image","source":{"type":"base64","media_type":"image/png","data":"` + strings.Repeat("AAAA", 10_000) + `"}}]}]}`, "", 200, `{"input_tokens":1007}`},
			{"/api/chat", `{"model":"up","stream":false,"messages":[{"role":"user","content":"hi"}]}`, "", 200, `"message":{"role":"assistant","content":"well"},"done":true,"done_reason":"stop"`},
			{"/api/chat", `{"model":"up","messages":[{"role":"user","content":"hi"}]}`, "", 200, `"done":false}` + "\n"},
			{"/api/chat", `{"model":"up","messages":[]}`, "", 200, `"done":true,"done_reason":"load"`},
			{"/api/chat", `{"model":"up","messages":[{"role":"robot","content":"hi"}]}`, "", 400, `{"error":"messages[0].role: \"robot\" is not one of`},
			{"/api/generate", `{"model":"up","stream":false,"system":"be brief","prompt":"hi"}`, "", 200, `"response":"well","done":true`},
			{"/api/generate", `{"model":"up","prompt":"hi","suffix":"x"}`, "", 400, `{"error":"suffix: only Ollama itself can do this; leave it out"}`},
			{"/api/embed", `{"model":"up","input":["a","b"]}`, "", 200, `"embeddings":[[`},
			{"/api/embeddings", `{"model":"up","prompt":"a"}`, "", 200, `{"embedding":[`},
			{"/api/show", `{"model":"up"}`, "", 200, `"capabilities":["completion","tools"]`},
			{"/api/show", `{"model":"","name":"up"}`, "", 200, `"capabilities":["completion","tools"]`},
			{"/api/show", `{"model":"down"}`, "", 404, `{"error":"model \"down\" not found`},
		} {
			g := l.do(t.Context(), c.path, c.body, "Anthropic-Version", c.header)
			if g.status() != c.status || !strings.Contains(g.body, c.has) {
				t.Errorf("%s %s: %d %s", c.path, c.body, g.status(), g.body)
			}
		}
		for path, has := range map[string]string{"/v1/models": `{"type":"model","id":"up","display_name":"up"`, "/v1/models/up": `{"type":"model","id":"up","display_name":"up"`,
			"/v1/models/none": `{"error":{"message":"the route table has no model \"none\"; GET /v1/models lists those it has","type":"not_found_error"},"type":"error"}`, "/api/tags": `"name":"up","model":"up"`, "/api/version": `{"version":"`, "/api/ps": `{"models":[]}`} {
			req, err := http.NewRequestWithContext(t.Context(), http.MethodGet, l.url+path, nil)
			if err != nil {
				t.Fatal(err)
			}
			req.Header.Set("Anthropic-Version", "2023-06-01")
			res, err := l.client.RoundTrip(req)
			if err != nil {
				t.Fatal(err)
			}
			var b strings.Builder
			_, err = fmt.Fprint(&b, readBody(t, res))
			if err != nil || (res.StatusCode == 200) == strings.HasSuffix(path, "none") || !strings.Contains(b.String(), has) {
				t.Errorf("%s: %d %s", path, res.StatusCode, b.String())
			}
		}
		if n := len(up.Requests()); n != 6 {
			t.Errorf("the provider was asked %d times", n)
		}
	})
}

func readBody(t *testing.T, res *http.Response) string {
	t.Helper()
	defer res.Body.Close()
	var b strings.Builder
	buf := make([]byte, 4<<10)
	for {
		n, err := res.Body.Read(buf)
		b.Write(buf[:n])
		if err != nil {
			return b.String()
		}
	}
}
