package lab

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"sync"
	"syscall"
	"time"
)

// A Machine is a Debian system that booted from the lab's image. What it writes lies in an overlay and goes with it.
type Machine struct {
	Name string
	Addr string // its address in the lab's network

	lab     *Lab
	dir     string
	hostKey string // "ssh-ed25519 ...", known before it boots, so nobody has to trust the first answer

	mu   sync.Mutex
	off  context.CancelFunc // nil while it is off
	done chan struct{}      // closed when nothing of it runs any more
}

func (m *Machine) root() string { return filepath.Join(m.dir, "root") }

// Console is the file with what the machine prints while it boots.
func (m *Machine) Console() string { return filepath.Join(m.dir, "console.log") }

// make puts the overlay, the keys and the network in place, and boots.
func (m *Machine) make(ctx context.Context) error {
	began := time.Now()
	for _, d := range []string{"upper", "work", "root", "docker"} {
		if err := os.MkdirAll(filepath.Join(m.dir, d), 0o755); err != nil {
			return fmt.Errorf("make machine %s: %w", m.Name, err)
		}
	}
	// volatile: nothing is synced to disk, since nothing of it has to survive this machine.
	layers := fmt.Sprintf("lowerdir=%s,upperdir=%s/upper,workdir=%s/work,volatile", m.lab.image, m.dir, m.dir)
	if err := syscall.Mount("overlay", m.root(), "overlay", 0, layers); err != nil {
		return fmt.Errorf("mount the overlay of machine %s below %s: %w: it needs a file system that can hold one, such as ext4; HOMELAB_LAB_DIR names another folder", m.Name, m.dir, err)
	}
	if err := m.furnish(ctx); err != nil {
		return fmt.Errorf("prepare machine %s: %w", m.Name, err)
	}
	if err := m.lab.slot.plug(ctx, m.Name, m.Addr); err != nil {
		return fmt.Errorf("plug machine %s in: %w", m.Name, err)
	}
	if err := m.lab.writeConfig(); err != nil {
		return err
	}
	if err := m.Boot(ctx); err != nil {
		return err
	}
	m.lab.options.Log(fmt.Sprintf("machine %s answers at %s after %.1f s", m.Name, m.Addr, time.Since(began).Seconds()))
	return nil
}

// furnish writes what a hosting provider's cloud-init would: name, keys, and where packages come from.
func (m *Machine) furnish(ctx context.Context) error {
	key := filepath.Join(m.dir, "hostkey")
	if _, err := run(ctx, "ssh-keygen", "-q", "-t", "ed25519", "-N", "", "-C", m.Name, "-f", key); err != nil {
		return err
	}
	private, err1 := os.ReadFile(key)
	public, err2 := os.ReadFile(key + ".pub")
	opener, err3 := os.ReadFile(filepath.Join(m.lab.dir, "ssh", "key.pub"))
	if err := errors.Join(err1, err2, err3); err != nil {
		return err
	}
	m.hostKey = strings.TrimSpace(string(public))
	files := []struct {
		name, text string
		mode       os.FileMode
	}{
		{"etc/hostname", m.Name + "\n", 0o644},
		{"etc/hosts", fmt.Sprintf("127.0.0.1 localhost\n127.0.1.1 %s\n::1 localhost\n%s lab\n", m.Name, m.lab.slot.gateway()), 0o644},
		{"etc/machine-id", "", 0o444}, // empty: systemd makes one at boot
		{"etc/resolv.conf", "", 0o644},
		{"etc/ssh/ssh_host_ed25519_key", string(private), 0o600},
		{"etc/ssh/ssh_host_ed25519_key.pub", string(public), 0o644},
		{"etc/apt/apt.conf.d/90lab", fmt.Sprintf("Acquire::http::Proxy %q;\nAcquire::Languages \"none\";\n", m.lab.Mirror()), 0o644},
		{"root/.ssh/authorized_keys", string(opener), 0o600},
	}
	if err := os.MkdirAll(filepath.Join(m.root(), "root/.ssh"), 0o700); err != nil {
		return err
	}
	for _, f := range files {
		at := filepath.Join(m.root(), f.name)
		os.Remove(at) // resolv.conf may be a link that leads out of the root
		if err := os.WriteFile(at, []byte(f.text), f.mode); err != nil {
			return err
		}
	}
	if err := m.lab.tailnet.furnish(ctx, m.root()); err != nil {
		return err
	}
	// There are no lists of packages in the image. Their folder is as old as that says, or Ansible takes it for fresh.
	return os.Chtimes(filepath.Join(m.root(), "var/lib/apt/lists"), time.Unix(0, 0), time.Unix(0, 0))
}

