// Package watch says how safe a machine is, by what is in the repositories and not by what a job said of itself.
package watch

import (
	"fmt"
	"maps"
	"path/filepath"
	"slices"
	"strings"
	"syscall"
	"time"

	"home.arpa/lab/homelab-iac/internal/catalog"
	"home.arpa/lab/homelab-iac/internal/restic"
	"home.arpa/lab/homelab-iac/internal/site"
)

// A State is how one watched thing is.
type State struct {
	Monitor string `json:"monitor"`           // in Uptime Kuma
	Trouble string `json:"trouble,omitempty"` // "" when all is well
	Summary string `json:"summary"`
	// Incident is what people are told of; several monitors may be about one. "" means the monitor's own name.
	Incident string `json:"-"`
}

func state(monitor, well string, troubles ...string) State {
	troubles = slices.DeleteFunc(troubles, func(s string) bool { return s == "" })
	s := State{Monitor: monitor, Summary: well, Trouble: strings.Join(troubles, "; ")}
	if s.Trouble != "" {
		s.Summary = s.Trouble
	}
	return s
}

// Repository is what was read of one tier's repository.
type Repository struct {
	Tier      string
	Snapshots []restic.Snapshot
	Err       error     // it could not be read
	Dumps     string    // below which dumps lie while a backup reads them
	Cut       time.Time // when a run began that has not ended, or zero: snapshots from then on are not believed yet
}

// Fresh says for each service how old its newest good snapshot is. One snapshot of the future is no snapshot of now. Pure.
func Fresh(services []catalog.Service, host string, r Repository, now time.Time) []State {
	var out []State
	good := slices.DeleteFunc(restic.Good(r.Snapshots), func(s restic.Snapshot) bool {
		return s.Time.After(now.Add(10*time.Minute)) || !r.Cut.IsZero() && !s.Time.Before(r.Cut)
	})
	for _, s := range services {
		monitor := catalog.FreshMonitor(r.Tier, s.Name)
		if r.Err != nil {
			st := state(monitor, "", "the "+r.Tier+" repository cannot be read: "+r.Err.Error())
			st.Incident = "the " + r.Tier + " repository, read from " + host
			out = append(out, st)
			continue
		}
		mine := slices.DeleteFunc(slices.Clone(good), func(c restic.Snapshot) bool {
			// A snapshot without the service's dumps is none of it, whatever its tags say.
			return c.Host != s.Host || !c.Has("svc:"+s.Name) || len(s.Backup.Dumps) > 0 && !slices.Contains(c.Paths, filepath.Join(r.Dumps, s.Name))
		})
		newest, ok := restic.AsOf(mine, time.Time{})
		age, limit := now.Sub(newest.Time), s.Backup.RPO[r.Tier]
		switch {
		case !ok:
			out = append(out, state(monitor, "", "there is no good snapshot: run homelab backup run "+r.Tier+" on "+s.Host))
		case age > limit:
			out = append(out, state(monitor, "", fmt.Sprintf("the newest good snapshot %s is %s old, and %s is promised: look at homelab backup run %s on %s", newest.Short(), Age(age), Age(limit), r.Tier, s.Host)))
		default:
			well := fmt.Sprintf("%s old, %d snapshots, %d files", Age(age), len(mine), newest.Summary.Files)
			if n := len(s.Backup.Dumps); n > 0 {
				well += fmt.Sprintf(", %d dumps of the same age", n)
			}
			out = append(out, state(monitor, well))
		}
	}
	return out
}

// Due says whether a tier has missed its time: some service's newest good snapshot is older than the distance of two runs. Pure.
func Due(services []catalog.Service, tier catalog.Tier, list []restic.Snapshot, now time.Time) bool {
	good := restic.Good(list)
	return slices.ContainsFunc(services, func(s catalog.Service) bool {
		return !slices.ContainsFunc(good, func(c restic.Snapshot) bool {
			return c.Host == s.Host && c.Has("svc:"+s.Name) && now.Sub(c.Time) <= tier.Every
		})
	})
}

// late says when a thing that is done regularly was not done, or failed.
func late(what string, last time.Time, limit time.Duration, failed string, now time.Time) string {
	switch {
	case failed != "":
		return what + " failed: " + failed
	case last.IsZero():
		return what + " was never done on this machine"
	case now.Sub(last) > limit:
		return fmt.Sprintf("%s was done %s ago, and %s is the limit", what, Age(now.Sub(last)), Age(limit))
	}
	return ""
}

// Done is when something was done last, and how it failed.
type Done struct {
	At    time.Time
	Error string
}

// Checked says whether a repository was checked lately, a fast one within three days, a slow one within fifteen; and, where it is
// tended from this machine, whether that went well: a fast one every week, a slow one every quarter. Refused maintenance stays a
// trouble until the next one goes through.
func Checked(tier, host string, check Done, tended *Done, now time.Time) State {
	limit := 3 * day
	if tier == "slow" {
		limit = 15 * day
	}
	troubles := []string{late("the check of the "+tier+" repository", check.At, limit, check.Error, now)}
	if tended != nil {
		troubles = append(troubles, untended(tier, *tended, now))
	}
	return state(catalog.CheckMonitor(tier, host), "checked "+Age(now.Sub(check.At))+" ago", troubles...)
}

