package watch

import (
	"errors"
	"strings"
	"testing"
	"time"

	"home.arpa/lab/homelab-iac/internal/catalog"
	"home.arpa/lab/homelab-iac/internal/restic"
	"home.arpa/lab/homelab-iac/internal/site"
)

var now = time.Date(2026, 5, 1, 12, 0, 0, 0, time.UTC)

func TestOnlyAGoodYoungSnapshotOfTheServiceItselfCounts(t *testing.T) {
	service := catalog.Service{Name: "x", Host: "h", Backup: catalog.Backup{RPO: map[string]time.Duration{"fast": 26 * time.Hour}}}
	old := restic.Snapshot{ID: "0ld", Host: "h", Tags: []string{"tier:fast", "svc:x"}, Time: now.Add(-30 * time.Hour)}
	young := func(change func(*restic.Snapshot)) []restic.Snapshot {
		s := restic.Snapshot{ID: "y0ung", Host: "h", Tags: []string{"tier:fast", "svc:x"}, Time: now.Add(-time.Hour)}
		change(&s)
		return []restic.Snapshot{old, s}
	}
	same := func(*restic.Snapshot) {}
	for name, c := range map[string]struct {
		list []restic.Snapshot
		cut  time.Time
		want string
	}{
		"young":               {young(same), time.Time{}, ""},
		"none":                {nil, time.Time{}, "there is no good snapshot"},
		"old":                 {[]restic.Snapshot{old}, time.Time{}, "is 30h old, and 26h is promised"},
		"partial":             {young(func(s *restic.Snapshot) { s.Tags = append(s.Tags, restic.Partial) }), time.Time{}, "0ld is 30h old"},
		"of another service":  {young(func(s *restic.Snapshot) { s.Tags[1] = "svc:y" }), time.Time{}, "0ld is 30h old"},
		"of another machine":  {young(func(s *restic.Snapshot) { s.Host = "dev" }), time.Time{}, "0ld is 30h old"},
		"of the future":       {young(func(s *restic.Snapshot) { s.Time = now.AddDate(0, 0, 1) }), time.Time{}, "0ld is 30h old"},
		"of a run cut short":  {young(same), now.Add(-2 * time.Hour), "0ld is 30h old"},
		"from before the run": {young(same), now.Add(-time.Minute), ""},
	} {
		got := Fresh([]catalog.Service{service}, "h", Repository{Tier: "fast", Snapshots: c.list, Cut: c.cut}, now)
		if len(got) != 1 || got[0].Monitor != "fresh x fast" || c.want == "" && got[0].Trouble != "" || !strings.Contains(got[0].Trouble, c.want) {
			t.Errorf("%s: %+v", name, got)
		}
	}
	dumped := service
	dumped.Backup.Dumps = []catalog.Dump{{Name: "x.db"}}
	for name, paths := range map[string][]string{"": {"/srv/x", "/dumps/x"}, "there is no good snapshot": {"/srv/x"}} {
		list := young(func(s *restic.Snapshot) { s.Paths = paths })
		if got := Fresh([]catalog.Service{dumped}, "h", Repository{Tier: "fast", Snapshots: list, Dumps: "/dumps"}, now); name == "" && got[0].Trouble != "" || !strings.Contains(got[0].Trouble, name) {
			t.Errorf("paths %v: %+v", paths, got)
		}
	}
	other := service
	other.Name = "y"
	got := Fresh([]catalog.Service{service, other}, "h", Repository{Tier: "fast", Err: errors.New("403")}, now)
	if len(got) != 2 || got[0].Incident == "" || got[0].Incident != got[1].Incident || !strings.Contains(got[1].Trouble, "403") {
		t.Errorf("an unreadable repository is one incident: %+v", got)
	}
}

func TestATierIsDueWhenAServiceMissedItsTime(t *testing.T) {
	fast, err := catalog.TierNamed("fast")
	if err != nil {
		t.Fatal(err)
	}
	services := []catalog.Service{{Name: "x", Host: "h"}, {Name: "y", Host: "h"}}
	at := func(name string, age time.Duration, tags ...string) restic.Snapshot {
		return restic.Snapshot{ID: name + age.String(), Host: "h", Tags: append(tags, "svc:"+name), Time: now.Add(-age)}
	}
	for name, c := range map[string]struct {
		list []restic.Snapshot
		want bool
	}{
		"nothing yet":              {nil, true},
		"both this morning":        {[]restic.Snapshot{at("x", time.Hour), at("y", 23*time.Hour)}, false},
		"one two days ago":         {[]restic.Snapshot{at("x", time.Hour), at("y", 48*time.Hour)}, true},
		"the last lacks something": {[]restic.Snapshot{at("x", time.Hour), at("y", time.Hour, restic.Partial)}, true},
	} {
		if got := Due(services, fast, c.list, now); got != c.want {
			t.Errorf("%s: %v", name, got)
		}
	}
}

