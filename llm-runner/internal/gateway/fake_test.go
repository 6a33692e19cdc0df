package gateway_test

import (
	"net/http/httptest"
	"strings"
	"testing"
	"time"

	"home.arpa/lab/llm-runner/internal/fake"
	"home.arpa/lab/llm-runner/internal/fake/script"
	"home.arpa/lab/llm-runner/internal/llm"
	"home.arpa/lab/llm-runner/internal/provider/anthropic"
	"home.arpa/lab/llm-runner/internal/provider/gemini"
	"home.arpa/lab/llm-runner/internal/provider/ollama"
	"home.arpa/lab/llm-runner/internal/provider/openai"
	"home.arpa/lab/llm-runner/internal/provider/openai/wire"
	"home.arpa/lab/llm-runner/internal/route"
	"home.arpa/lab/llm-runner/internal/usage"
)

// Every fault of every provider, through the gateway. Whatever happens, the client sees either the whole answer with a
// proper end, or a failure that cannot be taken for one, and the ledger agrees.
func TestEveryFaultOfEveryProvider(t *testing.T) {
	const text = "one two three four five six 😀."
	providers := map[string]func(url string, silence time.Duration) llm.Provider{
		"openai": func(url string, silence time.Duration) llm.Provider {
			return openai.New(openai.Config{URL: url + "/v1", Timeout: silence, Flavor: openai.OpenAI})
		},
		"groq": func(url string, silence time.Duration) llm.Provider {
			return openai.New(openai.Config{URL: url + "/v1", Timeout: silence, Flavor: openai.Groq})
		},
		"ollama": func(url string, silence time.Duration) llm.Provider {
			return ollama.New(ollama.Config{URL: url, Timeout: silence})
		},
		"gemini": func(url string, silence time.Duration) llm.Provider {
			return gemini.New(gemini.Config{URL: url, Timeout: silence})
		},
		"anthropic": func(url string, silence time.Duration) llm.Provider {
			return anthropic.New(anthropic.Config{URL: url, Timeout: silence})
		},
	}
	statuses := map[script.FaultKind]int{script.RateLimited: 429, script.RateNoHint: 429, script.RateWrongHint: 429, script.Spend: 402,
		script.BadRequest: 400, script.BadKey: 502, script.NoModel: 404, script.Busy: 503, script.Overloaded: 503, script.ResetBeforeHeaders: 503}
	for _, kind := range fake.Kinds() {
		for _, fault := range []script.FaultKind{"", script.RateLimited, script.RateNoHint, script.RateWrongHint, script.Spend, script.BadRequest,
			script.BadKey, script.Forbidden, script.NoModel, script.TooLarge, script.CapacityExceeded, script.Internal, script.BadGateway,
			script.Busy, script.GatewayTimeout, script.Overloaded, script.ResetBeforeHeaders, script.StallBeforeHeaders, script.ResetMidStream,
			script.StallMidStream, script.MalformedChunk, script.ErrorMidStream, script.Truncate, script.ResetAfterFinish, script.HTML200,
			script.Error200, script.NoDone, script.JSON200, script.SlowDrip, script.Gzip, script.SplitEveryByte, script.CRLF, script.HugeEvent,
			script.Comments, script.BytesAfterDone} {
			for _, body := range []string{streamed, whole} {
				shape := map[string]string{streamed: "stream", whole: "whole"}[body]
				t.Run(kind+"/"+string(fault)+"/"+shape, func(t *testing.T) {
					t.Parallel()
					s := script.Script{Reply: []script.Rule{{Text: text}}}
					if fault != "" {
						s.Faults = []script.Fault{{Kind: fault}}
					}
					f, err := fake.New(kind, s)
					if err != nil {
						t.Fatal(err)
					}
					up := httptest.NewServer(f)
					defer up.Close()
					silence := patience
					if strings.HasPrefix(string(fault), "stall") {
						silence = 200 * time.Millisecond
					}
					l := openLab(t, []route.Member{{Name: "up", Kind: kind, Cloud: true, Provider: providers[kind](up.URL, silence)}})
					defer l.stop() // before the upstream, which waits for stalled requests
					g := l.post(chat, body)
					said := ""
					switch {
					case g.err != nil || g.StatusCode != 200:
					case shape == "stream":
						said = decode(t, g.body).Message.Text()
					default:
						a, err := wire.ParseResponse([]byte(g.body))
						if err != nil {
							t.Fatal(err)
						}
						said = a.Message.Text()
					}
					row := l.rows()[0]
					switch {
					case said == text:
						if row.Outcome != usage.OK || row.Usage.Output == (llm.Count{}) && fault != script.ResetAfterFinish {
							t.Errorf("the whole answer came, but the ledger has %+v", row)
						}
						if statuses[fault] != 0 {
							t.Errorf("nothing went wrong")
						}
					case said != "" || row.Outcome == usage.OK:
						t.Errorf("half an answer looks whole: %q, ledger %s", clip(g.body), row.Outcome)
					case fault == "" || fault == script.NoDone || fault == script.Gzip || fault == script.CRLF || fault == script.Comments ||
						fault == script.SplitEveryByte || fault == script.HugeEvent || fault == script.SlowDrip || fault == script.BytesAfterDone || fault == script.ResetAfterFinish:
						t.Errorf("the answer did not come: status %d, error %v, body %s", g.status(), g.err, clip(g.body))
					case g.err == nil && !strings.HasPrefix(g.body, `{`):
						t.Errorf("no error that clients can read: %s", clip(g.body))
					case statuses[fault] != 0 && g.status() != statuses[fault] && !(kind == "ollama" && fault == script.Spend):
						t.Errorf("status %d, want %d: %s", g.status(), statuses[fault], g.body)
					}
				})
			}
		}
	}
}
