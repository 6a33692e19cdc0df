package s3proxy

import (
	"fmt"
	"slices"
	"time"
)

// A Fault is something that goes wrong on purpose. Empty fields of the first group match every request.
type Fault struct {
	Action Action `json:"action,omitempty"`
	Role   string `json:"role,omitempty"`
	Object string `json:"object,omitempty"` // a pattern with *, as in a Grant
	After  int    `json:"after,omitempty"`  // how many matching requests pass before it begins
	Times  int    `json:"times,omitempty"`  // how many it hits; 0 means until it is removed

	Kind  Kind          `json:"kind"`
	Limit time.Duration `json:"limit,omitempty"` // Hang: how long, in nanoseconds; 0 means HangLimit
	Speed int           `json:"speed,omitempty"` // Drip: bytes a second; 0 means 1
}

// A Kind is a way to go wrong.
type Kind string

const (
	InternalError Kind = "500"     // 500 InternalError
	SlowDown      Kind = "503"     // 503 SlowDown
	Forbidden     Kind = "403"     // 403 AccessDenied
	Expired       Kind = "expired" // 400 ExpiredToken, what S3 says to credentials after their time
	Hang          Kind = "hang"    // no answer until the client gives up or Limit is over; then the connection is cut
	Drip          Kind = "drip"    // the answer comes at Speed bytes a second
	Cut           Kind = "cut"     // the connection ends in the middle of the answer
	Lost          Kind = "lost"    // the server does it, and the answer never arrives
)

// HangLimit bounds a Hang whose Limit is 0.
const HangLimit = 10 * time.Minute

var kinds = []Kind{InternalError, SlowDown, Forbidden, Expired, Hang, Drip, Cut, Lost}

// Validate tells whether the fault is one that the proxy knows.
func (f Fault) Validate() error {
	switch {
	case !slices.Contains(kinds, f.Kind):
		return fmt.Errorf("inject fault %q: unknown; the kinds are %q", f.Kind, kinds)
	case f.After < 0 || f.Times < 0 || f.Limit < 0 || f.Speed < 0:
		return fmt.Errorf("inject fault %q: after, times, limit and speed cannot be negative", f.Kind)
	}
	return nil
}

// injected is a fault and how often it was met.
type injected struct {
	Fault
	met int
}

// fault returns the first fault that hits a request, and counts the request for all that match before it.
func (p *Proxy) fault(a Action, role, object string) *Fault {
	p.mu.Lock()
	defer p.mu.Unlock()
	for _, f := range p.faults {
		if f.Action != "" && f.Action != a || f.Role != "" && f.Role != role || f.Object != "" && !matches(f.Object, object) {
			continue
		}
		f.met++
		if f.met > f.After && (f.Times == 0 || f.met <= f.After+f.Times) {
			hit := f.Fault
			return &hit
		}
	}
	return nil
}

// Inject makes things go wrong from now on, until remove is called or the fault's Times are over.
func (p *Proxy) Inject(f Fault) (remove func(), err error) {
	if err := f.Validate(); err != nil {
		return nil, err
	}
	in := &injected{Fault: f}
	p.mu.Lock()
	defer p.mu.Unlock()
	p.faults = append(p.faults, in)
	return func() {
		p.mu.Lock()
		defer p.mu.Unlock()
		p.faults = slices.DeleteFunc(p.faults, func(other *injected) bool { return other == in })
	}, nil
}

// Met is how many requests the faults have hit, of those that are still there.
func (p *Proxy) Met() (hit int) {
	p.mu.Lock()
	defer p.mu.Unlock()
	for _, f := range p.faults {
		hit += max(0, f.met-f.After)
	}
	return hit
}

// Heal removes every fault.
func (p *Proxy) Heal() {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.faults = nil
}
