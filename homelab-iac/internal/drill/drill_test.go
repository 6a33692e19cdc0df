package drill

import (
	"io/fs"
	"strings"
	"testing"
	"time"

	"home.arpa/lab/homelab-iac/internal/postgres"
	"home.arpa/lab/homelab-iac/internal/restic"
	"home.arpa/lab/homelab-iac/internal/restore"
	"home.arpa/lab/homelab-iac/internal/tree"
)

var noon = time.Date(2026, 5, 1, 12, 0, 0, 0, time.UTC)

func green() *Report {
	r := &Report{Target: "dev-learning", Compared: []Compared{{Service: "vault", Path: "/v", Against: Exact, Entries: 10}},
		Stages: []Stage{{"compare", noon.Add(50 * time.Second), 5}}}
	r.Host, r.Started, r.Ended = "prod-services", noon, noon.Add(time.Minute)
	r.Services = []restore.Result{{Service: "vault", Snapshot: "0123456789", RTO: 60, Steps: []restore.Done{
		{Phase: restore.Fetch, What: "bring it", Line: "restic <restore>", Began: noon, Seconds: 40}, {Phase: restore.Prove, What: "it is there", Began: noon.Add(40 * time.Second), Seconds: 1}}}}
	r.Services[0].Steps[1].Said = "all <b> is well"
	r.Services[0].Steps = append(r.Services[0].Steps, restore.Done{Phase: restore.Database, What: "compare every table", Said: postgres.Same("shop_restoring", "shop", 3, 1234)})
	r.Proofs = []restore.Result{{Service: "vault", Steps: []restore.Done{{Phase: restore.Prove, What: "it is there"}, {Phase: restore.Prove, What: "a push is taken"}}}}
	r.TakeOver()
	return r
}

func TestOnlyZeroDifferencesInTimeIsGreen(t *testing.T) {
	for name, c := range map[string]struct {
		change func(*Report)
		want   string
	}{
		"all is well":       {func(r *Report) {}, ""},
		"one difference":    {func(r *Report) { r.Compared[0].Differences = []tree.Difference{{Path: "a", What: "missing"}} }, "1 differences below /v, the first: a missing"},
		"nothing came back": {func(r *Report) { r.Compared[0].Entries = 0 }, "nothing came back"},
		"a service failed":  {func(r *Report) { r.Services[0].Error = "no snapshot" }, "vault: no snapshot"},
		"no service at all": {func(r *Report) { r.Services = nil }, "nothing was restored"},
		"a push is refused": {func(r *Report) { r.Proofs[0].Error = "push: refused" }, "vault: push: refused"},
		"the drill's own time": {func(r *Report) {
			r.Services[0].Steps = append(r.Services[0].Steps, restore.Done{Phase: restore.Compare, Seconds: 1000})
		}, ""},
		"it took too long":    {func(r *Report) { r.Services[0].RTO = 30 }, "took 41 s, and 30 s are promised"},
		"databases, no files": {func(r *Report) { r.Compared = nil }, ""},
	} {
		r := green()
		c.change(r)
		r.Judge()
		if (r.Verdict == "green") != (c.want == "") || !strings.Contains(r.Reason, c.want) || !strings.Contains(r.Summary(), c.want) {
			t.Errorf("%s: %s %q", name, r.Verdict, r.Reason)
		}
		var page strings.Builder
		if err := r.Page(&page); err != nil {
			t.Fatalf("%s: %v", name, err)
		}
		for _, want := range []string{r.Verdict, r.Reason, "dev-learning", "Timeline", "3 tables, 1234 rows", "a push is taken"} {
			if !strings.Contains(page.String(), want) {
				t.Errorf("%s: the page lacks %q", name, want)
			}
		}
		if strings.Contains(page.String(), "<restore>") || strings.Contains(page.String(), "all <b>") || strings.Contains(page.String(), "http") {
			t.Errorf("%s: the page is not escaped, or needs something else", name)
		}
	}
}

func TestASnapshotsListIsComparedEntryByEntry(t *testing.T) {
	nodes := []restic.Node{
		{Path: "/other", Type: "dir"},
		{Path: "/v", Type: "dir", Mode: fs.ModeDir | fs.ModeSetgid | 0o750, UID: 1, MTime: noon},
		{Path: "/v/a", Type: "file", Mode: 0o640, Size: 3, UID: 1, GID: 2, MTime: noon},
		{Path: "/v/\uFFFDx", Type: "file", Mode: 0o600, MTime: noon},
		{Path: "/v/l", Type: "symlink", Mode: fs.ModeSymlink | 0o777, MTime: noon},
		{Path: "/v2", Type: "dir"},
	}
	is := func() []tree.Entry {
		at := noon.UnixNano()
		return []tree.Entry{
			{Path: ".", Type: "dir", Mode: "2750", UID: 1, MTime: at},
			{Path: "a", Type: "file", Mode: "0640", Size: 3, UID: 1, GID: 2, MTime: at, SHA256: "x", Xattrs: map[string]string{"user.a": "00"}},
			{Path: `"\xffx"`, Type: "file", Mode: "0600", MTime: at},
			{Path: "l", Type: "link", Target: "a", MTime: at},
			{Path: "socket", Type: "other", MTime: at},
		}
	}
	if c := CompareListing("vault", "/v", nodes, is()); len(c.Differences) != 0 || c.Entries != 4 {
		t.Errorf("%+v", c)
	}
	for want, change := range map[string]func([]tree.Entry) []tree.Entry{
		"mode":    func(e []tree.Entry) []tree.Entry { e[0].Mode = "0750"; return e },
		"gid":     func(e []tree.Entry) []tree.Entry { e[1].GID = 0; return e },
		"size":    func(e []tree.Entry) []tree.Entry { e[1].Size = 2; return e },
		"mtime":   func(e []tree.Entry) []tree.Entry { e[2].MTime++; return e },
		"missing": func(e []tree.Entry) []tree.Entry { return e[:3] },
		"added":   func(e []tree.Entry) []tree.Entry { return append(e, tree.Entry{Path: "new", Type: "file"}) },
	} {
		if c := CompareListing("vault", "/v", nodes, change(is())); len(c.Differences) != 1 || !strings.HasPrefix(c.Differences[0].What, want) {
			t.Errorf("%s: %+v", want, c.Differences)
		}
	}
}

func TestAPromiseIsWrittenShort(t *testing.T) {
	for d, want := range map[time.Duration]string{30 * time.Minute: "30m", 4 * time.Hour: "4h", 90 * time.Minute: "1h30m", 45 * time.Second: "45s", 10 * time.Second: "10s", 0: "0s", 10 * time.Minute: "10m"} {
		if got := promised(d); got != want {
			t.Errorf("%s: %s", d, got)
		}
	}
}
