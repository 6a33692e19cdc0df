// Package versions puts a repository back to what it was before somebody wrote over its objects or deleted them. The storage keeps older
// versions; restic names its files after their own SHA-256, so which version is the right one needs no trust in anybody's clock.
package versions

import (
	"context"
	"crypto/sha256"
	"encoding/hex"
	"errors"
	"fmt"
	"path"
	"regexp"
	"slices"
	"strings"
	"time"

	"home.arpa/lab/homelab-iac/internal/s3"
)

// A Loss is one object that is not what it was.
type Loss struct {
	Key  string    `json:"key"`
	Why  string    `json:"why"` // Overwritten or Deleted
	When time.Time `json:"when"`
	// Candidates are older versions of it, the likeliest first.
	Candidates []s3.Version `json:"-"`
}

// Why something is not what it was.
const (
	Overwritten = "overwritten"
	Deleted     = "deleted"
)

// A State is what the versions of a repository say.
type State struct {
	Objects int       `json:"objects"` // that are there, or were
	Losses  []Loss    `json:"losses"`
	Newer   []string  `json:"newer"` // snapshots that came after the moment: forged ones are among these
	Before  time.Time `json:"before"`
}

// Look compares what is there with what was there before a moment. A zero moment means: what was written over is a loss whenever that was,
// since restic writes no object twice, and what was deleted is none, since prune deletes. Locks are nobody's loss. Pure.
func Look(all []s3.Version, before time.Time) State {
	s := State{Before: before, Losses: []Loss{}, Newer: []string{}}
	for len(all) > 0 {
		n := slices.IndexFunc(all, func(v s3.Version) bool { return v.Key != all[0].Key })
		if n < 0 {
			n = len(all)
		}
		one := all[:n]
		all = all[n:]
		if strings.HasPrefix(one[0].Key, "locks/") {
			continue
		}
		s.Objects++
		if l, lost := look(one, before); lost {
			s.Losses = append(s.Losses, l)
		}
		if first := one[n-1]; strings.HasPrefix(first.Key, "snapshots/") && !before.IsZero() && first.Time.After(before) && !one[0].Deleted {
			s.Newer = append(s.Newer, path.Base(first.Key))
		}
	}
	return s
}

// look judges one object by its versions, the newest first.
func look(one []s3.Version, before time.Time) (Loss, bool) {
	now := one[0]
	var older []s3.Version
	for _, v := range one {
		if before.IsZero() || !v.Time.After(before) {
			older = append(older, v)
		}
	}
	if before.IsZero() {
		older = one[1:]
	}
	if len(older) == 0 {
		return Loss{}, false // it was not there
	}
	if was := older[0]; !before.IsZero() && (was.Deleted || was.ID == now.ID) {
		return Loss{}, false // it was deleted by then, or is as it was
	}
	older = slices.DeleteFunc(slices.Clone(older), func(v s3.Version) bool { return v.Deleted })
	if len(older) == 0 {
		return Loss{}, false
	}
	if before.IsZero() {
		slices.Reverse(older) // the first one written
		if now.Deleted {
			return Loss{}, false
		}
	}
	l := Loss{Key: now.Key, Why: Overwritten, When: now.Time, Candidates: older}
	if now.Deleted {
		l.Why = Deleted
	} else if older[0].ETag == now.ETag && older[0].Size == now.Size {
		return Loss{}, false // the same again
	}
	return l, true
}

var hashForm = regexp.MustCompile(`^[0-9a-f]{64}$`)

// ErrNoneRight means that no version of an object has the content that its name says.
var ErrNoneRight = errors.New("no version of it has the content that its name says")

// Right reads the candidates of a loss until one has the content that its name says. Where the name says nothing (config), the first is
// taken.
func Right(ctx context.Context, f s3.Folder, l Loss) ([]byte, error) {
	name := path.Base(l.Key)
	var unreadable error
	for _, v := range l.Candidates {
		text, err := f.Get(ctx, v)
		if err != nil {
			unreadable = errors.Join(unreadable, err)
			continue
		}
		sum := sha256.Sum256(text)
		if !hashForm.MatchString(name) || hex.EncodeToString(sum[:]) == name {
			return text, nil
		}
	}
	if unreadable == nil {
		unreadable = ErrNoneRight
	}
	return nil, fmt.Errorf("find the right version of %s: %w", l.Key, unreadable)
}

// A Result is how putting back went.
type Result struct {
	State
	Back  int      `json:"back"`
	Bytes int64    `json:"bytes"`
	Lost  []string `json:"lost"` // for each object that could not be put back, why
}

// PutBack writes the right version of every loss on top. What stands there now stays as an older version, so that nothing is destroyed by
// a wrong moment. Indexes and snapshots come after the packs that they speak of.
func PutBack(ctx context.Context, f s3.Folder, s State, say func(string)) Result {
	r := Result{State: s, Lost: []string{}}
	rank := func(key string) int {
		return slices.Index([]string{"config", "keys", "data", "index", "snapshots"}, strings.SplitN(key, "/", 2)[0])
	}
	losses := slices.Clone(s.Losses)
	slices.SortStableFunc(losses, func(a, b Loss) int { return rank(a.Key) - rank(b.Key) })
	for i, l := range losses {
		if ctx.Err() != nil {
			r.Lost = append(r.Lost, fmt.Sprintf("interrupted before %s: run it again, it goes on", l.Key))
			break
		}
		text, err := Right(ctx, f, l)
		if err == nil {
			err = f.Put(ctx, l.Key, text)
		}
		if err != nil {
			r.Lost = append(r.Lost, err.Error())
			continue
		}
		r.Back++
		r.Bytes += int64(len(text))
		if (i+1)%100 == 0 {
			say(fmt.Sprintf("%d of %d objects are back", i+1, len(losses)))
		}
	}
	return r
}
