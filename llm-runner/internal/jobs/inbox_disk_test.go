//go:build prove && linux

package jobs

import (
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"syscall"
	"testing"

	"golang.org/x/sys/unix"
)

// TestTheVaultsDiskMayBeFullReadOnlyOrAway runs itself again in namespaces of its own, where it may mount a small disk.
func TestTheVaultsDiskMayBeFullReadOnlyOrAway(t *testing.T) {
	if os.Getenv("JOBS_MOUNT") == "" {
		again := exec.CommandContext(t.Context(), os.Args[0], "-test.run=^"+t.Name()+"$", "-test.v", "-test.timeout=60s")
		again.Env = append(os.Environ(), "JOBS_MOUNT=1")
		again.SysProcAttr = &syscall.SysProcAttr{Cloneflags: syscall.CLONE_NEWUSER | syscall.CLONE_NEWNS, Pdeathsig: syscall.SIGKILL,
			UidMappings: []syscall.SysProcIDMap{{HostID: os.Getuid(), Size: 1}}, GidMappings: []syscall.SysProcIDMap{{HostID: os.Getgid(), Size: 1}}}
		out, err := again.CombinedOutput()
		if err != nil && len(out) == 0 {
			t.Skipf("this machine lends no namespaces: %v", err)
		}
		if err != nil || !strings.Contains(string(out), "--- PASS: "+t.Name()) {
			t.Fatalf("%v\n%s", err, out)
		}
		return
	}
	mount := func(dir string, flags uintptr) {
		t.Helper()
		if err := unix.Mount("disk", dir, "tmpfs", flags, "size=256k"); err != nil {
			t.Fatal(err)
		}
	}
	b := newBox(t, echo)
	mount(b.dir, 0)
	t.Cleanup(func() { unix.Unmount(b.dir, unix.MNT_DETACH) })
	b.restart()
	b.pass()
	fails := func(want string) {
		t.Helper()
		if err := b.try(); err == nil || !strings.Contains(err.Error(), want) {
			t.Errorf("%v, not %q", err, want)
		}
	}

	b.write("_queue/a.md", "x")
	b.settle()
	full, err := os.Create(filepath.Join(b.dir, "full"))
	if err != nil {
		t.Fatal(err)
	}
	for page := make([]byte, 4096); err == nil; {
		_, err = full.Write(page)
	}
	full.Close()
	reach(t, b.s, 1, Done)
	fails("no space left on device: make room on the disk of the vault")
	b.has("_active/a.md", "full")
	if err := os.Remove(full.Name()); err != nil {
		t.Fatal(err)
	}
	j := b.end(1)
	b.has("_completed/a.md", j.Note)

	b.write("_queue/b.md", "y")
	b.pass()
	b.now = b.now.Add(settled)
	mount(b.dir, unix.MS_REMOUNT|unix.MS_RDONLY)
	fails("read-only file system: this user has to be able to write")
	mount(b.dir, unix.MS_REMOUNT)
	b.pass()

	reach(t, b.s, 2, Done)
	elsewhere := t.TempDir()
	if err := unix.Mount(b.dir, elsewhere, "", unix.MS_MOVE, ""); err != nil {
		t.Fatal(err)
	}
	fails("is the vault mounted?")
	b.has() // nothing goes into the folder that it was mounted on, though that looks like a vault
	if err := unix.Mount(elsewhere, b.dir, "", unix.MS_MOVE, ""); err != nil {
		t.Fatal(err)
	}
	two := b.end(2)
	b.has(append([]string{"_completed/a.md", "_completed/b.md"}, sorted(j.Note, two.Note)...)...)
}
