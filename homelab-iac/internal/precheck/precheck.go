// Package precheck looks at the twelve things that must be true before a machine is wiped. Each is looked at now, and says what was seen,
// how old that is, and what to do where it is not true.
package precheck

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"time"

	"home.arpa/lab/homelab-iac/internal/catalog"
	"home.arpa/lab/homelab-iac/internal/restic"
	"home.arpa/lab/homelab-iac/internal/site"
	"home.arpa/lab/homelab-iac/internal/watch"
)

// A SignOff is one of the twelve.
type SignOff struct {
	Number   int       `json:"number"`
	Name     string    `json:"name"`
	Signed   bool      `json:"signed"`
	Evidence string    `json:"evidence"` // what was seen, or what is wrong
	At       time.Time `json:"at"`       // when what was seen was so
	Age      string    `json:"age"`      // since then: 5m, 3h, 4d
	Cure     string    `json:"cure,omitempty"`
	Seconds  float64   `json:"seconds"` // that the look took
}

// A Report is what was found on one machine.
type Report struct {
	Host      string    `json:"host"`
	Began     time.Time `json:"began"`
	Ended     time.Time `json:"ended"`
	SignOffs  []SignOff `json:"sign_offs"`
	Snapshots []string  `json:"snapshots"` // the newest good ones of its services: what it would be restored from
	Token     string    `json:"token,omitempty"`
}

// Missing are the sign-offs that are not given.
func (r Report) Missing() []SignOff {
	return slices.DeleteFunc(slices.Clone(r.SignOffs), func(s SignOff) bool { return s.Signed })
}

// A Site is the machine, and how everything around it is reached.
type Site struct {
	Host    string
	Catalog []catalog.Service
	Dumps   string        // where dumps lay when they were backed up
	Proof   Proof         // the last drill
	States  []watch.State // what homelab watch says now
	Checks  map[string]time.Time
	Kit     string // the folder of the break-glass kit; "": it is not here
	Files   int
	Ways    []site.Way

	Repo    func(tier string) (restic.Repo, error) // with the key that may only read
	KitRepo func(tier string) (restic.Repo, error) // with the kit's key and password
	Secrets func(context.Context) (map[string]string, error)
	State   func(context.Context) ([]byte, error) // Terraform's, as GitLab has it
	Push    func(context.Context) error           // to Uptime Kuma
	Tell    func(context.Context, string) error   // Discord: returns once the message is kept

	Now func() time.Time
	Say func(string)
}

// A Proof is the report of a drill, as far as it matters here.
type Proof struct {
	Ended    time.Time `json:"ended"`
	Verdict  string    `json:"verdict"`
	Reason   string    `json:"reason"`
	Host     string    `json:"host"`
	Services []struct {
		Service string `json:"service"`
		Error   string `json:"error"`
	} `json:"services"`
}

// limit bounds each look.
const limit = 15 * time.Minute

// an unsigned look: what is wrong, and the cure.
type unsigned struct{ text, cure string }

func (u unsigned) Error() string { return u.text }

func fault(cure, format string, args ...any) error {
	return unsigned{fmt.Sprintf(format, args...), cure}
}

// seen is what a look found: the evidence, and from when it is.
type seen struct {
	text string
	at   time.Time
}

// since takes another part into account: evidence is as old as its oldest part.
func (s *seen) since(at time.Time) {
	if s.at.IsZero() || at.Before(s.at) {
		s.at = at
	}
}

// looks are the twelve, in order.
var looks = []struct {
	name string
	look func(context.Context, *look) (seen, error)
}{
	{"the fast backup is fresh", func(_ context.Context, l *look) (seen, error) { return l.fresh("fast") }},
	{"the slow backup is fresh", func(_ context.Context, l *look) (seen, error) { return l.fresh("slow") }},
	{"both repositories are checked", func(_ context.Context, l *look) (seen, error) { return l.checked() }},
	{"the last drill is green and young", func(_ context.Context, l *look) (seen, error) { return l.proved() }},
	{"the vault's snapshot opens with the kit's key", vaultOpens},
	{"the dumps of databases match their manifests", dumpsMatch},
	{"Gitea's refs are in the backup", refsEqual},
	{"files picked at random come back equal", filesEqual},
	{"Infisical's export and keys are in the kit", secretsKept},
	{"Terraform's state is kept and readable", stateKept},
	{"a second way in works", waysIn},
	{"the monitors are green, and an alert reaches a person", alertReaches},
}

