package jobs

import (
	"context"
	"iter"
	"time"

	"home.arpa/lab/llm-runner/internal/llm"
)

// A draft is what has come so far of the answer that a job's present step gets. It is in the memory of the process that runs
// the job only: what is worth keeping is the finished step.
type draft struct {
	run   int // of the job
	text  []byte
	n     int           // no other draft has or had this number; a further step is another draft
	grown chan struct{} // closed when there is more, or another draft
}

// A Piece is text of an answer that is arriving.
type Piece struct {
	Text  string `json:"text"`
	Whole bool   `json:"whole,omitempty"` // it is all there is so far, and replaces what came before
}

// wake tells readers that there is more. The caller holds the service's mu.
func (d *draft) wake() {
	close(d.grown)
	d.grown = make(chan struct{})
}

// News is what a reader of a job is told: what happened to it, and the text that came. Both empty: it is still silent.
type News struct {
	Events []Event
	Piece  *Piece // nil: no text came
}

// collect is llm.Collect for readers who want to see the answer arrive.
func (s *Service) collect(j *Job, stream iter.Seq2[llm.Event, error]) (llm.Answer, error) {
	s.mu.Lock()
	s.drafted++
	d := &draft{run: j.Run, n: s.drafted, grown: make(chan struct{})}
	if before := s.drafts[j.ID]; before != nil {
		before.wake() // a call that lost its job may still be at it, and grow its draft
	}
	s.drafts[j.ID] = d
	s.mu.Unlock()
	s.announce() // to readers who found no draft
	var a llm.Accumulator
	for ev, err := range stream {
		if err != nil {
			return a.Answer(), err
		}
		a.Add(ev)
		if ev.Text == "" {
			continue
		}
		s.mu.Lock()
		d.text = append(d.text, ev.Text...)
		d.wake()
		s.mu.Unlock()
	}
	return a.Answer(), nil
}

// forgetDraft takes away what had come of an answer: that run of the job is over.
func (s *Service) forgetDraft(j *Job) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if d := s.drafts[j.ID]; d != nil && d.run == j.Run {
		delete(s.drafts, j.ID)
	}
}

// draftOf is what has come so far of the answer of a job that this process runs; "" where nothing has.
func (s *Service) draftOf(id int64) string {
	s.mu.Lock()
	defer s.mu.Unlock()
	if d := s.drafts[id]; d != nil {
		return string(d.text)
	}
	return ""
}

// A mark is how much of which draft a reader has.
type mark struct{ n, bytes int }

// arrived returns what came of an answer after a mark, the mark behind it, and a channel that is closed when there is more; a
// nil channel where this process does not run the job.
func (s *Service) arrived(id int64, m mark) (*Piece, mark, <-chan struct{}) {
	s.mu.Lock()
	defer s.mu.Unlock()
	d := s.drafts[id]
	if d == nil {
		return nil, m, nil
	}
	whole := d.n != m.n
	if whole && len(d.text) == 0 || !whole && len(d.text) == m.bytes {
		return nil, m, d.grown
	}
	if whole {
		m = mark{n: d.n}
	}
	piece := &Piece{Text: string(d.text[m.bytes:]), Whole: whole}
	m.bytes = len(d.text)
	return piece, m, d.grown
}

// stillHere is how often a reader of a silent job is told that the line is open.
const stillHere = 15 * time.Second

// Events yields what happened to a job after a place in its timeline, then follows it until it has ended. While this process
// runs it, the text of its answer comes as it arrives, for a reader who comes later all so far as one. News without anything
// say every 15 seconds that it is still silent. When ctx ends its cause is yielded.
func (s *Service) Events(ctx context.Context, id, after int64) iter.Seq2[News, error] {
	return func(yield func(News, error) bool) {
		quiet := time.NewTimer(stillHere)
		defer quiet.Stop()
		var at mark
		for {
			changed := s.Changed()
			j, err := one(ctx, s.db.Read(), id)
			if err != nil {
				yield(News{}, err)
				return
			}
			batch, err := timeline(ctx, s.db.Read(), id, after)
			if err != nil {
				yield(News{}, err)
				return
			}
			if len(batch) > 0 {
				after = batch[len(batch)-1].Seq
				if !yield(News{Events: batch}, nil) {
					return
				}
				quiet.Reset(stillHere)
			}
			if j.State.Ended() {
				return
			}
			if !s.listen(ctx, id, changed, quiet, &at, yield) {
				return
			}
		}
	}
}

// listen yields the text that comes until the job changes, or what tells that it is silent; false when reading is over.
func (s *Service) listen(ctx context.Context, id int64, changed <-chan struct{}, quiet *time.Timer, at *mark, yield func(News, error) bool) bool {
	for {
		piece, next, more := s.arrived(id, *at)
		if *at = next; piece != nil {
			if !yield(News{Piece: piece}, nil) {
				return false
			}
			quiet.Reset(stillHere)
		}
		select {
		case <-changed:
			return true
		case <-more:
		case <-quiet.C:
			if !yield(News{}, nil) {
				return false
			}
			quiet.Reset(stillHere)
		case <-ctx.Done():
			yield(News{}, context.Cause(ctx))
			return false
		}
	}
}
