package main

import (
	"path/filepath"
	"strings"
	"time"

	"home.arpa/lab/llm-runner/internal/graph"
	"home.arpa/lab/llm-runner/internal/llm"
)

// ResearchConfig is about how questions to the notes are answered: the model vault, the model research, and jobs of that type.
type ResearchConfig struct {
	Way  string        `yaml:"way"`  // how the model vault goes: graph.Auto, Straight or Thorough; research always goes the thorough way
	Keep time.Duration `yaml:"keep"` // how long the steps of straight answers are kept; 0 for ever. Those of the thorough way: as jobs
	// Plan is ask where people who ask in a conversation see the plan first, unless that conversation says otherwise. Jobs say so themselves.
	Plan   string `yaml:"plan"`
	Folder string `yaml:"folder"` // where reports go that are saved from a page, below vault.path
	// What one run may use; 0 of a budget is no bound, of the others never.
	Rewrites  int           `yaml:"rewrites"`   // how often it is searched in other words
	WebRounds int           `yaml:"web_rounds"` // how often it is looked on the web
	Calls     int           `yaml:"calls"`      // questions to models
	Tokens    int64         `yaml:"tokens"`     // in and out
	Time      time.Duration `yaml:"time"`       // of work; waiting does not count
	USD       float64       `yaml:"usd"`        // as prices say
}

// usualResearch is what is used where nothing is said.
var usualResearch = ResearchConfig{Way: graph.Auto, Keep: 7 * 24 * time.Hour, Plan: llm.PlanAuto, Folder: "research", Rewrites: 1, WebRounds: 2,
	Calls: graph.DefaultBudget.Calls, Tokens: graph.DefaultBudget.Tokens, Time: graph.DefaultBudget.Time}

func (c ResearchConfig) budget() graph.Budget {
	return graph.Budget{Steps: graph.DefaultBudget.Steps + 2*(c.Rewrites+c.WebRounds), Calls: c.Calls, Tokens: c.Tokens, Time: c.Time, MicroUSD: int64(c.USD * 1e6)}
}

// bounded is how often something is done, as graph.Inquiries has it: below zero is never.
func bounded(n int) int {
	if n == 0 {
		return -1
	}
	return n
}

const mostRounds = 10

// research checks what belongs to research.
func (v *validator) research() {
	c := &v.c.Research
	if c.Plan != llm.PlanAsk && c.Plan != llm.PlanAuto {
		v.fault("research.plan", "%q is not one of ask, auto: ask shows people the plan before anything is searched", c.Plan)
	}
	if c.Way != graph.Auto && c.Way != graph.Straight && c.Way != graph.Thorough {
		v.fault("research.way", "%q is not one of auto, straight, thorough: auto asks one question to a model, and goes the thorough way for what has several parts", c.Way)
	}
	if c.Keep < 0 {
		v.fault("research.keep", "%s is below zero: write for example 168h, or 0 to keep for ever", c.Keep)
	}
	if f := c.Folder; f == "" || filepath.IsAbs(f) || filepath.Clean(f) != f || strings.HasPrefix(f, ".") {
		v.fault("research.folder", "%q is not a folder below vault.path: write for example research", f)
	}
	for key, n := range map[string]int{"research.rewrites": c.Rewrites, "research.web_rounds": c.WebRounds} {
		if n < 0 || n > mostRounds {
			v.fault(key, "%d is not between 0 (never) and %d", n, mostRounds)
		}
	}
	for key, below := range map[string]bool{"research.calls": c.Calls < 0, "research.tokens": c.Tokens < 0, "research.time": c.Time < 0, "research.usd": c.USD < 0} {
		if below {
			v.fault(key, "is below zero: write 0 for no bound")
		}
	}
}
