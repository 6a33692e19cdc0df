package quota

import "time"

// A clock tells steady time: the wall clock at the first reading, and from there what has really passed. A wall clock that
// is set forward or back by an hour, or a zone that changes to summer time, moves nothing. Only where the two drift apart
// by more than asleep has the machine slept (monotonic clocks stand still meanwhile) or has a wrong clock been repaired.
type clock struct {
	base  time.Time
	shift time.Duration
	// since is the time that passed between two readings; nil means time.Time.Sub, which knows monotonic clocks.
	since func(base, now time.Time) time.Duration
}

const asleep = 2 * time.Hour

// at returns the steady time of a reading in unix nanoseconds, and by how much steady time itself was moved for it.
func (c *clock) at(now time.Time) (t, moved int64) {
	if c.base.IsZero() {
		c.base = now
	}
	var passed time.Duration
	if c.since != nil {
		passed = c.since(c.base, now)
	} else {
		passed = now.Sub(c.base)
	}
	t = c.base.UnixNano() + int64(passed+c.shift)
	if off := now.UnixNano() - t; off > int64(asleep) || off < -int64(asleep) {
		c.shift += time.Duration(off)
		return t + off, off
	}
	return t, 0
}
