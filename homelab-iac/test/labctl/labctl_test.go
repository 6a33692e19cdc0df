//go:build prove

package main

import (
	"bytes"
	"context"
	"encoding/json"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"syscall"
	"testing"
	"time"

	"home.arpa/lab/homelab-iac/test/lab"
)

// labctl runs the command and returns what it wrote to standard output.
func labctl(t *testing.T, args ...string) (string, error) {
	t.Helper()
	ctx, cancel := context.WithTimeout(t.Context(), 5*time.Minute)
	defer cancel()
	cmd := exec.CommandContext(ctx, filepath.Join(os.Getenv("LABCTL_DIR"), "labctl"), args...)
	cmd.WaitDelay = 5 * time.Second
	var out, said bytes.Buffer
	cmd.Stdout, cmd.Stderr = &out, &said
	err := cmd.Run()
	if err != nil {
		t.Logf("labctl %v: %v: %s", args, err, said.String())
	}
	return out.String(), err
}

func TestALabStaysUntilItIsToldToGo(t *testing.T) {
	lab.Start(t, lab.Options{}) // the image is there, or this test says why not
	if lab.Owner(dir(), slot) != 0 {
		t.Fatal("a lab is running, which this test would end: make lab-down")
	}
	t.Setenv("LABCTL_DIR", t.TempDir())
	if out, err := exec.Command("go", "build", "-o", os.Getenv("LABCTL_DIR")+"/labctl", ".").CombinedOutput(); err != nil {
		t.Fatalf("%v: %s", err, out)
	}
	defer labctl(t, "down")
	first, err := labctl(t, "up", "--machines", "alpha", "--json")
	var s lab.State
	if err != nil || json.Unmarshal([]byte(first), &s) != nil || s.Machines["alpha"] == "" || s.Storage.Endpoint == "" {
		t.Fatalf("up said %q: %v", first, err)
	}
	if out, err := labctl(t, "ssh", "alpha", "hostname"); err != nil || out != "alpha\n" {
		t.Errorf("ssh said %q: %v", out, err)
	}
	if _, err := labctl(t, "ssh", "alpha", "exit 7"); err == nil || !strings.Contains(err.Error(), "7") {
		t.Errorf("ssh ended with %v, want the command's own exit code", err)
	}
	if again, err := labctl(t, "up", "--json"); err != nil || again != first {
		t.Errorf("a second up started another: %v", err)
	}
	if _, err := labctl(t, "fault", "503", "--times", "1"); err != nil {
		t.Error(err)
	}
	if _, err := labctl(t, "fault", "418"); err == nil {
		t.Error("a fault that nobody knows was accepted")
	}
	if _, err := labctl(t, "heal"); err != nil {
		t.Error(err)
	}
	// Killed, it leaves something, which down takes away.
	syscall.Kill(s.PID, syscall.SIGKILL)
	if _, err := labctl(t, "down"); err != nil {
		t.Error(err)
	}
	if table, _ := os.ReadFile("/proc/self/mountinfo"); strings.Contains(string(table), s.Dir+"/") {
		t.Error("something is still mounted")
	}
	if _, err := os.Stat(s.Dir); !os.IsNotExist(err) {
		t.Error("its folder is still there")
	}
	if _, err := labctl(t, "status"); err == nil {
		t.Error("status says that a lab runs")
	}
}
