//go:build prove

package lab_test

import (
	"bufio"
	"context"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"syscall"
	"testing"
	"time"

	"home.arpa/lab/homelab-iac/test/lab"
)

// owned is set in the process that TestALabWhoseProcessIsKilledIsRemoved starts and kills.
const owned = "HOMELAB_LAB_TEST_OWNER"

func TestMain(m *testing.M) {
	if os.Getenv(owned) != "" {
		l, err := lab.Open(context.Background(), lab.Options{Machines: []string{"alpha"}, Storage: true})
		if err != nil {
			fmt.Println("error:", err)
			os.Exit(1)
		}
		fmt.Println("open", l.Dir())
		select {} // until it is killed
	}
	os.Exit(m.Run())
}

func run(t *testing.T, m *lab.Machine, script string) string {
	t.Helper()
	ctx, cancel := context.WithTimeout(t.Context(), 2*time.Minute)
	defer cancel()
	out, err := m.Run(ctx, script)
	if err != nil {
		t.Fatal(err)
	}
	return strings.TrimSpace(out)
}

func TestMachinesAreCleanAndApart(t *testing.T) {
	l := lab.Start(t, lab.Options{Machines: []string{"alpha", "beta"}})
	alpha, beta := l.Machine("alpha"), l.Machine("beta")
	if got := run(t, alpha, "systemctl is-system-running --wait"); got != "running" {
		t.Errorf("the system is %s: %s", got, run(t, alpha, "systemctl --failed"))
	}
	if got := run(t, alpha, "ip route show default"); got != "" {
		t.Errorf("there is a way out: %s", got)
	}
	run(t, alpha, "timeout 5 bash -c 'exec 3<>/dev/tcp/"+beta.Addr+"/22; head -c 4 <&3'") // they reach each other
	run(t, alpha, "echo mine >/root/mark; systemctl restart ssh")
	if got := run(t, beta, "ls /root/mark 2>/dev/null || echo none; cat /etc/machine-id"); !strings.HasPrefix(got, "none") || strings.HasSuffix(got, run(t, alpha, "cat /etc/machine-id")) {
		t.Errorf("beta is not a machine of its own: %s", got)
	}
	run(t, alpha, "apt-get update -qq && apt-get install -y -qq --no-install-recommends attr >/dev/null && command -v setfattr")

	odd := filepath.Join(t.TempDir(), "odd")
	if err := os.MkdirAll(filepath.Join(odd, "a b"), 0o750); err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(filepath.Join(odd, "a b", "ü\n"), []byte("x"), 0o640); err != nil {
		t.Fatal(err)
	}
	if err := os.Lchown(filepath.Join(odd, "a b"), 4711, 4712); err != nil {
		t.Fatal(err)
	}
	if err := alpha.Put(t.Context(), odd, "/srv/other name"); err != nil {
		t.Fatal(err)
	}
	if got := run(t, alpha, `stat -c "%u %g %a" "/srv/other name/a b"; cat "/srv/other name/a b/"*`); got != "4711 4712 750\nx" {
		t.Errorf("copied as %q", got)
	}
}

func TestAMachineSurvivesRebootsAndPowerCuts(t *testing.T) {
	l := lab.Start(t, lab.Options{Machines: []string{"alpha"}})
	m := l.Machine("alpha")
	ctx, cancel := context.WithTimeout(t.Context(), 5*time.Minute)
	defer cancel()
	boot := run(t, m, "echo stays >/root/mark; sync; cat /proc/sys/kernel/random/boot_id /proc/1/stat | cut -d' ' -f22")
	m.Run(ctx, "systemctl reboot") // the connection ends with it
	for run := ""; run == "" || run == boot; {
		if ctx.Err() != nil {
			t.Fatal("it did not come back")
		}
		run, _ = m.Run(ctx, "cat /proc/sys/kernel/random/boot_id /proc/1/stat | cut -d' ' -f22")
		run = strings.TrimSpace(run)
	}
	m.Cut()
	if err := m.Boot(ctx); err != nil {
		t.Fatal(err)
	}
	if got := run(t, m, "cat /root/mark"); got != "stays" {
		t.Errorf("the disk lost %q", got)
	}
	began := time.Now()
	if err := m.Remove(); err != nil {
		t.Fatal(err)
	}
	if took := time.Since(began); took > time.Minute {
		t.Errorf("throwing it away took %s", took)
	}
	if _, err := l.Add(ctx, "alpha"); err != nil {
		t.Fatal(err)
	}
	if got := run(t, l.Machine("alpha"), "ls /root/mark 2>/dev/null || echo clean"); got != "clean" {
		t.Errorf("the new machine is not clean: %s", got)
	}
}

func TestALabWhoseProcessIsKilledIsRemoved(t *testing.T) {
	lab.Start(t, lab.Options{}) // the image is there, or this test says why not
	self, err := os.Executable()
	if err != nil {
		t.Fatal(err)
	}
	dir := t.TempDir()
	cmd := exec.Command(self)
	cmd.Env = append(os.Environ(), owned+"=1", "HOMELAB_LAB_DIR="+dir)
	cmd.Stderr = os.Stderr
	out, err := cmd.StdoutPipe()
	if err != nil {
		t.Fatal(err)
	}
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	defer cmd.Wait()
	timer := time.AfterFunc(2*time.Minute, func() { cmd.Process.Kill() })
	defer timer.Stop()
	line, err := bufio.NewReader(out).ReadString('\n')
	at, ok := strings.CutPrefix(strings.TrimSpace(line), "open ")
	if !ok {
		cmd.Process.Kill()
		t.Fatalf("the lab did not start: %q %v", line, err)
	}
	if mounted(dir) == "" {
		t.Fatal("nothing is mounted: this test proves nothing")
	}
	cmd.Process.Signal(syscall.SIGKILL)
	cmd.Wait()

	emptied, err := lab.Sweep(dir)
	if err != nil || len(emptied) != 1 {
		t.Errorf("emptied %v: %v", emptied, err)
	}
	if left := mounted(dir); left != "" {
		t.Errorf("still mounted:\n%s", left)
	}
	if _, err := os.Stat(at); !os.IsNotExist(err) {
		t.Errorf("the folder %s is still there", at)
	}
	if out, err := exec.Command("ip", "link", "show", "hlab"+filepath.Base(at)).CombinedOutput(); err == nil {
		t.Errorf("its interface is still there: %s", out)
	}
	processes, _ := filepath.Glob("/proc/[0-9]*/cmdline")
	for _, p := range processes {
		if b, _ := os.ReadFile(p); strings.Contains(string(b), dir) {
			t.Errorf("still running: %q", b)
		}
	}
}

// mounted returns the lines of the mount table that lie below a folder.
func mounted(dir string) string {
	table, _ := os.ReadFile("/proc/self/mountinfo")
	var found []string
	for line := range strings.Lines(string(table)) {
		if strings.Contains(line, " "+dir+"/") {
			found = append(found, line)
		}
	}
	return strings.Join(found, "")
}
