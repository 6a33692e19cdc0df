package precheck

import (
	"fmt"
	"slices"
	"strings"
	"time"

	"home.arpa/lab/homelab-iac/internal/catalog"
	"home.arpa/lab/homelab-iac/internal/watch"
)

// state finds what homelab watch says of a monitor.
func (l *look) state(monitor string) (watch.State, bool) {
	i := slices.IndexFunc(l.States, func(s watch.State) bool { return s.Monitor == monitor })
	if i < 0 {
		return watch.State{}, false
	}
	return l.States[i], true
}

func (l *look) fresh(tier string) (seen, error) {
	services := catalog.On(l.Catalog, l.Host, tier)
	if len(services) == 0 {
		return seen{text: "nothing of " + l.Host + " is backed up in this tier: the catalog says why"}, nil
	}
	var found seen
	for _, s := range services {
		st, ok := l.state(catalog.FreshMonitor(tier, s.Name))
		if !ok {
			return seen{}, fault("add repositories."+tier+" to this machine's configuration: role restic writes it", "this machine has no %s repository, and %s is backed up there", tier, s.Name)
		}
		if st.Trouble != "" {
			return seen{}, fault("homelab backup run "+tier, "%s: %s", s.Name, st.Trouble)
		}
		newest, ok := l.newest(tier, s)
		if !ok {
			return seen{}, fault("homelab backup run "+tier, "%s has no good snapshot", s.Name)
		}
		found.since(newest.Time)
	}
	found.text = fmt.Sprintf("%d services have a whole snapshot that is young enough", len(services))
	return found, nil
}

func (l *look) checked() (seen, error) {
	var found seen
	var tiers []string
	for _, t := range catalog.Tiers {
		if len(catalog.On(l.Catalog, l.Host, t.Name)) == 0 {
			continue
		}
		st, ok := l.state(catalog.CheckMonitor(t.Name, l.Host))
		if !ok || st.Trouble != "" {
			return seen{}, fault("homelab backup check "+t.Name, "%s: %s", t.Name, strings.TrimSpace(st.Trouble+" "))
		}
		found.since(l.Checks[t.Name])
		tiers = append(tiers, t.Name)
	}
	if len(tiers) == 0 {
		return seen{text: "this machine writes to no repository"}, nil
	}
	found.text = "structure and a part of the data read again, without an error: " + strings.Join(tiers, " and ")
	return found, nil
}

// proofLife is how long a drill counts: they are weekly.
const proofLife = 8 * 24 * time.Hour

// proved wants a green drill that had every service of this machine in it: one that proved another machine's says nothing here.
func (l *look) proved() (seen, error) {
	const cure = "homelab drill --host root@dev-learning --tags all, on this machine"
	p := l.Proof
	switch {
	case p.Ended.IsZero():
		return seen{}, fault(cure, "no restore was ever proved from this machine")
	case p.Verdict != "green":
		return seen{at: p.Ended}, fault(cure, "the last drill is %s: %s", p.Verdict, p.Reason)
	case l.Now().Sub(p.Ended) > proofLife || p.Ended.After(l.Now().Add(10*time.Minute)):
		return seen{at: p.Ended}, fault(cure, "the last drill ended at %s, and %s is the limit", p.Ended.UTC().Format(time.RFC3339), watch.Age(proofLife))
	}
	for _, s := range l.here() {
		proved := slices.ContainsFunc(p.Services, func(d struct {
			Service string `json:"service"`
			Error   string `json:"error"`
		}) bool {
			return d.Service == s.Name && d.Error == ""
		})
		if !proved {
			return seen{at: p.Ended}, fault(cure, "the last drill is green, and %s was not in it", s.Name)
		}
	}
	return seen{fmt.Sprintf("green, with %d services", len(p.Services)), p.Ended}, nil
}
