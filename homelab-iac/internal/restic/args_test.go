package restic

import (
	"net/http"
	"net/http/httptest"
	"slices"
	"strings"
	"testing"
	"time"
)

func TestArguments(t *testing.T) {
	for name, c := range map[string]struct {
		got  []string
		want string
	}{
		"a backup": {Backup{Host: "h", Tags: []string{"a", "b"}, Paths: []string{"/x", "/-y"}, Excludes: []string{"/x/log"}, PackSize: 64}.Args(),
			"backup --json --host h --tag a --tag b --exclude /x/log --pack-size 64 -- /x /-y"},
		"a backup of another time": {Backup{Host: "h", Paths: []string{"/x"}, Time: time.Date(2026, 1, 2, 3, 4, 5, 0, time.UTC)}.Args(),
			"backup --json --host h --time 2026-01-02 03:04:05 -- /x"},
		"what forget would do": {WouldForgetArgs(Policy{7, 4, 3, "8d"}, "tier:fast"),
			"forget --dry-run --no-lock --json --group-by host,tags --keep-daily 7 --keep-weekly 4 --keep-monthly 3 --keep-within 8d --tag tier:fast"},
		"no daily ones in the slow tier": {WouldForgetArgs(Policy{Weekly: 4, Monthly: 12}),
			"forget --dry-run --no-lock --json --group-by host,tags --keep-weekly 4 --keep-monthly 12"},
		"forget":                           {ForgetArgs([]string{"a", "b"}), "forget --json a b"},
		"prune":                            {PruneArgs(false), "prune --max-unused 10%"},
		"prune, cold":                      {PruneArgs(true), "prune --max-unused unlimited --repack-cacheable-only --pack-size 64"},
		"check":                            {CheckArgs(3, 30), "check --json --read-data-subset=3/30"},
		"all snapshots":                    {SnapshotsArgs(), "snapshots --json --no-lock"},
		"tagged ones":                      {SnapshotsArgs("a", "b"), "snapshots --json --no-lock --tag a,b"},
		"a restore":                        {Restore{"abc", "/srv/x/data", "/t"}.Args(), "restore abc:/srv/x --no-lock --verify --sparse --include /data --target /t"},
		"of a top folder with an odd name": {Restore{"abc", "/a*b[", "/t"}.Args(), `restore abc:/ --no-lock --verify --sparse --include /a\*b\[ --target /t`},
	} {
		if got := strings.Join(c.got, " "); got != c.want {
			t.Errorf("%s:\n got %s\nwant %s", name, got, c.want)
		}
	}
}

func TestEveryPartIsCheckedInItsTurn(t *testing.T) {
	seen := map[int]bool{}
	for d := range 30 {
		n := Part(time.Date(2026, 3, 1+d, 23, 0, 0, 0, time.UTC), 30)
		if n < 1 || n > 30 || seen[n] {
			t.Fatalf("day %d: part %d", d, n)
		}
		seen[n] = true
	}
}

func TestSnapshotsThatLackSomethingAreNotGood(t *testing.T) {
	at := func(h int) time.Time { return time.Date(2026, 1, 1, h, 0, 0, 0, time.UTC) }
	list := []Snapshot{
		{ID: "a", Time: at(1)},
		{ID: "b", Time: at(2), Tags: []string{"partial"}},
		{ID: "c", Time: at(3)}, // its tag could not be changed in place: the key may not delete
		{ID: "d", Time: at(3), Tags: []string{"partial"}, Original: "c"},
		{ID: "e", Time: at(4)},
	}
	var ids []string
	for _, s := range Good(list) {
		ids = append(ids, s.ID)
	}
	if !slices.Equal(ids, []string{"a", "e"}) {
		t.Errorf("good: %v", ids)
	}
	if s, ok := AsOf(Good(list), at(3)); !ok || s.ID != "a" {
		t.Errorf("as of 3: %v", s)
	}
	if s, ok := AsOf(list, time.Time{}); !ok || s.ID != "e" {
		t.Errorf("newest: %v", s)
	}
	if _, ok := AsOf(list, at(0)); ok {
		t.Error("found a snapshot from before the first")
	}
}

