package restic_test

import (
	"os"
	"path/filepath"
	"testing"

	"home.arpa/lab/homelab-iac/internal/restic"
	"home.arpa/lab/homelab-iac/internal/restic/restictest"
)

func TestABackupComesBackAsItWas(t *testing.T) {
	r := restictest.Inited(t)
	src := filepath.Join(t.TempDir(), "data [1]*")
	restictest.Write(t, src, map[string]string{"a": "1", "b/c": "2", "log/x": "no"})
	var seen int
	sum, err := r.Backup(t.Context(), restic.Backup{Host: "h", Tags: []string{"svc:x", "tier:fast"}, Paths: []string{src}, Excludes: []string{filepath.Dir(src) + "/data*/log"}},
		func(restic.Progress) { seen++ })
	if err != nil || sum.Snapshot == "" || sum.Files != 2 {
		t.Fatalf("%+v %v", sum, err)
	}
	list, err := r.Snapshots(t.Context(), "svc:x", "tier:fast")
	if err != nil || len(list) != 1 || !list[0].Has("tier:fast") || list[0].Host != "h" || list[0].Summary.Files != 2 {
		t.Fatalf("%+v %v", list, err)
	}
	if none, err := r.Snapshots(t.Context(), "svc:y"); err != nil || len(none) != 0 {
		t.Fatalf("%v %v", none, err)
	}
	into := t.TempDir()
	if _, err := r.Run(t.Context(), restic.Restore{Snapshot: list[0].ID, Path: src, Target: into}.Args(), nil); err != nil {
		t.Fatal(err)
	}
	if text, err := os.ReadFile(filepath.Join(into, "data [1]*", "b", "c")); err != nil || string(text) != "2" {
		t.Errorf("%q %v", text, err)
	}
	if c, err := r.Check(t.Context(), 1, 1); err != nil || c.Errors != 0 {
		t.Errorf("%+v %v", c, err)
	}
}
