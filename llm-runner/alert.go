package main

import (
	"fmt"
	"sync"
	"time"

	"home.arpa/lab/internal/discord"
	"home.arpa/lab/llm-runner/internal/route"
)

// alerts tells the operator once when a machine at home has gone, and once when it is back.
type alerts struct {
	hook *discord.Webhook

	mu   sync.Mutex
	down map[string]*outage
}

type outage struct {
	since time.Time
	timer *time.Timer
	told  bool
}

// grace is how long a machine may be away before anybody is told: a restart is not an incident.
const grace = 30 * time.Second

// changed takes a change of health; it does not block.
func (a *alerts) changed(c route.Change) {
	a.mu.Lock()
	defer a.mu.Unlock()
	if a.down == nil {
		a.down = map[string]*outage{}
	}
	o := a.down[c.Provider]
	switch {
	case !c.Up && o == nil:
		o = &outage{since: time.Now()}
		o.timer = time.AfterFunc(grace, func() { a.tell(c, o) })
		a.down[c.Provider] = o
	case c.Up && o != nil:
		o.timer.Stop()
		delete(a.down, c.Provider)
		if o.told {
			a.hook.Post(fmt.Sprintf("%s is back after %s.", c.Provider, time.Since(o.since).Round(time.Second)))
		}
	}
}

func (a *alerts) tell(c route.Change, o *outage) {
	a.mu.Lock()
	defer a.mu.Unlock()
	if a.down[c.Provider] == o {
		o.told = a.hook.Post(fmt.Sprintf("%s is down since %s: %s. Work that needs it is held.", c.Provider, o.since.Format("15:04:05"), c.Reason))
	}
}