// Tended says the same of a machine that only tends a repository.
func Tended(tier, host string, tended Done, now time.Time) State {
	return state(catalog.CheckMonitor(tier, host), "tended "+Age(now.Sub(tended.At))+" ago", untended(tier, tended, now))
}

// untended is silent before the first time: with a schedule of a week or a quarter that may be long.
func untended(tier string, tended Done, now time.Time) string {
	if tended.At.IsZero() && tended.Error == "" {
		return ""
	}
	limit := 9 * day
	if tier == "slow" {
		limit = 100 * day
	}
	return late("the maintenance of the "+tier+" repository", tended.At, limit, tended.Error, now)
}

const day = 24 * time.Hour

// CutShort is a run of a tier that was killed.
func CutShort(tier, host, service string, began, now time.Time) State {
	at := ""
	if service != "" {
		at = " at " + service
	}
	return state(catalog.BackupMonitor(tier, host), "", fmt.Sprintf("the %s backup that began %s ago was killed%s: its snapshots do not count; the next run clears up: homelab backup run %s", tier, Age(now.Sub(began)), at, tier))
}

// proofLife is how long a proved restore counts: drills are weekly.
const proofLife = 8 * day

// Proved says whether a restore was proved lately.
func Proved(last time.Time, failed string, now time.Time) State {
	return state(catalog.DrillMonitor, "proved "+Age(now.Sub(last))+" ago", late("the proof of a restore", last, proofLife, failed, now))
}

// keyNotice is how long before its end a key is asked to be renewed.
const keyNotice = 14 * day

// skewLimit is how far a clock may be off: at fifteen minutes S3 refuses (RequestTimeTooSkewed), and NTP keeps a second.
const skewLimit = 2 * time.Minute

// Host says whether a machine has room for dumps and cache, keys that last, and a clock that agrees with the storages'. ahead is by
// how much it is ahead of each, by tier.
func Host(host string, disks map[string]Disk, repositories map[string]site.Repository, ahead map[string]time.Duration, now time.Time) State {
	var troubles, well []string
	for _, tier := range slices.Sorted(maps.Keys(ahead)) {
		if off := ahead[tier]; off.Abs() > skewLimit {
			way := "ahead of"
			if off < 0 {
				way = "behind"
			}
			troubles = append(troubles, fmt.Sprintf("the clock is %s %s the storage's of the %s repository: look at timedatectl", Age(off.Abs()), way, tier))
		}
	}
	for _, dir := range slices.Sorted(maps.Keys(disks)) {
		d := disks[dir]
		if d.Err != nil {
			troubles = append(troubles, fmt.Sprintf("the disk of %s cannot be asked: %v", dir, d.Err))
		} else if share := d.Free * 100 / max(d.Size, 1); share < 10 || d.Free < 2<<30 {
			troubles = append(troubles, fmt.Sprintf("the disk of %s has %d MiB left, %d %%: make room", dir, d.Free>>20, share))
		} else {
			well = append(well, fmt.Sprintf("%s %d %% free", dir, share))
		}
	}
	for _, tier := range slices.Sorted(maps.Keys(repositories)) {
		for _, name := range site.KeyNames {
			key, ok := repositories[tier].Keys[name]
			if end, err := key.Expiry(); ok && err == nil && !end.IsZero() && end.Sub(now) < keyNotice {
				troubles = append(troubles, fmt.Sprintf("the %s key of the %s repository ends on %s: make a new one", name, tier, key.Expires))
			}
		}
	}
	return state(catalog.HostMonitor(host), strings.Join(append(well, "keys last"), ", "), troubles...)
}

// A Disk is the room on one file system, in bytes.
type Disk struct {
	Free, Size int64
	Err        error
}

// DiskOf asks for the file system of a folder, or of the next one above it that is there.
func DiskOf(dir string) (d Disk) {
	for {
		var st syscall.Statfs_t
		err := syscall.Statfs(dir, &st)
		if err == syscall.ENOENT && dir != "/" {
			dir = filepath.Dir(dir)
			continue
		}
		return Disk{Free: int64(st.Bavail) * st.Bsize, Size: int64(st.Blocks) * st.Bsize, Err: err}
	}
}

// Age writes how long something is ago: 5m, 3h, 4d.
func Age(d time.Duration) string {
	switch {
	case d >= 48*time.Hour:
		return fmt.Sprintf("%dd", d/(24*time.Hour))
	case d >= 2*time.Hour:
		return fmt.Sprintf("%dh", d/time.Hour)
	}
	return fmt.Sprintf("%dm", d/time.Minute)
}