// rebooting is how systemd-nspawn ends when the system inside asked for a reboot.
const rebooting = 133

// Boot starts a machine that is off, and returns when it answers over SSH.
func (m *Machine) Boot(ctx context.Context) error {
	m.mu.Lock()
	if m.off != nil {
		m.mu.Unlock()
		return fmt.Errorf("boot machine %s: it is on", m.Name)
	}
	life, off := context.WithCancel(context.Background())
	m.off, m.done = off, make(chan struct{})
	done := m.done
	m.mu.Unlock()
	go func() {
		defer close(done)
		m.live(life)
	}()
	return m.answers(ctx)
}

// live keeps the machine running, over its own reboots, until it powers itself off or life ends.
func (m *Machine) live(life context.Context) {
	console, err := os.OpenFile(m.Console(), os.O_APPEND|os.O_CREATE|os.O_WRONLY, 0o600)
	if err != nil {
		m.lab.options.Log(fmt.Sprintf("machine %s has no console: %v", m.Name, err))
		return
	}
	defer console.Close()
	for {
		cmd, err := m.command()
		if err != nil {
			fmt.Fprintln(console, err)
			return
		}
		// The first makes the machine see cgroup v2 also where the host has both; the second lets it set what lies in /proc/sys/net.
		cmd.Env = append(os.Environ(), "SYSTEMD_NSPAWN_UNIFIED_HIERARCHY=1", "SYSTEMD_NSPAWN_API_VFS_WRITABLE=network")
		cmd.Stdout, cmd.Stderr = console, console
		if err = m.lab.proc.spawn(cmd); err != nil {
			fmt.Fprintln(console, err)
			return
		}
		ended := make(chan error, 1)
		go func() { ended <- cmd.Wait() }()
		select {
		case err = <-ended:
		case <-life.Done():
			cmd.Process.Kill() //nolint:errcheck // it may have ended this moment
			err = <-ended
		}
		endInside(m.lab.slot.space("m-" + m.Name))
		fmt.Fprintln(console, "systemd-nspawn ended:", err)
		var exit *exec.ExitError
		if life.Err() != nil || !errors.As(err, &exit) || exit.ExitCode() != rebooting {
			return
		}
	}
}

// command is systemd-nspawn, begun by a shell that first joins the machine's control groups.
func (m *Machine) command() (*exec.Cmd, error) {
	join, err := m.lab.slot.makeGroup(m.Name)
	if err != nil {
		return nil, err
	}
	var script strings.Builder
	for _, file := range join {
		fmt.Fprintf(&script, "echo $$ > %s\n", quote(file))
	}
	script.WriteString(`exec systemd-nspawn "$@"`)
	return exec.Command("sh", append([]string{"-euc", script.String(), "sh"}, m.arguments()...)...), nil
}

// arguments are what systemd-nspawn is called with. Docker inside needs the three system calls. The clock is the host's, so
// no machine may set it.
func (m *Machine) arguments() []string {
	a := []string{"--quiet", "--register=no", "--machine=" + m.Name, "--directory=" + m.root(), "--boot",
		"--network-namespace-path=" + m.lab.slot.space("m-"+m.Name), "--resolv-conf=off", "--timezone=off", "--link-journal=no",
		"--console=pipe", "--capability=CAP_NET_ADMIN", "--system-call-filter=add_key keyctl bpf",
		"--bind=" + filepath.Join(m.dir, "docker") + ":/var/lib/docker"}
	if !onSystemd() {
		a = append(a, "--keep-unit") // nobody here could give it another
	}
	if _, err := os.Stat("/dev/net/tun"); err == nil {
		a = append(a, "--bind=/dev/net/tun")
	}
	return a
}

// answers returns when the machine's SSH server has said its name, or when it ended or ctx did.
func (m *Machine) answers(ctx context.Context) error {
	ctx, cancel := context.WithTimeout(ctx, patience)
	defer cancel()
	for {
		if sshIsUp(ctx, m.Addr) {
			return nil
		}
		select {
		case <-m.done:
			return fmt.Errorf("boot machine %s: it ended; its console says: %s", m.Name, tail(m.Console()))
		case <-ctx.Done():
			return fmt.Errorf("boot machine %s: no answer at %s:22: %w; its console says: %s", m.Name, m.Addr, context.Cause(ctx), tail(m.Console()))
		case <-time.After(20 * time.Millisecond):
		}
	}
}

