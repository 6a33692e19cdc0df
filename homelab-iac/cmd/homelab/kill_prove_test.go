//go:build prove

package main

import (
	"os"
	"os/exec"
	"strings"
	"syscall"
	"testing"
	"time"

	"home.arpa/lab/homelab-iac/internal/restic/restictest"
	"home.arpa/lab/homelab-iac/internal/tree"
)

// TestARestoreKilledAnywhereIsHealedByTheNext kills the whole process group, as systemd would, at each command that a restore runs,
// and before and after each of the two renames of a swap.
func TestARestoreKilledAnywhereIsHealedByTheNext(t *testing.T) {
	t.Parallel()
	h := newHousehold(t)
	notes := h.dir + "/notes"
	restictest.Fill(t, h.repo.URL)
	h.does(0, "1 of 1 services safe", "backup", "run", "fast")
	was := measure(t, notes)
	// Commands of the plan find these first. Each counts its calls and stops at the one that is named in a file.
	bin := h.dir + "/bin"
	if err := os.Mkdir(bin, 0o755); err != nil {
		t.Fatal(err)
	}
	for _, name := range []string{"restic", "mv", "rmdir", "find"} {
		real, err := exec.LookPath(name)
		if name == "restic" {
			real, err = h.repo.Binary, nil
		}
		if err != nil {
			t.Fatal(err)
		}
		script := "#!/bin/sh\nn=$(cat " + h.dir + "/calls-" + name + " 2>/dev/null || echo 0); n=$((n+1)); echo $n >" + h.dir + "/calls-" + name + "\n" +
			"stop=$(cat " + h.dir + "/stop 2>/dev/null)\n" +
			"[ \"$stop\" = \"before " + name + " $n\" ] && { touch " + h.dir + "/reached; exec sleep 60; }\n" +
			real + ` "$@" || exit $?` + "\n" +
			"[ \"$stop\" = \"after " + name + " $n\" ] && { touch " + h.dir + "/reached; exec sleep 60; }\nexit 0\n"
		if err := os.WriteFile(bin+"/"+name, []byte(script), 0o755); err != nil {
			t.Fatal(err)
		}
	}
	text, err := os.ReadFile(h.config)
	if err != nil {
		t.Fatal(err)
	}
	config := strings.Replace(string(text), "restic: "+h.repo.Binary, "restic: "+bin+"/restic", 1)
	if err := os.WriteFile(h.dir+"/killed.yaml", []byte(config), 0o600); err != nil {
		t.Fatal(err)
	}
	// The first restic looks for the snapshot, the second brings it.
	for _, stop := range []string{"before restic 1", "before restic 2", "after restic 2", "before mv 1", "after mv 1", "before mv 2", "after mv 2", "before rmdir 1", "before find 1"} {
		t.Run(stop, func(t *testing.T) {
			for _, name := range []string{"calls-restic", "calls-mv", "calls-rmdir", "calls-find", "reached"} {
				os.Remove(h.dir + "/" + name)
			}
			os.WriteFile(h.dir+"/stop", []byte(stop), 0o600)
			cmd := exec.Command(os.Args[0], "restore", "run", "--tags", "vault", "--yes", "--config", h.dir+"/killed.yaml")
			cmd.Env = append(os.Environ(), "HOMELAB_TEST_REMOTE=1", "PATH="+bin+":"+os.Getenv("PATH"))
			cmd.SysProcAttr = &syscall.SysProcAttr{Setpgid: true}
			if err := cmd.Start(); err != nil {
				t.Fatal(err)
			}
			defer func() { syscall.Kill(-cmd.Process.Pid, syscall.SIGKILL); cmd.Wait() }()
			for end := time.Now().Add(30 * time.Second); ; time.Sleep(20 * time.Millisecond) {
				if _, err := os.Stat(h.dir + "/reached"); err == nil {
					break
				} else if time.Now().After(end) {
					t.Fatal("the restore did not get there in 30 s")
				}
			}
			syscall.Kill(-cmd.Process.Pid, syscall.SIGKILL)
			cmd.Wait()
			os.Remove(h.dir + "/stop")
			h.t = t
			if is, err := tree.Measure(notes, func(rel string) bool { return rel == "cache" }); err == nil && len(tree.Diff(was, is)) > 0 {
				t.Errorf("what stands there is neither the old nor the new: %v", tree.Diff(was, is))
			}
			h.does(0, "green", "restore", "run", "--tags", "vault", "--yes")
			h.same(was, notes)
		})
	}
}