// Count is how many sign-offs there are.
var Count = len(looks)

// A look is one going-through.
type look struct {
	Site
	snapshots map[string][]restic.Snapshot // by tier
	errs      map[string]error
}

// Look looks at all twelve, whatever the first ones say.
func Look(ctx context.Context, s Site) Report {
	l := &look{Site: s, snapshots: map[string][]restic.Snapshot{}, errs: map[string]error{}}
	r := Report{Host: s.Host, Began: s.Now().UTC(), Snapshots: []string{}}
	l.read(ctx)
	for i, k := range looks {
		s.Say(fmt.Sprintf("%2d/%d %s", i+1, Count, k.name))
		r.SignOffs = append(r.SignOffs, l.one(ctx, i+1, k.name, k.look))
	}
	for _, t := range catalog.Tiers {
		for _, svc := range catalog.On(s.Catalog, s.Host, t.Name) {
			if found, ok := l.newest(t.Name, svc); ok {
				r.Snapshots = append(r.Snapshots, found.ID)
			}
		}
	}
	r.Ended = s.Now().UTC()
	return r
}

func (l *look) one(ctx context.Context, number int, name string, f func(context.Context, *look) (seen, error)) SignOff {
	began := time.Now()
	ctx, cancel := context.WithTimeout(ctx, limit)
	defer cancel()
	s := SignOff{Number: number, Name: name}
	found, err := f(ctx, l)
	if ctx.Err() != nil && err != nil {
		err = fault("run homelab precheck again when nobody is in a hurry", "it took longer than %s, or was interrupted", limit)
	}
	s.Seconds = time.Since(began).Seconds()
	s.At = found.at
	if s.At.IsZero() {
		s.At = l.Now()
	}
	s.At = s.At.UTC().Truncate(time.Second)
	s.Age = watch.Age(max(0, l.Now().Sub(s.At)))
	s.Signed, s.Evidence = err == nil, found.text
	if err != nil {
		s.Evidence, s.Cure = err.Error(), "look at the message; then run homelab precheck again"
		var u unsigned
		if errors.As(err, &u) {
			s.Cure = u.cure
		}
	}
	return s
}

// read lists the snapshots of both repositories once.
func (l *look) read(ctx context.Context) {
	for _, t := range catalog.Tiers {
		repo, err := l.Repo(t.Name)
		if err == nil {
			list, cancel := context.WithTimeout(ctx, 2*time.Minute)
			l.snapshots[t.Name], err = repo.Snapshots(list, "tier:"+t.Name)
			cancel()
		}
		l.errs[t.Name] = err
	}
}

// newest is the newest good snapshot of a service.
func (l *look) newest(tier string, s catalog.Service) (restic.Snapshot, bool) {
	good := slices.DeleteFunc(restic.Good(l.snapshots[tier]), func(c restic.Snapshot) bool {
		return c.Host != s.Host || !c.Has("svc:"+s.Name) || c.Time.After(l.Now().Add(10*time.Minute))
	})
	return restic.AsOf(good, time.Time{})
}

// from finds the repository and snapshot to look into: the fast one's, where the service is in it.
func (l *look) from(s catalog.Service, repo func(string) (restic.Repo, error)) (restic.Repo, restic.Snapshot, error) {
	for _, t := range catalog.Tiers {
		if !s.In(t.Name) {
			continue
		}
		if err := l.errs[t.Name]; err != nil {
			return restic.Repo{}, restic.Snapshot{}, fault("homelab watch tells why", "the %s repository cannot be read: %v", t.Name, err)
		}
		snapshot, ok := l.newest(t.Name, s)
		if !ok {
			return restic.Repo{}, restic.Snapshot{}, fault("run homelab backup run "+t.Name+" on "+s.Host, "the %s repository has no good snapshot of %s", t.Name, s.Name)
		}
		r, err := repo(t.Name)
		return r, snapshot, err
	}
	return restic.Repo{}, restic.Snapshot{}, fault("name a tier in its service.yaml", "%s is in no tier", s.Name)
}

// here are the services of the machine that have something to lose.
func (l *look) here() []catalog.Service {
	return slices.DeleteFunc(slices.Clone(l.Catalog), func(s catalog.Service) bool { return s.Host != l.Host || s.Nothing != "" })
}
