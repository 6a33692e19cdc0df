//go:build prove

package backup

import (
	"errors"
	"os"
	"strings"
	"testing"
	"time"

	"home.arpa/lab/homelab-iac/internal/restic"
	"home.arpa/lab/homelab-iac/internal/restic/restictest"
)

// onS3 is a bench whose repository is in a real S3, reached with the key that may only add.
func onS3(t *testing.T) (*bench, map[string]restic.Repo) {
	t.Helper()
	b := newBench(t)
	keys := restictest.S3(t)
	restictest.FillS3(t, keys["backup"])
	for name, r := range keys {
		r.Binary = b.Dir + "/restic"
		keys[name] = r
	}
	b.Repo = keys["backup"]
	return b, keys
}

func TestEachKeyDoesItsOwnWorkAndNoOther(t *testing.T) {
	t.Parallel()
	b, keys := onS3(t)
	if trouble := b.do(t, b.run()).Trouble(); trouble != "" {
		t.Fatal(trouble)
	}
	if trouble := b.do(t, b.run()).Trouble(); trouble != "" {
		t.Fatal(trouble)
	}
	list, err := keys["restore"].Snapshots(t.Context(), "tier:fast")
	if err != nil || len(list) != 2 {
		t.Fatalf("the key that may only read: %d %v", len(list), err)
	}
	for what, err := range map[string]error{
		"forget with the backup key":  second(keys["backup"].Run(t.Context(), restic.ForgetArgs([]string{list[0].ID}), nil)),
		"prune with the restore key":  second(keys["restore"].Run(t.Context(), restic.PruneArgs(false), nil)),
		"backup with the restore key": second(keys["restore"].Run(t.Context(), restic.Backup{Host: "h", Paths: []string{b.Dir + "/src"}}.Args(), nil)),
	} {
		if err == nil || strings.Contains(err.Error(), "the-secret-of") {
			t.Errorf("%s: %v", what, err)
		}
	}
	if _, err := keys["restore"].Run(t.Context(), restic.Restore{Snapshot: list[0].ID, Path: b.Dir + "/src", Target: t.TempDir()}.Args(), nil); err != nil {
		t.Errorf("restore with the restore key: %v", err)
	}
	if list, _ = keys["restore"].Snapshots(t.Context()); len(list) != 2 {
		t.Errorf("%d snapshots are left", len(list))
	}

	// A snapshot that turns out to be partial cannot be marked in place by this key. Its twin is known all the same.
	os.RemoveAll(b.Dir + "/src")
	os.Mkdir(b.Dir+"/src", 0o755)
	if report := b.do(t, b.run()); !report.OnlyPartial() {
		t.Errorf("%+v", report)
	}
	list, err = keys["restore"].Snapshots(t.Context(), "tier:fast")
	if err != nil || len(list) != 4 || len(restic.Good(list)) != 2 {
		t.Errorf("%d snapshots, %d good: %v", len(list), len(restic.Good(list)), err)
	}
	m := &Maintenance{Tier: b.run().Tier, Repo: keys["maintenance"], State: b.Dir + "/state", Prune: true, Say: func(string) {}}
	if done, err := m.Within(t.Context()); err != nil || !done.Pruned {
		t.Errorf("maintenance: %+v %v", done, err)
	}
}

func second[T any](_ T, err error) error { return err }

// TestAnIntruderWithTheBackupKeyLosesUsNothing has him do what the key allows: delete, and forge a hundred snapshots. To write over
// objects is what versions are for; putting old versions back is the storage's own work.
func TestAnIntruderWithTheBackupKeyLosesUsNothing(t *testing.T) {
	t.Parallel()
	b, keys := onS3(t)
	for range 3 {
		if trouble := b.do(t, b.run()).Trouble(); trouble != "" {
			t.Fatal(trouble)
		}
	}
	m := &Maintenance{Tier: b.run().Tier, Repo: keys["maintenance"], State: b.Dir + "/state", Prune: true, Say: func(string) {}}
	if _, err := m.Within(t.Context()); err != nil {
		t.Fatal(err)
	}
	before, err := keys["restore"].Snapshots(t.Context())
	if err != nil || len(before) == 0 {
		t.Fatal(err)
	}
	addr := strings.TrimPrefix(strings.Split(b.Repo.URL, "/"+restictest.Bucket)[0], "s3:http://")
	for _, s := range before {
		if status, body := restictest.Request(t, addr, "backup", restictest.Secret("backup"), "DELETE", "/"+restictest.Bucket+"/restic/snapshots/"+s.ID, "", nil); status != 403 {
			t.Errorf("delete a snapshot: %d %s", status, body)
		}
	}
	for n := range 12 { // a dozen, as a hundred only takes longer; the rule counts from four
		if _, err := keys["backup"].Backup(t.Context(), restic.Backup{Host: "h", Tags: []string{"tier:fast", "svc:x"}, Paths: []string{b.Dir + "/compose"}, Time: time.Now().Add(time.Duration(n) * 24 * time.Hour)}, nil); err != nil {
			t.Fatal(err)
		}
	}
	var refusal *Refusal
	if _, err := m.Within(t.Context()); !errors.As(err, &refusal) {
		t.Fatalf("maintenance: %v", err)
	}
	for _, s := range before {
		if _, err := keys["restore"].Run(t.Context(), restic.Restore{Snapshot: s.ID, Path: b.Dir + "/src", Target: t.TempDir()}.Args(), nil); err != nil {
			t.Errorf("restore what was there before: %v", err)
		}
	}
}
