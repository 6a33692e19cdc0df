package main

import (
	"strings"
	"testing"
	"time"
)

func TestResearchIsBoundedByTheConfiguration(t *testing.T) {
	c, err := load(t, "")
	if err != nil {
		t.Fatal(err)
	}
	if b := c.Research.budget(); c.Research.Plan != "auto" || b.Calls != 60 || b.Tokens != 200_000 || b.Time != 30*time.Minute || b.MicroUSD != 0 || bounded(c.Research.Rewrites) != 1 {
		t.Errorf("%+v, %+v", c.Research, b)
	}
	if c, err = load(t, "research: {plan: ask, rewrites: 0, usd: 0.25, time: 90s, calls: 0}\n"); err != nil {
		t.Fatal(err)
	}
	if b := c.Research.budget(); c.Research.Plan != "ask" || b.MicroUSD != 250_000 || b.Time != 90*time.Second || b.Calls != 0 || b.Tokens != 200_000 || bounded(c.Research.Rewrites) != -1 {
		t.Errorf("%+v, %+v", c.Research, b)
	}
	_, err = load(t, "research:\n  plan: perhaps\n  folder: ../out\n  rewrites: 99\n  web_rounds: -1\n  calls: -1\n  tokens: -1\n  time: -1s\n  usd: -0.1\n  way: round\n  keep: -1h\n")
	if err == nil {
		t.Fatal("it was taken")
	}
	for _, want := range []string{`line 2: research.plan: "perhaps" is not one of ask, auto`, `line 3: research.folder: "../out" is not a folder below vault.path`, "line 4: research.rewrites: 99 is not between 0 (never) and 10",
		"line 5: research.web_rounds: -1 is not between", "line 6: research.calls: is below zero", "line 7: research.tokens: is below zero", "line 8: research.time: is below zero", "line 9: research.usd: is below zero",
		`line 10: research.way: "round" is not one of auto, straight, thorough`, "line 11: research.keep: -1h0m0s is below zero"} {
		if !strings.Contains(err.Error(), want) {
			t.Errorf("missing: %s\n%v", want, err)
		}
	}
}
