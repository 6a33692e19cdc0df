package backup

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"time"

	"home.arpa/lab/homelab-iac/internal/catalog"
	"home.arpa/lab/homelab-iac/internal/restic"
)

// Maintenance forgets and prunes one repository, with a key that may delete and that no machine needs for backing up. Before
// anything is removed the repository is compared with what the last maintenance left: whoever got hold of a backup key can add
// snapshots, and on a careless server remove some, and maintenance must not finish his work.
type Maintenance struct {
	Tier   catalog.Tier
	Repo   restic.Repo // with the maintenance key
	State  string
	Locks  restic.LockPolicy
	Prune  bool // free space too: that costs, so it is not done every day
	Accept bool // a person has looked at what Judge found and says that it is right
	Say    func(string)
}

// A Refusal says why nothing was removed.
type Refusal struct{ Reasons []string }

func (r *Refusal) Error() string {
	return "refuse maintenance: " + strings.Join(r.Reasons, "; ") + ": nothing was removed; look at restic snapshots, and change the backup keys if it was not you; if it is right, run homelab backup maintenance --accept"
}

// Evidence is what Judge looks at.
type Evidence struct {
	Tier   catalog.Tier
	Now    time.Time
	All    []restic.Snapshot
	Groups []restic.Group // what forget would do
	Left   Left
}

// Left is what a maintenance left behind. The zero value: there was none.
type Left struct {
	At        time.Time            `json:"at"`
	Snapshots map[string]time.Time `json:"snapshots"` // by ID
}

// skew is how far clocks may differ.
const skew = 10 * time.Minute

// Judge says what looks forged, removed by somebody else, or wrong. Nothing means that maintenance may go on. Pure.
func Judge(e Evidence) []string {
	var out []string
	say := func(format string, args ...any) { out = append(out, fmt.Sprintf(format, args...)) }
	there := map[string]bool{}
	took := map[string]bool{} // the place of these was taken when a tag was changed
	var future, backdated []restic.Snapshot
	for _, s := range e.All {
		there[s.ID] = true
		took[s.Original] = true
		_, known := e.Left.Snapshots[s.ID]
		if !known && s.Time.After(e.Now.Add(skew)) { // a known one was accepted by a person
			future = append(future, s)
		}
		if !e.Left.At.IsZero() && !known && s.Time.Before(e.Left.At.Add(-skew)) && !s.Has(restic.Partial) {
			backdated = append(backdated, s)
		}
	}
	if len(future) > 0 {
		say("%s, which is to come: a clock is wrong or it is forged", several(future))
	}
	if len(backdated) > 0 {
		say("%s, and was not there at the last maintenance on %s: it is forged or a clock was wrong", several(backdated), e.Left.At.UTC().Format(time.RFC3339))
	}
	gone := 0
	for id := range e.Left.Snapshots {
		if !there[id] && !took[id] {
			gone++
		}
	}
	if gone > 0 {
		say("%d snapshots that the last maintenance left are gone, and it was not maintenance that removed them", gone)
	}
	for _, g := range e.Groups {
		out = append(out, e.judgeGroup(g)...)
	}
	if len(out) > 8 {
		out = append(out[:8], fmt.Sprintf("and %d more", len(out)-8))
	}
	return out
}

// several names one snapshot: a hundred are one finding.
func several(list []restic.Snapshot) string {
	first := fmt.Sprintf("snapshot %s says that it is of %s", list[0].Short(), list[0].Time.UTC().Format(time.RFC3339))
	if len(list) == 1 {
		return first
	}
	return fmt.Sprintf("%d snapshots, of which %s", len(list), first)
}

