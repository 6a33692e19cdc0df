package restic

import (
	"fmt"
	"strconv"
	"strings"
	"time"
)

// A Backup is one snapshot to be made.
type Backup struct {
	Host     string
	Tags     []string
	Paths    []string
	Excludes []string // patterns as restic reads them
	PackSize int      // MiB; 0: restic's own
	Time     time.Time
}

// Args are restic's arguments for a backup. Paths stand behind --, since a name may begin with a dash.
func (b Backup) Args() []string {
	args := []string{"backup", "--json", "--host", b.Host}
	for _, t := range b.Tags {
		args = append(args, "--tag", t)
	}
	for _, e := range b.Excludes {
		args = append(args, "--exclude", e)
	}
	if b.PackSize > 0 {
		args = append(args, "--pack-size", strconv.Itoa(b.PackSize))
	}
	if !b.Time.IsZero() {
		args = append(args, "--time", b.Time.Format("2006-01-02 15:04:05"))
	}
	return append(append(args, "--"), b.Paths...)
}

// A Policy says what forget keeps, per host and tags.
type Policy struct {
	Daily, Weekly, Monthly int
	Within                 string // kept whatever the counts say: "8d"
}

// WouldForgetArgs ask what forget would remove; nothing is removed and nothing locked.
func WouldForgetArgs(p Policy, tags ...string) []string {
	args := []string{"forget", "--dry-run", "--no-lock", "--json", "--group-by", "host,tags"}
	for _, k := range []struct {
		flag string
		n    int
	}{{"--keep-daily", p.Daily}, {"--keep-weekly", p.Weekly}, {"--keep-monthly", p.Monthly}} {
		if k.n > 0 {
			args = append(args, k.flag, strconv.Itoa(k.n))
		}
	}
	if p.Within != "" {
		args = append(args, "--keep-within", p.Within)
	}
	return append(args, tagArgs(tags)...)
}

// ForgetArgs remove exactly these snapshots: those that were judged, and none that came meanwhile.
func ForgetArgs(ids []string) []string { return append([]string{"forget", "--json"}, ids...) }

// PruneArgs free what no snapshot needs. For an archive class (cold) nothing is written anew but small tree packs: to
// rewrite data there is billed twice (restic's manual, "Customize pruning").
func PruneArgs(cold bool) []string {
	if cold {
		return []string{"prune", "--max-unused", "unlimited", "--repack-cacheable-only", "--pack-size", strconv.Itoa(ColdPackSize)}
	}
	return []string{"prune", "--max-unused", "10%"}
}

// ColdPackSize in MiB keeps the number of objects, each of which costs a transition to the archive class, low.
const ColdPackSize = 64

// CheckArgs check the structure, and the data of part n of t (1-based), so that t runs have read everything.
func CheckArgs(n, t int) []string {
	return []string{"check", "--json", fmt.Sprintf("--read-data-subset=%d/%d", n, t)}
}

// Part is the part of t that is checked on a day: t days in a row cover all parts.
func Part(day time.Time, t int) int { return int(day.Unix()/86400)%t + 1 }

// SnapshotsArgs list snapshots that carry all of tags.
func SnapshotsArgs(tags ...string) []string {
	return append([]string{"snapshots", "--json", "--no-lock"}, tagArgs(tags)...)
}

func tagArgs(tags []string) []string {
	if len(tags) == 0 {
		return nil
	}
	return []string{"--tag", strings.Join(tags, ",")}
}

// A Restore puts one file or folder of a snapshot below Target, under its own name.
type Restore struct {
	Snapshot string
	Path     string // absolute, as it was backed up
	Target   string // an empty folder
}

// Args are restic's arguments for a restore: with the key that may only read (no lock), and each file read back.
func (r Restore) Args() []string {
	dir, name := split(r.Path)
	return []string{"restore", r.Snapshot + ":" + dir, "--no-lock", "--verify", "--sparse", "--include", "/" + escape(name), "--target", r.Target}
}

func split(p string) (dir, name string) {
	at := strings.LastIndex(p, "/")
	if at <= 0 {
		return "/", p[at+1:]
	}
	return p[:at], p[at+1:]
}

// escape keeps a name from being read as a pattern.
func escape(name string) string {
	return strings.NewReplacer(`\`, `\\`, `*`, `\*`, `?`, `\?`, `[`, `\[`).Replace(name)
}
