package restic

import (
	"bytes"
	"context"
	"encoding/json"
	"fmt"
	"time"
)

// A Lock as it lies in a repository. A restic that lives writes its lock anew, under another ID, every five minutes
// (internal/repository/lock.go: defaultRefreshInterval).
type Lock struct {
	ID        string
	Time      time.Time `json:"time"`
	Exclusive bool      `json:"exclusive"`
	Host      string    `json:"hostname"`
	User      string    `json:"username"`
	PID       int       `json:"pid"`
}

func (l Lock) String() string {
	kind := "shared"
	if l.Exclusive {
		kind = "exclusive"
	}
	return fmt.Sprintf("%s lock %.8s of %s@%s, process %d, written %s", kind, l.ID, l.User, l.Host, l.PID, l.Time.UTC().Format(time.RFC3339))
}

// Locks lists the locks.
func (r Repo) Locks(ctx context.Context) ([]Lock, error) {
	out, err := r.Run(ctx, []string{"list", "locks", "--no-lock"}, nil)
	if err != nil {
		return nil, err
	}
	var list []Lock
	for _, id := range bytes.Fields(out) {
		text, err := r.Run(ctx, []string{"cat", "lock", string(id), "--no-lock"}, nil)
		if err != nil {
			continue // it went meanwhile
		}
		l := Lock{ID: string(id)}
		if err := json.Unmarshal(text, &l); err != nil {
			return nil, fmt.Errorf("read lock %.8s: %w", id, err)
		}
		list = append(list, l)
	}
	return list, nil
}

// A LockPolicy says when a lock is held to be left behind by a dead process.
type LockPolicy struct {
	MinAge time.Duration // it is at least this old,
	Watch  time.Duration // and is not renewed for this long
}

// Patience is the policy of every run: an hour is twice what restic calls stale, ten minutes are two renewals. Clocks of two
// machines may differ, so age alone is not believed.
var Patience = LockPolicy{MinAge: time.Hour, Watch: 10 * time.Minute}

// Dead is the locks that are old enough and lie there under the same ID as before. Pure.
func (p LockPolicy) Dead(before, after []Lock, now time.Time) (dead, alive []Lock) {
	was := map[string]bool{}
	for _, l := range before {
		was[l.ID] = true
	}
	for _, l := range after {
		if was[l.ID] && now.Sub(l.Time) >= p.MinAge {
			dead = append(dead, l)
		} else {
			alive = append(alive, l)
		}
	}
	return dead, alive
}

// Past runs f, and where a lock is in the way judges it: only when every lock is dead are those removed that restic itself
// holds to be stale (never all), and f runs once more. say is told what was found.
func (r Repo) Past(ctx context.Context, p LockPolicy, say func(string), f func() error) error {
	err := f()
	if CodeOf(err) != CodeLocked {
		return err
	}
	before, lerr := r.Locks(ctx)
	if lerr != nil {
		return fmt.Errorf("%w; and its locks cannot be read: %w", err, lerr)
	}
	for _, l := range before {
		say("in the way: " + l.String())
		if time.Since(l.Time) < p.MinAge {
			return fmt.Errorf("%w; %s is younger than %s and may be alive: wait, or stop that process", err, l, p.MinAge)
		}
	}
	timer := time.NewTimer(p.Watch)
	defer timer.Stop()
	select {
	case <-timer.C:
	case <-ctx.Done():
		return ctx.Err()
	}
	after, lerr := r.Locks(ctx)
	if lerr != nil {
		return fmt.Errorf("%w; and its locks cannot be read: %w", err, lerr)
	}
	dead, alive := p.Dead(before, after, time.Now())
	if len(alive) > 0 {
		return fmt.Errorf("%w; %s is alive: wait for it", err, alive[0])
	}
	for _, l := range dead {
		say("left behind, removing: " + l.String())
	}
	if _, err := r.Run(ctx, []string{"unlock"}, nil); err != nil {
		return err
	}
	return f()
}
