//go:build prove

package s3proxy_test

import (
	"bytes"
	"context"
	"encoding/xml"
	"fmt"
	"math/rand/v2"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"home.arpa/lab/homelab-iac/internal/restic/restictest"
	"home.arpa/lab/homelab-iac/test/lab"
	"home.arpa/lab/homelab-iac/test/lab/s3proxy"
)

// a bench is a repository on real S3 storage with something to back up.
type bench struct {
	t      *testing.T
	store  *lab.Store
	restic string
	repo   string
	source string
}

func newBench(t *testing.T, bucket string) *bench {
	t.Helper()
	restic, err := lab.Tool("restic")
	if err != nil {
		t.Fatal(err)
	}
	l := lab.Start(t, lab.Options{Storage: true})
	b := &bench{t: t, store: l.Store(), restic: restic, repo: l.Store().Repository(bucket, "restic"), source: t.TempDir()}
	content := make([]byte, 3<<20)
	seed := rand.NewChaCha8([32]byte{5})
	for i := range 3 {
		seed.Read(content)
		if err := os.WriteFile(filepath.Join(b.source, fmt.Sprintf("file %d", i)), content, 0o600); err != nil {
			t.Fatal(err)
		}
	}
	for name, text := range restictest.New() {
		if err := b.store.Do(t.Context(), b.store.Backup, http.MethodPut, "/"+bucket+"/restic/"+name, text, nil); err != nil {
			t.Fatal(err)
		}
	}
	return b
}

// run runs restic with a key, at most a minute and a half.
func (b *bench) run(k lab.Key, args ...string) (string, error) {
	b.t.Helper()
	ctx, cancel := context.WithTimeout(b.t.Context(), 90*time.Second)
	defer cancel()
	cmd := exec.CommandContext(ctx, b.restic, append([]string{"--repo", b.repo, "--no-cache"}, args...)...)
	cmd.Env = append(k.Env(), "RESTIC_PASSWORD=correct horse", "PATH="+os.Getenv("PATH"), "HOME="+b.t.TempDir())
	cmd.WaitDelay = 5 * time.Second
	out, err := cmd.CombinedOutput()
	if ctx.Err() != nil {
		err = fmt.Errorf("not finished after 90 s: %w", ctx.Err())
	}
	return string(out), err
}

func (b *bench) ok(k lab.Key, args ...string) string {
	b.t.Helper()
	out, err := b.run(k, args...)
	if err != nil {
		b.t.Fatalf("restic %v: %v\n%s", args, err, out)
	}
	return out
}

// fails runs what must be refused, and returns what restic said.
func (b *bench) fails(k lab.Key, args ...string) string {
	b.t.Helper()
	out, err := b.run(k, args...)
	if err == nil {
		b.t.Errorf("restic %v succeeded with %s\n%s", args, k.ID, out)
	}
	return out
}

func (b *bench) backup(args ...string) {
	b.t.Helper()
	b.ok(b.store.Backup, append([]string{"backup", b.source}, args...)...)
}

// restored fails the test unless the newest snapshot holds what the source holds.
func (b *bench) restored() {
	b.t.Helper()
	target := b.t.TempDir()
	b.ok(b.store.Restore, "--no-lock", "restore", "latest", "--target", target, "--verify")
	if out, err := exec.Command("diff", "-r", b.source, filepath.Join(target, b.source)).CombinedOutput(); err != nil {
		b.t.Errorf("restored is not what was backed up: %v\n%s", err, out)
	}
}

func TestTheBackupKeyCannotTakeAnythingAway(t *testing.T) {
	b := newBench(t, "fast")
	b.backup()
	b.backup("--force")
	for _, args := range [][]string{{"forget", "latest"}, {"forget", "--keep-last", "1", "--prune"}} {
		b.fails(b.store.Backup, args...)
	}
	if n := strings.Count(b.ok(b.store.Restore, "--no-lock", "snapshots", "--compact"), "\n"); n < 4 {
		t.Errorf("snapshots are missing: %d lines", n)
	}
	for _, target := range []string{"/fast/restic/config", "/fast/restic/config?versionId=x"} {
		if err := b.store.Do(t.Context(), b.store.Backup, http.MethodDelete, target, nil, nil); err == nil || !strings.Contains(err.Error(), "AccessDenied") {
			t.Errorf("delete %s with the backup key: %v", target, err)
		}
	}
	many := []byte(`<Delete><Object><Key>restic/locks/a</Key></Object><Object><Key>restic/config</Key></Object></Delete>`)
	if err := b.store.Do(t.Context(), b.store.Backup, http.MethodPost, "/fast?delete=", many, nil); err == nil || !strings.Contains(err.Error(), "AccessDenied") {
		t.Errorf("delete many with the backup key: %v", err)
	}
	b.ok(b.store.Backup, "unlock")
	b.restored()
}

func TestTheRestoreKeyReadsOnly(t *testing.T) {
	b := newBench(t, "fast")
	b.backup()
	b.restored()
	if out := b.fails(b.store.Restore, "backup", b.source); !strings.Contains(out, "may not PutObject") {
		t.Errorf("refused for another reason: %s", out)
	}
}