func (e Evidence) judgeGroup(g restic.Group) (out []string) {
	name := g.Host + " " + strings.Join(g.Tags, ",")
	if len(g.Keep) == 0 && len(g.Remove) > 0 {
		out = append(out, fmt.Sprintf("of %s nothing would be left", name))
	}
	since := e.Tier.Every
	if !e.Left.At.IsZero() {
		since = e.Now.Sub(e.Left.At)
	}
	due := int(since/e.Tier.Every) + 1 // runs that can have been
	if !e.Left.At.IsZero() {
		fresh := 0
		for _, s := range slices.Concat(g.Keep, g.Remove) {
			if _, known := e.Left.Snapshots[s.ID]; !known {
				fresh++
			}
		}
		if fresh > 2*due+3 {
			out = append(out, fmt.Sprintf("%s has %d new snapshots since %s, and %d runs were due: somebody else adds some", name, fresh, e.Left.At.UTC().Format(time.RFC3339), due))
		}
		if len(g.Remove) > due+2 {
			out = append(out, fmt.Sprintf("%d snapshots of %s would go at once, and %d are due", len(g.Remove), name, due))
		}
	}
	in := map[string]bool{}
	for _, s := range slices.Concat(g.Keep, g.Remove) {
		in[s.ID] = true
	}
	// Good looks at all, since the marked twin of a partial snapshot is in another group.
	good := slices.DeleteFunc(restic.Good(e.All), func(s restic.Snapshot) bool { return !in[s.ID] })
	slices.SortFunc(good, func(a, b restic.Snapshot) int { return a.Time.Compare(b.Time) })
	if n := len(good); n >= 2 {
		last, before := good[n-1].Summary.Files, good[n-2].Summary.Files
		if before >= 10 && last*2 < before {
			out = append(out, fmt.Sprintf("the newest snapshot of %s has %d files, the one before %d", name, last, before))
		}
	}
	return out
}

// Maintained says what a maintenance did.
type Maintained struct {
	Tier    string    `json:"tier"`
	At      time.Time `json:"at"`
	Kept    int       `json:"kept"`
	Removed []string  `json:"removed"`
	Pruned  bool      `json:"pruned"`
}

// Within asks what forget would do, judges, and removes exactly what was judged. The caller holds the machine's lock. How it went
// is remembered for LastMaintenance.
func (m *Maintenance) Within(ctx context.Context) (Maintained, error) {
	last := LastMaintenance(m.State, m.Tier.Name)
	last.Running = true
	path := filepath.Join(m.State, "tended-"+m.Tier.Name+".json")
	if err := writeJSON(path, last); err != nil {
		return Maintained{}, err
	}
	done, err := m.within(ctx)
	last = Tended{At: done.At}
	if err != nil {
		last.Error = err.Error()
	}
	return done, errors.Join(err, writeJSON(path, last))
}

// Tended is the last maintenance of a repository from this machine.
type Tended struct {
	At      time.Time `json:"at"`
	Error   string    `json:"error,omitempty"`
	Running bool      `json:"running,omitempty"` // the next one is at work, or was killed
}

// LastMaintenance is what Within remembered; the zero value where there was none.
func LastMaintenance(state, tier string) (t Tended) {
	text, err := os.ReadFile(filepath.Join(state, "tended-"+tier+".json"))
	if err != nil || json.Unmarshal(text, &t) != nil {
		return Tended{}
	}
	if _, cut := leftBehind(state, tier); t.Running && !cut && idle(state) { // else it is a backup that was killed
		t.Error = "it was killed; the next one goes on: homelab backup maintenance " + tier
	}
	return t
}

