//go:build prove

// Each restic costs half a second of key derivation, so all but one of the tests with a real one are proofs.

package restic_test

import (
	"context"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"home.arpa/lab/homelab-iac/internal/restic"
	"home.arpa/lab/homelab-iac/internal/restic/restictest"
)

func TestEveryExitCodeHasItsMeaning(t *testing.T) {
	t.Parallel()
	r := restictest.Repo(t)
	if there, err := r.Exists(t.Context()); there || err != nil {
		t.Fatalf("no repository: %v %v", there, err)
	}
	src := t.TempDir()
	restictest.Write(t, src, map[string]string{"a": "1"})
	wants := func(err error, code int, words string) {
		t.Helper()
		if restic.CodeOf(err) != code || !strings.Contains(err.Error(), words) {
			t.Errorf("code %d, want %d with %q: %v", restic.CodeOf(err), code, words, err)
		}
	}
	one := restic.Backup{Host: "h", Paths: []string{src}}
	_, err := r.Backup(t.Context(), one, nil)
	wants(err, restic.CodeNoRepo, "homelab backup init")
	if err := r.Init(t.Context()); err != nil {
		t.Fatal(err)
	}
	wrong := r
	wrong.PasswordFile = filepath.Join(src, "a")
	_, err = wrong.Backup(t.Context(), one, nil)
	wants(err, restic.CodePassword, "break-glass kit")

	part := one
	part.Paths = []string{src, filepath.Join(src, "missing")}
	sum, err := r.Backup(t.Context(), part, nil)
	wants(err, restic.CodePartial, "missing")
	if sum.Snapshot == "" {
		t.Error("a partial backup has a snapshot, and it was not named")
	}
	_, err = r.Run(t.Context(), []string{"restore", "nonsense", "--target", t.TempDir()}, nil)
	wants(err, restic.CodeFailed, "nonsense")

	ctx, cancel := context.WithTimeout(t.Context(), 50*time.Millisecond)
	defer cancel()
	_, err = r.Backup(ctx, one, nil)
	wants(err, restic.CodeCancelled, "deadline")
	none := r
	none.Binary = filepath.Join(src, "no-restic")
	if _, err = none.Backup(t.Context(), one, nil); err == nil || !strings.Contains(err.Error(), "role restic") {
		t.Error(err)
	}
}

// holder starts a backup that waits for its standard input, and so keeps its lock.
func holder(t *testing.T, r restic.Repo) *exec.Cmd {
	t.Helper()
	cmd := exec.Command(r.Binary, "backup", "--stdin", "--stdin-filename", "x")
	cmd.Env = append(os.Environ(), r.Environ()...)
	in, err := cmd.StdinPipe()
	if err != nil {
		t.Fatal(err)
	}
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { in.Close(); cmd.Process.Kill(); cmd.Wait() })
	for end := time.Now().Add(30 * time.Second); ; time.Sleep(20 * time.Millisecond) {
		if locks, _ := filepath.Glob(r.URL + "/locks/*"); len(locks) > 0 {
			return cmd
		}
		if time.Now().After(end) {
			t.Fatal("restic took no lock in 30 s")
		}
	}
}

func TestALivingLockIsLeftAloneAndADeadOneIsRemoved(t *testing.T) {
	t.Parallel()
	r := restictest.Inited(t)
	cmd := holder(t, r)
	prune := func() error { _, err := r.Run(t.Context(), restic.PruneArgs(false), nil); return err }
	var said []string
	say := func(s string) { said = append(said, s) }
	err := r.Past(t.Context(), restic.Patience, say, prune)
	if restic.CodeOf(err) != restic.CodeLocked || !strings.Contains(err.Error(), "may be alive") {
		t.Fatalf("a lock of this minute: %v", err)
	}
	if locks, err := r.Locks(t.Context()); err != nil || len(locks) != 1 || locks[0].PID != cmd.Process.Pid {
		t.Fatalf("%v %v", locks, err)
	}
	// restic judges for itself, too: it sees that the process lives, and unlock leaves the lock where it is.
	err = r.Past(t.Context(), restic.LockPolicy{}, say, prune)
	if restic.CodeOf(err) != restic.CodeLocked {
		t.Fatalf("a living process: %v", err)
	}
	cmd.Process.Kill()
	cmd.Wait()
	if err := r.Past(t.Context(), restic.LockPolicy{Watch: 10 * time.Millisecond}, say, prune); err != nil {
		t.Fatalf("a lock left by a dead process: %v (said %q)", err, said)
	}
	if locks, _ := r.Locks(t.Context()); len(locks) != 0 {
		t.Errorf("still locked: %v", locks)
	}
}

func TestWhatForgetWouldDoIsReadBack(t *testing.T) {
	t.Parallel()
	r := restictest.Inited(t)
	src := t.TempDir()
	restictest.Write(t, src, map[string]string{"a": "1"})
	for d := range 3 {
		b := restic.Backup{Host: "h", Tags: []string{"svc:x"}, Paths: []string{src}, Time: time.Now().AddDate(0, 0, -d)}
		if _, err := r.Backup(t.Context(), b, nil); err != nil {
			t.Fatal(err)
		}
	}
	groups, err := r.WouldForget(t.Context(), restic.Policy{Daily: 2}, "svc:x")
	if err != nil || len(groups) != 1 || len(groups[0].Keep) != 2 || len(groups[0].Remove) != 1 {
		t.Fatalf("%+v %v", groups, err)
	}
	if _, err := r.Run(t.Context(), restic.ForgetArgs([]string{groups[0].Remove[0].ID}), nil); err != nil {
		t.Fatal(err)
	}
	if list, _ := r.Snapshots(t.Context()); len(list) != 2 {
		t.Errorf("%d left", len(list))
	}
	if err := r.Tag(t.Context(), groups[0].Keep[0].ID, restic.Partial); err != nil {
		t.Fatal(err)
	}
	if list, _ := r.Snapshots(t.Context()); len(restic.Good(list)) != 1 {
		t.Errorf("good: %+v", restic.Good(list))
	}
}
