package main

import (
	"context"
	"log/slog"
	"sync"
	"time"

	"home.arpa/lab/llm-runner/internal/db"
	"home.arpa/lab/llm-runner/internal/jobs"
	"home.arpa/lab/llm-runner/internal/llm"
	"home.arpa/lab/llm-runner/internal/route"
	"home.arpa/lab/llm-runner/internal/usage"
)

// paceFor is how old what the ledger says of the models' pace may be.
const paceFor = 10 * time.Second

// A pacer knows how fast models answer.
type pacer struct {
	db     *db.DB
	router *route.Router
	log    *slog.Logger

	mu      sync.Mutex
	at      time.Time
	typical map[usage.Target]time.Duration
}

// pace is that of a request; without a time where nobody would answer it now.
func (p *pacer) pace(req llm.Request) jobs.Pace {
	d := p.router.Decide(route.Ask{Model: req.Model, Project: req.Project, Requires: req.Requires})
	if len(d.Targets) == 0 {
		return jobs.Pace{}
	}
	t := d.Targets[0]
	pace := jobs.Pace{Provider: t.Provider, Model: t.Model, Places: p.router.Places(t.Provider)}
	if d.Hold == nil || d.Hold.Dimension != "" { // a limit passes, and when is known
		pace.Each = p.ledger()[usage.Target(t)]
	}
	return pace
}

func (p *pacer) ledger() map[usage.Target]time.Duration {
	p.mu.Lock()
	defer p.mu.Unlock()
	if time.Since(p.at) < paceFor {
		return p.typical
	}
	p.at = time.Now()
	ctx, cancel := context.WithTimeout(context.Background(), time.Second)
	defer cancel()
	typical, err := usage.Typical(ctx, p.db)
	if err != nil {
		p.log.Debug("estimate jobs", "error", err) // the old ones serve
		return p.typical
	}
	p.typical = typical
	return typical
}
