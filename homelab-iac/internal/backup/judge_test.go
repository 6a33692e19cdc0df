package backup

import (
	"fmt"
	"strings"
	"testing"
	"time"

	"home.arpa/lab/homelab-iac/internal/catalog"
	"home.arpa/lab/homelab-iac/internal/restic"
)

// history is n daily snapshots of one service, the newest an hour before now.
func history(n int, now time.Time) []restic.Snapshot {
	var all []restic.Snapshot
	for d := range n {
		s := restic.Snapshot{ID: fmt.Sprintf("%08d", n-d), Time: now.Add(-time.Hour).AddDate(0, 0, -d), Host: "h", Tags: []string{"tier:fast", "svc:x"}}
		s.Summary.Files = 100
		all = append(all, s)
	}
	return all
}

func TestMaintenanceRefusesWhatLooksForged(t *testing.T) {
	now := time.Date(2026, 5, 1, 5, 0, 0, 0, time.UTC)
	fast, err := catalog.TierNamed("fast")
	if err != nil {
		t.Fatal(err)
	}
	// Yesterday's maintenance left all but the newest; one is due to go.
	usual := func() Evidence {
		all := history(10, now)
		e := Evidence{Tier: fast, Now: now, All: all, Left: Left{At: now.AddDate(0, 0, -1), Snapshots: map[string]time.Time{}}}
		for _, s := range all[1:] {
			e.Left.Snapshots[s.ID] = s.Time
		}
		e.Groups = []restic.Group{{Host: "h", Tags: all[0].Tags, Keep: all[:9], Remove: all[9:]}}
		return e
	}
	add := func(e *Evidence, s restic.Snapshot) {
		s.Host, s.Tags = "h", append([]string{"tier:fast", "svc:x"}, s.Tags...)
		if s.Summary.Files == 0 {
			s.Summary.Files = 100
		}
		e.All = append(e.All, s)
		e.Groups[0].Keep = append(append([]restic.Snapshot{}, e.Groups[0].Keep...), s)
	}
	for name, c := range map[string]struct {
		change func(*Evidence)
		want   string
	}{
		"a usual day":       {func(*Evidence) {}, ""},
		"the first time":    {func(e *Evidence) { e.Left = Left{} }, ""},
		"after three weeks": {func(e *Evidence) { e.Left.At = now.AddDate(0, 0, -21); e.Left.Snapshots = map[string]time.Time{} }, ""},
		"some runs by hand": {func(e *Evidence) {
			for i := range 4 {
				add(e, restic.Snapshot{ID: fmt.Sprint("hand", i), Time: now.Add(-time.Minute)})
			}
		}, ""},
		"a clock twenty minutes ahead": {func(e *Evidence) { add(e, restic.Snapshot{ID: "f", Time: now.Add(20 * time.Minute)}) }, "to come"},
		"a clock a day ahead":          {func(e *Evidence) { add(e, restic.Snapshot{ID: "f", Time: now.AddDate(0, 0, 1)}) }, "to come"},
		"one backdated":                {func(e *Evidence) { add(e, restic.Snapshot{ID: "f", Time: now.AddDate(0, 0, -3)}) }, "was not there at the last maintenance"},
		"a partial one, marked later": {func(e *Evidence) {
			add(e, restic.Snapshot{ID: "f", Time: now.AddDate(0, 0, -3), Tags: []string{"partial"}})
		}, ""},
		"a hundred forged": {func(e *Evidence) {
			for i := range 100 {
				add(e, restic.Snapshot{ID: fmt.Sprint("f", i), Time: now.Add(-time.Duration(i) * time.Minute)})
			}
		}, "somebody else adds some"},
		"one removed by somebody":        {func(e *Evidence) { e.All = e.All[:9] }, "1 snapshots that the last maintenance left are gone"},
		"all removed":                    {func(e *Evidence) { e.All, e.Groups = nil, nil }, "9 snapshots"},
		"many would go at once":          {func(e *Evidence) { g := &e.Groups[0]; g.Keep, g.Remove = g.Keep[:3], append(g.Keep[3:], g.Remove...) }, "would go at once"},
		"nothing would be left":          {func(e *Evidence) { e.Groups[0].Keep = nil }, "nothing would be left"},
		"the newest is nearly empty":     {func(e *Evidence) { add(e, small("f", now)) }, "has 3 files, the one before 100"},
		"one took the place of another":  {func(e *Evidence) { e.All[3] = replaced(e.All[3]) }, ""},
		"one claims to, another is gone": {func(e *Evidence) { e.All[3] = replaced(e.All[4]) }, "are gone"},
	} {
		t.Run(name, func(t *testing.T) {
			e := usual()
			c.change(&e)
			got := strings.Join(Judge(e), "\n")
			if c.want == "" && got != "" || !strings.Contains(got, c.want) {
				t.Errorf("got %q, want %q", got, c.want)
			}
		})
	}
}

func small(id string, at time.Time) restic.Snapshot {
	s := restic.Snapshot{ID: id, Time: at.Add(-time.Minute)}
	s.Summary.Files = 3
	return s
}

func replaced(s restic.Snapshot) restic.Snapshot {
	s.Original, s.ID = s.ID, "new-"+s.ID
	s.Tags = append([]string{restic.Partial}, s.Tags...)
	return s
}

func TestTheReportSaysFirstWhatWentWrong(t *testing.T) {
	r := &Report{Tier: "fast", Host: "h", Services: []Outcome{{Service: "a", Snapshot: "1", Files: 3, Bytes: 2e9}, {Service: "b", Snapshot: "2", Partial: true, Errors: []string{"no b/x"}}}}
	if got := r.Summary(); got != "fast backup of h: 1 of 2 services safe, 2.0 GB, 0 bytes new, 0s; PARTIAL b: no b/x" || !r.OnlyPartial() {
		t.Error(got)
	}
	r.Services[1] = Outcome{Service: "b", Errors: []string{"gone"}}
	if got := r.Trouble(); got != "b: gone" || r.OnlyPartial() {
		t.Error(got)
	}
	r.Services[1] = Outcome{Service: "b", Snapshot: "2"}
	if got := r.Trouble(); got != "" || r.OnlyPartial() {
		t.Error(got)
	}
	r.fail(fmt.Errorf("no retention"))
	if got := r.Trouble(); got != "no retention" {
		t.Error(got)
	}
	text := r.Metrics(func(string) time.Time { return time.Unix(1e9, 0) })
	for _, want := range []string{`homelab_backup_good{tier="fast",service="a"} 1`, `homelab_backup_last_good_timestamp_seconds{tier="fast",service="b"} 1e+09`, "# TYPE homelab_backup_files gauge"} {
		if !strings.Contains(text, want) {
			t.Errorf("metrics lack %s:\n%s", want, text)
		}
	}
}