func (m *Maintenance) within(ctx context.Context) (Maintained, error) {
	ctx, cancel := context.WithTimeout(ctx, resticTime)
	defer cancel()
	done := Maintained{Tier: m.Tier.Name, At: time.Now().UTC()}
	path := filepath.Join(m.State, "maintained-"+m.Tier.Name+".json")
	e := Evidence{Tier: m.Tier, Now: time.Now()}
	text, err := os.ReadFile(path)
	if err != nil && !errors.Is(err, fs.ErrNotExist) {
		return done, fmt.Errorf("read what the last maintenance left: %w", err)
	}
	if err == nil && json.Unmarshal(text, &e.Left) != nil && !m.Accept {
		return done, fmt.Errorf("read what the last maintenance left: %s is damaged, so nothing can be compared: look at restic snapshots, then run it with --accept", path)
	}
	tag := "tier:" + m.Tier.Name
	if e.All, err = m.Repo.Snapshots(ctx, tag); err != nil {
		return done, err
	}
	policy := restic.Policy{Daily: m.Tier.Daily, Weekly: m.Tier.Weekly, Monthly: m.Tier.Monthly, Within: m.Tier.Within}
	if e.Groups, err = m.Repo.WouldForget(ctx, policy, tag); err != nil {
		return done, err
	}
	if reasons := Judge(e); len(reasons) > 0 && !m.Accept {
		return done, &Refusal{reasons}
	}
	for _, g := range e.Groups {
		for _, s := range g.Remove {
			done.Removed = append(done.Removed, s.ID)
		}
	}
	if err := m.remove(ctx, done.Removed); err != nil {
		return done, err
	}
	e.Left = Left{At: done.At, Snapshots: map[string]time.Time{}}
	for _, s := range e.All {
		if !slices.Contains(done.Removed, s.ID) {
			e.Left.Snapshots[s.ID] = s.Time
		}
	}
	done.Kept = len(e.Left.Snapshots)
	if err := writeJSON(path, e.Left); err != nil {
		return done, err
	}
	if !m.Prune {
		return done, nil
	}
	m.Say("pruning: this can take a while")
	err = m.locked(ctx, restic.PruneArgs(m.Tier.Name == "slow"))
	done.Pruned = err == nil
	return done, err
}

func (m *Maintenance) remove(ctx context.Context, ids []string) error {
	if len(ids) == 0 {
		return nil
	}
	m.Say(fmt.Sprintf("forgetting %d snapshots", len(ids)))
	return m.locked(ctx, restic.ForgetArgs(ids))
}

func (m *Maintenance) locked(ctx context.Context, args []string) error {
	return m.Repo.Past(ctx, m.Locks, m.Say, func() error { _, err := m.Repo.Run(ctx, args, nil); return err })
}

// Checked is the last check of a repository on this machine.
type Checked struct {
	Tier  string    `json:"tier"`
	At    time.Time `json:"at"`
	Part  int       `json:"part"`
	Of    int       `json:"of"`
	Error string    `json:"error,omitempty"`
}

// parts says in how many checks all data are read: each costs a part of the repository in traffic.
var parts = map[string]int{"fast": 30, "slow": 52}

// Check checks the repository's structure and today's part of its data, or all of them, and remembers how it went.
func Check(ctx context.Context, repo restic.Repo, tier catalog.Tier, state string, locks restic.LockPolicy, all bool, say func(string)) (Checked, error) {
	ctx, cancel := context.WithTimeout(ctx, resticTime)
	defer cancel()
	c := Checked{Tier: tier.Name, At: time.Now().UTC(), Of: parts[tier.Name]}
	c.Part = restic.Part(c.At, c.Of)
	if tier.Name == "slow" { // once a week, so weeks are counted
		c.Part = restic.Part(time.Unix(c.At.Unix()/7, 0), c.Of)
	}
	if all {
		c.Part, c.Of = 1, 1
	}
	say(fmt.Sprintf("checking the %s repository, part %d of %d", tier.Name, c.Part, c.Of))
	err := repo.Past(ctx, locks, say, func() error { _, err := repo.Check(ctx, c.Part, c.Of); return err })
	if err != nil {
		c.Error = err.Error()
	}
	return c, errors.Join(err, writeJSON(filepath.Join(state, "check-"+tier.Name+".json"), c))
}

// LastCheck is what Check remembered; the zero value where there was none.
func LastCheck(state, tier string) (c Checked) {
	text, err := os.ReadFile(filepath.Join(state, "check-"+tier+".json"))
	if err != nil || json.Unmarshal(text, &c) != nil {
		return Checked{}
	}
	return c
}
