// Package ansible runs the playbooks of homelab-iac/ansible. Variables travel in a file that only root reads and that goes with the run,
// never on a command line.
package ansible

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"strconv"
	"strings"
	"syscall"
	"time"
)

// A Runner runs the playbooks of one folder.
type Runner struct {
	Dir   string    // with site.yml; absolute
	Bin   string    // where ansible-playbook is; "" means the PATH
	Out   io.Writer // what Ansible says while it works; nil: nobody hears it
	Limit time.Duration
}

// A Run is one call of ansible-playbook.
type Run struct {
	Playbook    string   // "site.yml"
	Inventories []string // files or folders, later ones win
	Host        string   // the one machine that it is about
	Tags        []string // empty: all
	Vars        any      // extra variables, which win over everything; they may be secret
	VarFiles    []string // more of them, in files of JSON or YAML; Vars win over these
	Args        []string // more flags
}

// A Recap is what Ansible counted for the machine.
type Recap struct{ OK, Changed, Unreachable, Failed int }

// Open finds the playbooks and Ansible: the folder's own setup.sh makes it at its pinned versions; where that is not there, the PATH
// must have it.
func Open(ctx context.Context, dir string, out io.Writer) (Runner, error) {
	dir, err := filepath.Abs(dir)
	if err != nil {
		return Runner{}, err
	}
	r := Runner{Dir: dir, Out: out, Limit: time.Hour}
	if _, err := os.Stat(filepath.Join(dir, "site.yml")); err != nil {
		return r, fmt.Errorf("find playbooks: %w: name the folder homelab-iac/ansible of a checkout", err)
	}
	setup := filepath.Join(dir, "setup.sh")
	if _, err := os.Stat(setup); err == nil {
		ctx, cancel := context.WithTimeout(ctx, 20*time.Minute)
		defer cancel()
		cmd := command(ctx, setup)
		var where bytes.Buffer
		cmd.Stdout, cmd.Stderr = &where, out
		if err := cmd.Run(); err != nil {
			return r, fmt.Errorf("set Ansible up with %s: %w", setup, err)
		}
		r.Bin = strings.TrimSpace(where.String())
		return r, nil
	}
	if _, err := exec.LookPath("ansible-playbook"); err != nil {
		return r, fmt.Errorf("find Ansible: %w: apt-get install ansible", err)
	}
	return r, nil
}

func command(ctx context.Context, name string, args ...string) *exec.Cmd {
	cmd := exec.CommandContext(ctx, name, args...)
	cmd.Cancel = func() error { return cmd.Process.Signal(syscall.SIGTERM) }
	cmd.WaitDelay = 10 * time.Second
	return cmd
}

// volatile is in memory: what a killed run leaves there is gone after a reboot, and never was on a disk.
const volatile = "/run"

// Run runs a playbook on one machine.
func (r Runner) Run(ctx context.Context, p Run) (Recap, error) {
	dir, err := os.MkdirTemp(volatile, "homelab-play-")
	if err != nil {
		dir, err = os.MkdirTemp("", "homelab-play-")
	}
	if err != nil {
		return Recap{}, err
	}
	defer os.RemoveAll(dir)
	vars, err := json.Marshal(p.Vars)
	if err == nil {
		err = os.WriteFile(filepath.Join(dir, "vars.json"), vars, 0o600)
	}
	if err != nil {
		return Recap{}, fmt.Errorf("write variables: %w", err)
	}
	// timeout(1) ends it also when this program is killed.
	argv := []string{"--kill-after=10", strconv.Itoa(int(r.Limit.Seconds())), filepath.Join(r.Bin, "ansible-playbook"), p.Playbook, "--limit", p.Host}
	for _, i := range p.Inventories {
		argv = append(argv, "-i", i)
	}
	for _, f := range p.VarFiles {
		argv = append(argv, "-e", "@"+f)
	}
	argv = append(argv, "-e", "@"+filepath.Join(dir, "vars.json"))
	if len(p.Tags) > 0 {
		argv = append(argv, "--tags", strings.Join(p.Tags, ","))
	}
	ctx, cancel := context.WithTimeout(ctx, r.Limit+time.Minute)
	defer cancel()
	cmd := command(ctx, "timeout", append(argv, p.Args...)...)
	cmd.Dir = r.Dir
	cmd.Env = append(os.Environ(), "ANSIBLE_NOCOLOR=1", "PATH="+r.Bin+":"+os.Getenv("PATH"))
	var all bytes.Buffer
	cmd.Stdout, cmd.Stderr = &all, &all
	if r.Out != nil {
		both := io.MultiWriter(&all, r.Out)
		cmd.Stdout, cmd.Stderr = both, both
	}
	err = cmd.Run()
	recap, counted := ReadRecap(all.String(), p.Host)
	switch {
	case ctx.Err() != nil:
		return recap, fmt.Errorf("run %s: %w", p.Playbook, ctx.Err())
	case err != nil:
		return recap, fmt.Errorf("run %s: %w: %s", p.Playbook, err, Fault(all.String()))
	case !counted:
		return recap, fmt.Errorf("run %s: it did nothing on %s: is the machine in the inventory?", p.Playbook, p.Host)
	}
	return recap, nil
}

var recapForm = regexp.MustCompile(`(?m)^(\S+)\s+: ok=(\d+)\s+changed=(\d+)\s+unreachable=(\d+)\s+failed=(\d+)`)

// ReadRecap reads what Ansible counted for a machine; ok is false where it did not get so far. Pure.
func ReadRecap(said, host string) (r Recap, ok bool) {
	for _, m := range recapForm.FindAllStringSubmatch(said, -1) {
		if m[1] != host {
			continue
		}
		var n [4]int
		var errs error
		for i := range n {
			var err error
			n[i], err = strconv.Atoi(m[i+2])
			errs = errors.Join(errs, err)
		}
		return Recap{n[0], n[1], n[2], n[3]}, errs == nil
	}
	return Recap{}, false
}

// Fault is what Ansible said about what went wrong: the task, and the first words after the error. Pure.
func Fault(said string) string {
	task, lines := "", strings.Split(said, "\n")
	for i, line := range lines {
		if strings.HasPrefix(line, "TASK [") {
			task = strings.TrimRight(line, " *")
		}
		if strings.HasPrefix(line, "fatal: ") || strings.HasPrefix(line, "[ERROR]: ") || strings.HasPrefix(line, "ERROR! ") {
			words := strings.Join(lines[i:min(len(lines), i+14)], " ")
			return strings.TrimSpace(task + " " + strings.Join(strings.Fields(words[:min(len(words), 900)]), " "))
		}
	}
	tail := strings.Join(strings.Fields(said), " ")
	return tail[max(0, len(tail)-400):]
}
