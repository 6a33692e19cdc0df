package quota

import (
	"context"
	"database/sql"
	"sync"
	"time"
)

// Places are those of a machine that does a few requests at a time, as several processes share them: together they use no more
// than there are. Each process has a row that says how many it uses, as a whole number and not as a difference, so whatever was
// missed is right again with the next writing. Processes take turns: who has waited longest has the next place that is free, and
// then waits behind the others. A row that nobody writes for placesLease counts no more; Adopt removes those of the dead earlier.
//
// While the database does not answer, each process goes by its own requests: answering goes on, and as long as that lasts there
// may be as many at the machine as each process has for itself.
type Places struct {
	book     *Book
	provider string
	most     int

	mu   sync.Mutex
	down time.Time // the database did not answer; it is asked again then
}

// PlacesRenewed is how often Use is to be called while places are in use or waited for, whether anything has changed or not.
const PlacesRenewed = 3 * time.Second

// placesLease is how long a row counts: as long as it takes until a dead process is adopted.
const placesLease = 15 * time.Second

// placesTopic is what processes tell each other about places: the provider of one that is free.
const placesTopic = "places"

// Share returns the places of a provider that has most of them, where several processes share the database; nil where this one is
// alone. heard is called when another process has given a place back, or may have; it must be quick.
func (b *Book) Share(provider string, most int, heard func()) *Places {
	if b == nil || b.common == nil {
		return nil
	}
	b.common.db.Hear(placesTopic, func(text string) {
		if text == "" || text == provider {
			heard()
		}
	})
	return &Places{book: b, provider: provider, most: most}
}

// Use tells the others that using places are in use here and that waiting requests wait for one each. It returns how many of those
// may have one now: they count as in use from then on.
func (p *Places) Use(using, waiting int) (granted int) {
	p.mu.Lock()
	defer p.mu.Unlock()
	alone := min(waiting, max(0, p.most-using))
	if time.Now().Before(p.down) {
		return alone
	}
	d := p.book.common.db
	ctx, cancel := context.WithTimeout(context.Background(), askFor)
	defer cancel()
	err := d.Tx(ctx, func(tx *sql.Tx) error {
		if err := d.LockName(ctx, tx, "places "+p.provider); err != nil {
			return err
		}
		now, err := databaseClock(ctx, tx)
		if err != nil {
			return err
		}
		all, err := readPlaces(ctx, tx, p.provider, now-int64(placesLease))
		if err != nil {
			return err
		}
		mine, free := grant(all, d.Worker(), p.most, using, waiting, now)
		granted = mine.taken - using
		if err := savePlaces(ctx, tx, p.provider, mine, now, now-int64(placesLease)); err != nil || !free {
			return err
		}
		return d.Tell(ctx, tx, placesTopic, p.provider)
	})
	if err != nil {
		p.down = time.Now().Add(askAgain)
		return alone
	}
	return granted
}

// A stand is the row of one process.
type stand struct {
	worker         string
	taken, waiting int
	since          int64 // 0: nobody waits there
}

// grant gives a process what it may have: its new row, and whether others that wait may have a place now that they could not have
// before. all are the rows as they stand, its own among them.
func grant(all []stand, worker string, most, using, waiting int, now int64) (mine stand, free bool) {
	var was stand
	for _, s := range all {
		if s.worker == worker {
			was = s
		}
	}
	since := now
	if was.since > 0 {
		since = was.since
	}
	left, ahead, others := most-using, 0, false
	for _, s := range all {
		if s.worker == worker {
			continue
		}
		left -= s.taken
		if s.waiting > 0 {
			others = true
			if s.since < since || s.since == since && s.worker < worker {
				ahead++
			}
		}
	}
	granted := min(waiting, max(0, left-ahead))
	mine = stand{worker: worker, taken: using + granted, waiting: waiting - granted}
	switch {
	case mine.waiting == 0:
	case granted > 0:
		mine.since = now
	default:
		mine.since = since
	}
	return mine, others && (mine.taken < was.taken || was.since > 0 && mine.since != was.since)
}
