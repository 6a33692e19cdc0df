package route

import (
	"time"

	"home.arpa/lab/llm-runner/internal/quota"
)

// lookAgain is how soon it is looked for a place again that nobody told of: its process may have died.
const lookAgain = 500 * time.Millisecond

// hear has shared places be looked at: another process may have given one back.
func (l *line) hear() {
	l.mu.Lock()
	defer l.mu.Unlock()
	if l.minding {
		l.look()
	}
}

// look has mind see to what has changed. Where no places are shared there is nothing to see to.
func (l *line) look() {
	switch {
	case l.share == nil:
	case !l.minding:
		l.minding = true
		go l.mind()
	default:
		select {
		case l.news <- struct{}{}:
		default:
		}
	}
}

// mind tells the other processes what this one uses and wants, and seats those for whom there is a place, until nobody here has one
// or wants one.
func (l *line) mind() {
	for {
		l.mu.Lock()
		using, waiting := l.using, len(l.waiting)
		l.mu.Unlock()
		granted := l.share(using, waiting)
		l.mu.Lock()
		told, wants := using+granted, waiting-granted
		for ; granted > 0 && len(l.waiting) > 0; granted-- { // who waited may have gone
			l.using++
			l.seat()
		}
		same := l.using == told && len(l.waiting) == wants
		if same && told+wants == 0 {
			l.minding = false
			l.mu.Unlock()
			return
		}
		l.mu.Unlock()
		if !same {
			continue
		}
		after := quota.PlacesRenewed
		if wants > 0 {
			after = lookAgain
		}
		again := time.NewTimer(after)
		select {
		case <-again.C:
		case <-l.news:
		}
		again.Stop()
	}
}