func TestWhatMaintenanceDeletesStaysAsAnOldVersion(t *testing.T) {
	b := newBench(t, "fast")
	b.backup()
	b.backup("--force")
	b.ok(b.store.Maintenance, "forget", "--keep-last", "1", "--prune")
	b.ok(b.store.Maintenance, "check", "--read-data")
	var list bytes.Buffer
	if err := b.store.Do(t.Context(), b.store.Unlimited, http.MethodGet, "/fast?prefix=restic%2Fsnapshots%2F&versions=", nil, &list); err != nil {
		t.Fatal(err)
	}
	var versions struct {
		Version []struct{ Key, VersionId string }
	}
	if err := xml.Unmarshal(list.Bytes(), &versions); err != nil || len(versions.Version) != 2 {
		t.Fatalf("%d versions of snapshots are kept, want both: %v\n%s", len(versions.Version), err, list.String())
	}
	old := "/fast/" + versions.Version[0].Key + "?versionId=" + versions.Version[0].VersionId
	if err := b.store.Do(t.Context(), b.store.Maintenance, http.MethodDelete, old, nil, nil); err == nil || !strings.Contains(err.Error(), "AccessDenied") {
		t.Errorf("delete an old version with the maintenance key: %v", err)
	}
	if err := b.store.Do(t.Context(), b.store.Unlimited, http.MethodGet, old, nil, nil); err != nil {
		t.Errorf("read an old version: %v", err)
	}
}

func TestASignatureWithTheWrongSecretIsRefusedBehind(t *testing.T) {
	b := newBench(t, "fast")
	wrong := lab.Key{ID: b.store.Unlimited.ID, Secret: b.store.Backup.Secret}
	if err := b.store.Do(t.Context(), wrong, http.MethodGet, "/fast/restic/config", nil, nil); err == nil || !strings.Contains(err.Error(), "SignatureDoesNotMatch") {
		t.Errorf("a wrong secret: %v", err)
	}
	unknown := lab.Key{ID: "nobody", Secret: "x"}
	if err := b.store.Do(t.Context(), unknown, http.MethodGet, "/fast/restic/config", nil, nil); err == nil || !strings.Contains(err.Error(), "InvalidAccessKeyId") {
		t.Errorf("an unknown key: %v", err)
	}
}

func TestPacksOfTheSlowBucketGoToGlacierByTheRule(t *testing.T) {
	b := newBench(t, "slow")
	b.backup()
	cold := 0
	for _, o := range b.store.Proxy.Objects() {
		large := strings.HasPrefix(o.Name, "restic/data/") && o.Bytes > 128<<10
		if o.Asked != s3proxy.Standard || (o.Class == "GLACIER_IR") != large {
			t.Errorf("%s of %d bytes was written as %s and lies in %s", o.Name, o.Bytes, o.Asked, o.Class)
		}
		if large {
			cold++
		}
	}
	if cold == 0 {
		t.Error("nothing went to the cold class")
	}
	b.backup("--force", "-o", "s3.storage-class=GLACIER_IR") // what the rule spares us: it takes locks and indexes along
	var asked []string
	for _, q := range b.store.Proxy.Requests() {
		if q.Class == "GLACIER_IR" {
			asked = append(asked, q.Object)
		}
	}
	if all := strings.Join(asked, " "); !strings.Contains(all, "restic/locks/") || !strings.Contains(all, "restic/snapshots/") {
		t.Errorf("asked for the class on %q; the option takes every object", asked)
	}
}

func TestResticHealsWhatPasses(t *testing.T) {
	b := newBench(t, "fast")
	data := "restic/data/*"
	for _, f := range []s3proxy.Fault{
		{Kind: s3proxy.InternalError, Action: s3proxy.PutObject, Times: 2},
		{Kind: s3proxy.SlowDown, Action: s3proxy.PutObject, Times: 2},
		{Kind: s3proxy.Hang, Action: s3proxy.PutObject, Object: data, Times: 1, Limit: time.Second},
		{Kind: s3proxy.Lost, Action: s3proxy.PutObject, Object: data, Times: 1},
		{Kind: s3proxy.Cut, Action: s3proxy.GetObject, Times: 1},
		{Kind: s3proxy.Drip, Action: s3proxy.GetObject, Object: "restic/config", Speed: 400},
	} {
		t.Run(string(f.Kind), func(t *testing.T) {
			remove, err := b.store.Proxy.Inject(f)
			if err != nil {
				t.Fatal(err)
			}
			defer remove()
			before := len(b.store.Proxy.Requests())
			b.backup("--force", "--tag", string(f.Kind))
			hit := 0
			for _, q := range b.store.Proxy.Requests()[before:] {
				if q.Fault == f.Kind {
					hit++
				}
			}
			if hit == 0 {
				t.Error("the fault never came")
			}
		})
	}
	b.restored()
}

func TestWhatDoesNotPassEndsTheBackup(t *testing.T) {
	b := newBench(t, "fast")
	remove, err := b.store.Proxy.Inject(s3proxy.Fault{Kind: s3proxy.Forbidden, Action: s3proxy.PutObject, Object: "restic/data/*"})
	if err != nil {
		t.Fatal(err)
	}
	b.fails(b.store.Backup, "backup", b.source)
	remove()
	remove, err = b.store.Proxy.Inject(s3proxy.Fault{Kind: s3proxy.Expired})
	if err != nil {
		t.Fatal(err)
	}
	if err := b.store.Do(t.Context(), b.store.Backup, http.MethodGet, "/fast/restic/config", nil, nil); err == nil || !strings.Contains(err.Error(), "ExpiredToken") {
		t.Errorf("an expired key: %v", err)
	}
	remove()
	b.backup()
	b.restored()
}
