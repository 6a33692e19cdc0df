package gateway_test

import (
	"fmt"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"home.arpa/lab/llm-runner/internal/fake/script"
	"home.arpa/lab/llm-runner/internal/llm"
	"home.arpa/lab/llm-runner/internal/route"
)

// Two hundred requests come at once for a model of which nothing is known, and the provider lets a few dozen through in a
// minute. Those that must wait wait here: the provider refuses none where its headers tell the limit, else the few that teach
// it; in later minutes at most one. And yet it takes hardly longer than the limit demands.
func TestABurstIsHardlyEverRefused(t *testing.T) {
	for _, x := range []struct {
		kind   string
		taught int // refusals that may teach the limit, where only they do: as many as are under way when it is met
		most   time.Duration
		limits []script.Limit
	}{
		{"openai", 0, 340 * time.Second, []script.Limit{{Dimension: llm.RequestsPerMinute, Max: 30}, {Dimension: llm.TokensPerMinute, Max: 200000}}},
		{"groq", 15, 340 * time.Second, []script.Limit{{Dimension: llm.RequestsPerMinute, Max: 30}, {Dimension: llm.RequestsPerDay, Max: 14400}, {Dimension: llm.TokensPerMinute, Max: 300000}}},
		{"anthropic", 0, 180 * time.Second, []script.Limit{{Dimension: llm.RequestsPerMinute, Max: 50}, {Dimension: llm.InputTokensPerMinute, Max: 30000}, {Dimension: llm.OutputTokensPerMinute, Max: 8000}}},
		{"gemini", 15, 360 * time.Second, []script.Limit{{Dimension: llm.RequestsPerMinute, Max: 30}, {Dimension: llm.RequestsPerDay, Max: 1000}}},
		{"gemini", 15, 540 * time.Second, []script.Limit{{Dimension: llm.RequestsPerMinute, Max: 20}}},
	} {
		if testing.Short() && x.kind != "anthropic" {
			continue // each of them simulates minutes of two hundred clients
		}
		t.Run(fmt.Sprint(x.kind, " ", x.limits[0].Max), func(t *testing.T) {
			t.Parallel()
			synctest.Test(t, func(t *testing.T) {
				e := &ether{}
				up, f := e.member(t, "up", x.kind, time.Minute, script.Script{Reply: []script.Rule{{Text: faultText, Delay: 100 * time.Millisecond, ChunkDelay: 20 * time.Millisecond}}, Limits: x.limits})
				l := openTown(t, e, []route.Member{up})
				began := time.Now()
				var clients sync.WaitGroup
				for range 200 {
					clients.Go(func() {
						g := l.do(t.Context(), chat, `{"model":"up/m","stream":true,"max_tokens":20,"messages":[{"role":"user","content":"hi"}]}`, "Prefer", "wait=3600")
						if s := readSight(t, g, true); s.said != faultText {
							t.Errorf("%d %s", s.status(), clip(s.body))
						}
					})
				}
				clients.Wait()
				if took := time.Since(began); took > x.most*5/4 { // what is left is told in whole requests: a part of one is lost each time
					t.Errorf("it took %s, the limit lets it be done in %s", took, x.most)
				}
				refused := map[int]int{}
				for _, r := range f.Requests() {
					if r.Status == 429 {
						refused[int(r.Time.Sub(began)/time.Minute)]++
					}
				}
				for minute, n := range refused {
					if minute == 0 && n > x.taught || minute > 0 && n > 1 {
						t.Errorf("refused by minute: %v", refused)
					}
				}
				if rows := l.rows(); len(rows) != len(f.Requests()) {
					t.Errorf("%d rows for %d requests", len(rows), len(f.Requests()))
				}
			})
		})
	}
}
