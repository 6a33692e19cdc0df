package route

import (
	"context"
	"sync"
	"time"
)

// A scout goes ahead to a model of whose limits nothing is known: of many requests that come at once one is sent, and the
// others wait until its answer tells something. Where answers do not tell the limit, each lets one more go side by side, so that
// the refusal that teaches it hits few. What is learned is kept on disk: this happens once to a model, not at each start.
type scout struct {
	mu    sync.Mutex
	ahead int           // requests that are under way and of which nothing has been heard
	most  int           // how many may be; 0 means 1
	open  bool          // as many as like
	news  chan struct{} // closed and made anew at each change; nil: nobody waits
}

const (
	// scoutsAtMost is how many go ahead in the end: a provider that has answered so many side by side has no small limits.
	scoutsAtMost = 64
	// scoutWait is how long a request waits for news at most: headers of streams are there sooner, and an answer in one piece
	// may take minutes.
	scoutWait = 2 * time.Second
)

// enter returns when a request may be sent, which is at once where known says that there is no need to wait. The request is then
// reported back by heard, unless ctx has ended.
func (s *scout) enter(ctx context.Context, known func() bool) error {
	var patience <-chan time.Time
	for {
		s.mu.Lock()
		if s.open || s.ahead < max(s.most, 1) || known() {
			s.ahead++
			s.mu.Unlock()
			return nil
		}
		if s.news == nil {
			s.news = make(chan struct{})
		}
		news := s.news
		s.mu.Unlock()
		if patience == nil {
			t := time.NewTimer(scoutWait)
			defer t.Stop()
			patience = t.C
		}
		select {
		case <-news:
		case <-patience:
			s.mu.Lock()
			s.ahead++
			s.mu.Unlock()
			return nil
		case <-ctx.Done():
			return ctx.Err()
		}
	}
}

// A report is what became of a request.
type report uint8

const (
	nothing  report = iota // it was not sent, or its caller left
	answered               // an answer has begun
	failed                 // it says nothing of limits, and waiting for the next to fail would help nobody
)

// heard takes the report of a request that had entered.
func (s *scout) heard(r report) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.ahead--
	switch r {
	case answered:
		s.most = max(s.most, 1) + 1
		s.open = s.open || s.most > scoutsAtMost
	case failed:
		s.open = true
	}
	if s.news != nil {
		close(s.news)
		s.news = nil
	}
}