func TestALockIsDeadOnlyWhenOldAndNotRenewed(t *testing.T) {
	now := time.Date(2026, 1, 1, 12, 0, 0, 0, time.UTC)
	old, young := Lock{ID: "old", Time: now.Add(-2 * time.Hour)}, Lock{ID: "young", Time: now.Add(-time.Minute)}
	renewed := Lock{ID: "other", Time: now.Add(-3 * time.Hour)} // its clock is wrong, but it lives: another ID
	for name, c := range map[string]struct {
		before, after []Lock
		dead, alive   int
	}{
		"left behind":              {[]Lock{old}, []Lock{old}, 1, 0},
		"young":                    {[]Lock{young}, []Lock{young}, 0, 1},
		"renewed by a wrong clock": {[]Lock{old}, []Lock{renewed}, 0, 1},
		"gone":                     {[]Lock{old}, nil, 0, 0},
		"one of each":              {[]Lock{old, young}, []Lock{old, young}, 1, 1},
	} {
		dead, alive := Patience.Dead(c.before, c.after, now)
		if len(dead) != c.dead || len(alive) != c.alive {
			t.Errorf("%s: dead %v, alive %v", name, dead, alive)
		}
	}
}

func TestLastWords(t *testing.T) {
	for said, want := range map[string]string{
		"": "it said nothing",
		`{"message_type":"exit_error","code":1,"message":"Fatal: unable"}`:                        "unable",
		`{"message_type":"error","error":{"message":"no such file"},"during":"scan","item":"/x"}`: "/x: no such file",
		"panic\n\nat line 3\n": "panic; at line 3",
		"1\n2\n3\n4\n5\n":      "2; 3; 4; 5",
	} {
		if got := lastWords([]byte(said)); got != want {
			t.Errorf("%q: %q", said, got)
		}
	}
}

func TestSecretsAreScrubbed(t *testing.T) {
	r := Repo{URL: "rest:https://me:secret@host/x", Env: []string{"AWS_SECRET_ACCESS_KEY=abcdefgh12345678"}}
	if got := r.scrub("open https://me:secret@host/x with abcdefgh12345678"); strings.Contains(got, "secret") || strings.Contains(got, "abcdefgh") {
		t.Error(got)
	}
}

func FuzzReadWhatResticPrints(f *testing.F) {
	f.Add([]byte(`{"message_type":"summary","snapshot_id":"a"}`))
	f.Add([]byte(`[{"id":"a","time":"2026-01-01T00:00:00Z"}]`))
	f.Fuzz(func(t *testing.T, out []byte) {
		var sum Summary
		var found bool
		parseBackupLine(out, &sum, &found)
		parseSnapshots(out) //nolint:errcheck // it may not panic; that is all
		parseGroups(out)    //nolint:errcheck // the same
		lastWords(out)
	})
}

func TestAnOldResticIsKnownByItsVersion(t *testing.T) {
	for version, want := range map[string]bool{"0.14.0": true, "0.17.0": true, "0.17.1": false, "0.19.1": false, "0.19.1-dev": false, "1.0": false, "": true, "restic": true} {
		if got := older(version, Oldest); got != want {
			t.Errorf("%q: %v", version, got)
		}
	}
}

func TestARefusalOfTheStorageNamesItsCure(t *testing.T) {
	for said, want := range map[string]string{
		"unable to open config file: Stat: Access Denied.":                                                     "of the three",
		"Fatal: Stat: The difference between the request time and the current time is too large.":              "timedatectl",
		"client.PutObject: The provided token has expired":                                                     "the key has ended",
		"Stat: The Access Key Id you provided does not exist in our records.":                                  "does not know this key",
		"Stat: The request signature we calculated does not match the signature you provided. Check your key.": "does not know this key",
		"write /x: no space left on device":                                                                    "make room",
		"something else":                                                                                       "homelab backup check",
	} {
		if got := (&Error{Command: "backup", Code: 1, Text: said}).Error(); !strings.Contains(got, want) {
			t.Errorf("%q: %s", said, got)
		}
	}
}

func TestTheClockIsComparedWithTheStorages(t *testing.T) {
	for name, c := range map[string]struct{ off, want time.Duration }{"the same": {0, 0}, "ahead": {-20 * time.Minute, 20 * time.Minute}, "behind": {24 * time.Hour, -24 * time.Hour}} {
		srv := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) {
			w.Header().Set("Date", time.Now().Add(c.off).UTC().Format(http.TimeFormat))
			w.WriteHeader(http.StatusForbidden)
		}))
		got, ok, err := Repo{URL: "s3:" + srv.URL + "/bucket/restic"}.Skew(t.Context())
		if d := got - c.want; !ok || err != nil || d < -3*time.Second || d > 30*time.Second {
			t.Errorf("%s: %v %v %v", name, got, ok, err)
		}
		srv.Close()
		if _, ok, err := (Repo{URL: "s3:" + srv.URL + "/bucket/restic"}).Skew(t.Context()); ok || err == nil {
			t.Errorf("nobody there: %v %v", ok, err)
		}
	}
	if _, ok, err := (Repo{URL: "/srv/repository"}).Skew(t.Context()); ok || err != nil {
		t.Errorf("a folder has no clock: %v %v", ok, err)
	}
}
