package online

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
	"strings"
	"syscall"
	"time"

	"home.arpa/lab/homelab-iac/test/lab"
)

// Hosts are the machines of the example deployment that the lab has.
var Hosts = []string{"contabo", "dev-learning", "prod-services"}

// Policy is what the lab's tailnet allows: the rules between machines that terraform/modules/tailnet writes for the real one, in headscale's words.
const Policy = `{
	"tagOwners": {"tag:control": ["lab@"], "tag:services": ["lab@"], "tag:learning": ["lab@"]},
	"acls": [
		{"action": "accept", "src": ["tag:control"], "dst": ["tag:services:8888,3002,3001"]},
		{"action": "accept", "src": ["tag:learning"], "dst": ["tag:services:3001"]},
		{"action": "accept", "src": ["tag:control"], "dst": ["tag:services:443"]},
		{"action": "accept", "src": ["tag:learning"], "dst": ["tag:control:443"]},
		{"action": "accept", "src": ["tag:learning"], "dst": ["tag:control:9100", "tag:services:9100"]},
		{"action": "accept", "src": ["tag:control", "tag:services"], "proto": "tcp", "dst": ["tag:services:22000"]},
		{"action": "accept", "src": ["tag:control"], "dst": ["tag:learning:22"]},
	],
}`

// A Play runs playbooks against the lab, with the example's inventory and what the lab has instead of the real world.
type Play struct {
	Root  string // of the repository
	State string // the lab's state.json
	Env   []string
	Out   io.Writer // is told what Ansible writes
}

// NewPlay finds Ansible. env is what the play gets besides the environment.
func NewPlay(ctx context.Context, root, state string, out io.Writer, env ...string) (*Play, error) {
	bin, err := exec.CommandContext(ctx, filepath.Join(root, "homelab-iac/ansible/setup.sh")).Output()
	if err != nil {
		return nil, fmt.Errorf("set Ansible up: %w", err)
	}
	p := &Play{Root: root, State: state, Out: out}
	p.Env = append(os.Environ(), append(env, "HOMELAB_LAB_STATE="+state, "ANSIBLE_NOCOLOR=1", "ANSIBLE_FORCE_COLOR=0", "ANSIBLE_CALLBACKS_ENABLED=ansible.posix.profile_tasks",
		"PATH="+strings.TrimSpace(string(bin))+":"+os.Getenv("PATH"))...)
	return p, nil
}

var recap = regexp.MustCompile(`(?m)^(\S+)\s+: ok=(\d+)\s+changed=(\d+)\s+unreachable=(\d+)\s+failed=(\d+)`)

// Run runs a playbook and returns how many tasks changed something on each machine.
func (p *Play) Run(ctx context.Context, playbook string, args ...string) (changed map[string]string, err error) {
	argv := append([]string{"-i", "inventory/example", "-i", "inventory/zero", "--limit", strings.Join(Hosts, ","), playbook}, args...)
	cmd := exec.CommandContext(ctx, "ansible-playbook", argv...)
	for _, e := range p.Env {
		if path, ok := strings.CutPrefix(e, "PATH="); ok {
			cmd.Path = filepath.Join(strings.SplitN(path, ":", 2)[0], "ansible-playbook")
			cmd.Err = nil
		}
	}
	var all bytes.Buffer
	cmd.Dir, cmd.Env, cmd.WaitDelay = filepath.Join(p.Root, "homelab-iac/ansible"), p.Env, 10*time.Second
	cmd.Stdout, cmd.Stderr = io.MultiWriter(&all, p.Out), io.MultiWriter(&all, p.Out)
	cmd.SysProcAttr = &syscall.SysProcAttr{Pdeathsig: syscall.SIGKILL} // it ends when this process is killed
	cmd.Cancel = func() error { return cmd.Process.Signal(syscall.SIGTERM) }
	err = cmd.Run()
	changed = map[string]string{}
	for _, m := range recap.FindAllStringSubmatch(all.String(), -1) {
		changed[m[1]] = m[3]
	}
	if err != nil {
		return changed, fmt.Errorf("%s %v: %w", playbook, args, err)
	}
	return changed, nil
}

// ReadState reads what a running lab wrote of itself.
func ReadState(file string) (lab.State, error) {
	var s lab.State
	text, err := os.ReadFile(file)
	if err == nil {
		err = json.Unmarshal(text, &s)
	}
	return s, err
}

// On runs a script as root on a machine of the lab and returns what it printed. The error holds what it wrote to the other.
func On(ctx context.Context, s lab.State, machine, script string) (string, error) {
	cmd := exec.CommandContext(ctx, "ssh", "-F", s.SSHConfig, machine, "bash -eu -o pipefail -s")
	cmd.WaitDelay = 5 * time.Second
	var out, said bytes.Buffer
	cmd.Stdin, cmd.Stdout, cmd.Stderr = strings.NewReader(script), &out, &said
	if err := cmd.Run(); err != nil {
		return out.String(), fmt.Errorf("run on %s: %w: %s", machine, errors.Join(err, context.Cause(ctx)), strings.TrimSpace(said.String()))
	}
	return strings.TrimSpace(out.String()), nil
}
