package jobs

import (
	"context"
	"slices"
	"time"

	"home.arpa/lab/llm-runner/internal/llm"
)

// A Pace is how fast requests are answered that go the same way.
type Pace struct {
	Provider string        // who would answer; they share its places
	Model    string        //
	Places   int           // how many it answers at once; 0: any number
	Each     time.Duration // what one takes; 0: nobody knows, or nobody would answer now
}

// mostPlaces is how many jobs of one lane are under way at once, see engine.Config.Workers.
const mostPlaces = 8

// inLine is what counts of a job that is queued or running for those behind it.
type inLine struct {
	id      int64
	state   State
	since   time.Time
	steps   int // that are not finished
	bytes   int
	request routed
}

// routed is what decides who answers a job.
type routed struct {
	kind            Type
	asked, requires string
	project         bool
}

// Estimate fills in Position (of queued jobs, among those that wait for the same provider) and ETA. ETA is when the answer is
// there if models take as long as they did of late: the jobs in line take the provider's places in order, none before its turn
// at the limits, and one that is held for a limit goes on when it says. It stays nil where nobody knows: the model has hardly
// been used, or its machine is down.
func (s *Service) Estimate(ctx context.Context, all []Job) error {
	waits := func(j Job) bool { return j.State.Waiting() }
	if !slices.ContainsFunc(all, waits) {
		return nil
	}
	rows, err := line(ctx, s.db.Read())
	if err != nil {
		return err
	}
	now := time.Now()
	e := estimate{now: now, pace: s.pace, turn: s.config.Turn, paces: map[routed]Pace{}, lanes: map[string]*lane{}, wanted: map[int64]*Job{}}
	for i := range all {
		switch j := &all[i]; j.State {
		case Queued:
			e.wanted[j.ID] = j
		case Held:
			e.held(j)
		}
	}
	for _, running := range []bool{true, false} { // those that run have their places already
		for _, x := range rows {
			if running == (x.state == Running) {
				e.take(x)
			}
		}
	}
	return nil
}

// estimate is a walk along the line.
type estimate struct {
	now    time.Time
	pace   func(llm.Request) Pace
	turn   func(provider, model string, bytes, ahead int) time.Time
	paces  map[routed]Pace
	lanes  map[string]*lane
	wanted map[int64]*Job
}

// lane is the line for one provider.
type lane struct {
	free    []time.Time // when each place is free
	queued  int         // so far
	unknown bool        // how long one of them takes
}

func (r routed) request() llm.Request {
	req := llm.Request{Model: r.asked, Requires: r.requires, Project: r.project}
	if r.kind == Research {
		req.Model = researcher
	}
	return req
}

// pace is what the service was told of a request's pace.
func (s *Service) pace(req llm.Request) Pace {
	switch {
	case s.config.Pace != nil:
		return s.config.Pace(req)
	case s.config.Lane != nil:
		return Pace{Provider: s.config.Lane(req)}
	}
	return Pace{}
}

func (e *estimate) paceOf(r routed) Pace {
	p, known := e.paces[r]
	if !known {
		p = e.pace(r.request())
		e.paces[r] = p
	}
	return p
}

// take gives a job of the line the first place that is free.
func (e *estimate) take(x inLine) {
	p := e.paceOf(x.request)
	l := e.lanes[p.Provider]
	if l == nil {
		places := mostPlaces
		if p.Places > 0 {
			places = min(places, p.Places)
		}
		l = &lane{free: slices.Repeat([]time.Time{e.now}, places)}
		e.lanes[p.Provider] = l
	}
	first := 0
	for i, at := range l.free {
		if at.Before(l.free[first]) {
			first = i
		}
	}
	begin, takes := l.free[first], p.Each*time.Duration(x.steps)
	if x.state == Running {
		takes = max(takes-e.now.Sub(x.since), 0)
		l.free[first] = begin.Add(takes)
		l.unknown = l.unknown || p.Each == 0
		return
	}
	j := e.wanted[x.id]
	if j != nil && e.turn != nil && p.Each > 0 {
		if turn := e.turn(p.Provider, p.Model, x.bytes, l.queued); turn.After(begin) {
			begin = turn
		}
	}
	l.queued++
	l.unknown = l.unknown || p.Each == 0
	end := begin.Add(takes)
	l.free[first] = l.free[first].Add(takes)
	if j == nil {
		return
	}
	j.Position = l.queued
	if !l.unknown {
		j.ETA = &end
	}
}

// held estimates a job that goes on at a time that somebody knows.
func (e *estimate) held(j *Job) {
	if j.ResumeAt.IsZero() || j.WaitsFor != "" && j.Dimension == "" {
		return
	}
	p := e.paceOf(routed{j.Type, j.Asked, j.Requires, j.Project})
	each := p.Each
	if each == 0 {
		return
	}
	at := j.ResumeAt
	if at.Before(e.now) {
		at = e.now
	}
	end := at.Add(each * time.Duration(max(j.Steps-j.StepsDone, 1)))
	j.ETA = &end
}
