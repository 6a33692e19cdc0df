package web

import (
	"encoding/json"
	"net/http"
	"testing"
	"time"

	"home.arpa/lab/llm-runner/internal/llm"
	"home.arpa/lab/llm-runner/internal/quota"
	"home.arpa/lab/llm-runner/internal/route"
)

func TestALimitSaysWhatIsUsedAndWhenItIsUsedUp(t *testing.T) {
	now := time.Now()
	soon := now.Add(time.Hour)
	for _, c := range []struct {
		name string
		in   quota.Standing
		used string
		bar  int // percent used; -1 there is none
		out  bool
	}{
		{"both known", quota.Standing{Limit: llm.Limit{Max: llm.Known(1000), Remaining: llm.Known(250), Reset: soon}}, "750 of 1,000", 75, false},
		{"refused", quota.Standing{Limit: llm.Limit{Max: llm.Known(30), Remaining: llm.Known(7), Exhausted: true}}, "30 of 30", 100, true},
		{"only what is left", quota.Standing{Limit: llm.Limit{Remaining: llm.Known(7)}}, "7 left", -1, false},
		{"only the limit", quota.Standing{Limit: llm.Limit{Max: llm.Known(7)}}, "of 7", -1, false},
		{"overdrawn", quota.Standing{Limit: llm.Limit{Max: llm.Known(10), Remaining: llm.Known(-3)}}, "10 of 10", 100, true},
		{"unused", quota.Standing{Limit: llm.Limit{Max: llm.Known(10), Remaining: llm.Known(10), Reset: soon}}, "0 of 10", 0, false},
	} {
		x, width := limitOf(c.in), -1
		if x.Bar != nil {
			width = x.Bar.Left
		}
		if x.Used != c.used || width != c.bar || x.Out != c.out || c.used == "0 of 10" && !x.Resets.IsZero() {
			t.Errorf("%s: %+v, %d percent", c.name, x, width)
		}
	}
	if x := concurrency(route.Report{Active: 1, Waiting: 3, Places: 1}); x.Used != "1 of 1, 3 in line" || x.Bar == nil || !x.Out {
		t.Errorf("%+v", x)
	}
	if x := concurrency(route.Report{Active: 2}); x.Used != "2 under way, no limit" || x.Bar != nil || x.Out {
		t.Errorf("%+v", x)
	}
}

func TestHealthShowsLimitsAndConcurrency(t *testing.T) {
	r := newRig(t)
	r.book.Learn("groq", []llm.Limit{{Model: "llama", Dimension: llm.RequestsPerDay, Max: llm.Known(1000), Remaining: llm.Known(10), Reset: time.Now().Add(7 * time.Hour)}}, time.Now())
	_, play := r.ask("anything")
	req := r.request("GET", "/health", nil)
	req.Header.Set("Accept", "application/json")
	res, err := r.server.Client().Do(req)
	if err != nil {
		t.Fatal(err)
	}
	defer res.Body.Close()
	var h healthReport
	if err := json.NewDecoder(res.Body).Decode(&h); err != nil || res.StatusCode != http.StatusOK {
		t.Fatal(res.Status, err)
	}
	if c := h.Providers["contabo"].Concurrency; c.InFlight != 1 || c.Limit != nil {
		t.Errorf("%+v", c)
	}
	_, body := r.get("/health")
	contains(t, body, `id="limits"`, "requests/day<small>llama</small>", "990 of 1,000", "concurrency", "1 under way, no limit")
	play.done()
}