func sshIsUp(ctx context.Context, addr string) bool {
	d := net.Dialer{Timeout: time.Second}
	c, err := d.DialContext(ctx, "tcp", net.JoinHostPort(addr, "22"))
	if err != nil {
		return false
	}
	defer c.Close()
	c.SetReadDeadline(time.Now().Add(2 * time.Second)) //nolint:errcheck // the read fails too then
	greeting := make([]byte, 4)
	_, err = io.ReadFull(c, greeting)
	return err == nil && string(greeting) == "SSH-"
}

// tail returns the last kilobyte of a file.
func tail(file string) string {
	b, _ := os.ReadFile(file)
	return strings.TrimSpace(string(b[max(0, len(b)-1024):]))
}

// Cut takes the power away: everything in the machine ends at once, and what it wrote stays. Boot starts it again.
func (m *Machine) Cut() {
	m.mu.Lock()
	off, done := m.off, m.done
	m.off = nil
	m.mu.Unlock()
	if off != nil {
		off()
		<-done
	}
}

// Remove cuts the power and throws the machine and all that it wrote away.
func (m *Machine) Remove() error {
	m.Cut()
	var errs []error
	for _, at := range mountsBelow(m.dir) {
		errs = append(errs, unmount(at))
	}
	space := m.lab.slot.space("m-" + m.Name)
	if _, err := os.Stat(space); err == nil {
		// The namespace outlives its name for a moment, and the cable with it: pull it first, so that the name is free.
		_ = ipIn(context.Background(), m.lab.slot.space("hub"), "link del p-"+m.Name) // it may be gone
		if err := syscall.Unmount(space, 0); err != nil && !errors.Is(err, syscall.EINVAL) {
			errs = append(errs, fmt.Errorf("unmount %s: %w", space, err))
		}
		errs = append(errs, os.Remove(space))
	}
	m.lab.slot.removeGroup(m.Name)
	if errors.Join(errs...) == nil {
		errs = append(errs, os.RemoveAll(m.dir))
	}
	m.lab.mu.Lock()
	delete(m.lab.machines, m.Name)
	m.lab.mu.Unlock()
	return errors.Join(append(errs, m.lab.writeConfig())...)
}

// SSH returns the command line that runs commands there: append them.
func (m *Machine) SSH() []string { return []string{"ssh", "-F", m.lab.SSHConfig(), m.Name} }

// Run runs a script with bash as root and returns what it wrote to standard output. The error holds what it wrote to the
// other, and is an *exec.ExitError below when the script failed. ctx bounds it.
func (m *Machine) Run(ctx context.Context, script string) (string, error) {
	return m.pipe(ctx, strings.NewReader(script), "bash -eu -o pipefail -s")
}

func (m *Machine) pipe(ctx context.Context, in io.Reader, command string) (string, error) {
	argv := append(m.SSH(), command)
	cmd := exec.CommandContext(ctx, argv[0], argv[1:]...)
	cmd.WaitDelay = 5 * time.Second
	var out, said bytes.Buffer
	cmd.Stdin, cmd.Stdout, cmd.Stderr = in, &out, &said
	if err := cmd.Run(); err != nil {
		if ctx.Err() != nil {
			err = context.Cause(ctx)
		}
		return out.String(), fmt.Errorf("run on %s: %w: %s", m.Name, err, strings.TrimSpace(said.String()))
	}
	return out.String(), nil
}

// Put copies a file or folder there, with owners, modes, times and extended attributes, as the name it has on the other side.
func (m *Machine) Put(ctx context.Context, local, remote string) error {
	tar := exec.CommandContext(ctx, "tar", "--create", "--xattrs", "--sparse", "--numeric-owner", "--directory="+filepath.Dir(local),
		"--transform=flags=r;s|^"+filepath.Base(local)+"|"+filepath.Base(remote)+"|", filepath.Base(local))
	tar.WaitDelay = 5 * time.Second
	var said bytes.Buffer
	tar.Stderr = &said
	packed, err := tar.StdoutPipe()
	if err != nil {
		return err
	}
	if err := tar.Start(); err != nil {
		return fmt.Errorf("copy %s to %s: %w", local, m.Name, err)
	}
	_, err = m.pipe(ctx, packed, "mkdir -p "+quote(filepath.Dir(remote))+" && tar --extract --xattrs --xattrs-include='*' --numeric-owner --same-permissions --directory="+quote(filepath.Dir(remote)))
	if ended := tar.Wait(); ended != nil {
		err = errors.Join(err, fmt.Errorf("pack %s: %w: %s", local, ended, said.String()))
	}
	return err
}

// quote makes one word for a shell of any text.
func quote(s string) string { return "'" + strings.ReplaceAll(s, "'", `'\''`) + "'" }