func TestWhatIsDoneRegularlyIsMissedWhenItIsNot(t *testing.T) {
	for name, c := range map[string]struct {
		got  State
		want string
	}{
		"checked":          {Checked("fast", "h", Done{At: now.Add(-day)}, nil, now), ""},
		"never checked":    {Checked("fast", "h", Done{}, nil, now), "was never done"},
		"checked long ago": {Checked("fast", "h", Done{At: now.Add(-4 * day)}, nil, now), "4d ago"},
		"slow":             {Checked("slow", "h", Done{At: now.Add(-14 * day)}, nil, now), ""},
		"a check failed":   {Checked("slow", "h", Done{now, "broken pack"}, nil, now), "failed: broken pack"},
		"not tended yet":   {Checked("fast", "h", Done{At: now}, &Done{}, now), ""},
		"tended":           {Checked("fast", "h", Done{At: now}, &Done{At: now.Add(-8 * day)}, now), ""},
		"not tended":       {Checked("fast", "h", Done{At: now}, &Done{At: now.Add(-10 * day)}, now), "maintenance of the fast repository was done 10d ago"},
		"refused":          {Checked("slow", "h", Done{At: now}, &Done{now.Add(-day), "refuse maintenance: forged"}, now), "failed: refuse maintenance: forged"},
		"only tended":      {Tended("fast", "h", Done{At: now.Add(-10 * day)}, now), "was done 10d ago"},
		"killed":           {CutShort("fast", "h", "x", now.Add(-3*time.Hour), now), "began 3h ago was killed at x"},
		"proved":           {Proved(now.Add(-7*day), "", now), ""},
		"proof too old":    {Proved(now.Add(-9*day), "", now), "9d ago"},
		"proof failed":     {Proved(now, "3 differences", now), "3 differences"},
	} {
		if c.want == "" && c.got.Trouble != "" || !strings.Contains(c.got.Trouble, c.want) || c.got.Summary == "" {
			t.Errorf("%s: %+v", name, c.got)
		}
	}
}

func TestDiskAndKeys(t *testing.T) {
	key := func(ends string) map[string]site.Repository {
		return map[string]site.Repository{"fast": {Keys: map[string]site.Key{"backup": {Expires: ends}}}}
	}
	for name, c := range map[string]struct {
		disk Disk
		ends string
		want string
	}{
		"well":            {Disk{Free: 50 << 30, Size: 100 << 30}, "", ""},
		"nearly full":     {Disk{Free: 5 << 30, Size: 100 << 30}, "", "5 %: make room"},
		"small and full":  {Disk{Free: 1 << 30, Size: 4 << 30}, "", "1024 MiB left"},
		"gone":            {Disk{Err: errors.New("stale handle")}, "", "stale handle"},
		"a key ends soon": {Disk{Free: 50 << 30, Size: 100 << 30}, "2026-05-10", "ends on 2026-05-10"},
		"a key has ended": {Disk{Free: 50 << 30, Size: 100 << 30}, "2026-04-10", "ends on 2026-04-10"},
		"a key lasts":     {Disk{Free: 50 << 30, Size: 100 << 30}, "2027-01-01", ""},
	} {
		got := Host("h", map[string]Disk{"/d": c.disk}, key(c.ends), map[string]time.Duration{"fast": time.Second}, now)
		if c.want == "" && got.Trouble != "" || !strings.Contains(got.Trouble, c.want) {
			t.Errorf("%s: %+v", name, got)
		}
	}
	for off, want := range map[time.Duration]string{20 * time.Minute: "20m ahead of", -20 * time.Minute: "20m behind", 24 * time.Hour: "24h ahead of", time.Minute: ""} {
		got := Host("h", nil, nil, map[string]time.Duration{"fast": off}, now).Trouble
		if want == "" && got != "" || !strings.Contains(got, want) {
			t.Errorf("a clock off by %s: %q", off, got)
		}
	}
	if d := DiskOf(t.TempDir() + "/not/there"); d.Err != nil || d.Size == 0 {
		t.Errorf("%+v", d)
	}
}
