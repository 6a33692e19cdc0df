package lab

import (
	"context"
	"crypto/sha256"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"syscall"
	"time"
)

// suite is the Debian release of the machines.
const suite = "trixie"

// inImage is what a machine has before any play ran: what a provider's smallest image has too, and Python for Ansible.
const inImage = "systemd,systemd-sysv,dbus,openssh-server,python3,python3-apt,sudo,iproute2,ca-certificates"

// hooks run on the new root. Host keys would be the same on all machines, so each gets its own later; and timers that
// update packages by themselves would take the lock of a play that is at work.
var hooks = []string{
	`rm -f "$1"/etc/ssh/ssh_host_*`,
	`chroot "$1" systemctl mask apt-daily.timer apt-daily-upgrade.timer`,
	`chroot "$1" systemctl enable ssh.service`,
}

// Cache is where images, packages and tools are kept: ${XDG_CACHE_HOME:-~/.cache}/homelab.
func Cache() (string, error) {
	dir, err := os.UserCacheDir()
	if err != nil {
		return "", fmt.Errorf("find a cache: %w: set HOME or XDG_CACHE_HOME", err)
	}
	return filepath.Join(dir, "homelab"), nil
}

// imageVersion changes with the recipe.
func imageVersion() string {
	sum := sha256.Sum256([]byte(suite + "\n" + inImage + "\n" + strings.Join(hooks, "\n")))
	return fmt.Sprintf("%s-%x", suite, sum[:4])
}

// ensureImage returns the folder with the root file system that machines share. It is built once, in about a minute.
func ensureImage(ctx context.Context, log func(string)) (string, error) {
	cache, err := Cache()
	if err != nil {
		return "", err
	}
	dir := filepath.Join(cache, "image-"+imageVersion())
	root := filepath.Join(dir, "root")
	if _, err := os.Stat(root); err == nil {
		return root, nil
	}
	if err := os.MkdirAll(dir, 0o700); err != nil { // nobody else: programs in it run as root for whoever starts them
		return "", err
	}
	lock, err := WaitLock(ctx, filepath.Join(dir, "lock"))
	if err != nil {
		return "", fmt.Errorf("wait for who builds the machines' image: %w", err)
	}
	defer lock.Close()
	if _, err := os.Stat(root); err == nil {
		return root, nil
	}
	began := time.Now()
	log("building the machines' image (" + imageVersion() + "), once")
	var args []string
	for _, h := range hooks {
		args = append(args, "--customize-hook="+h)
	}
	if err := Bootstrap(ctx, root, inImage, log, args...); err != nil {
		return "", err
	}
	log(fmt.Sprintf("the image is there after %.0f s", time.Since(began).Seconds()))
	return root, nil
}

// Prepare makes the machines' image, where it is not there.
func Prepare(ctx context.Context, log func(string)) error {
	if err := Missing(); err != nil {
		return err
	}
	_, err := ensureImage(ctx, log)
	return err
}

// Bootstrap installs the machines' Debian with some packages (a list with commas) into a folder, or an archive where to ends with .tar, from the
// mirror that mmdebstrap chooses; it tries three times. What has its name is whole.
func Bootstrap(ctx context.Context, to, packages string, log func(string), args ...string) error {
	part := filepath.Join(filepath.Dir(to), "part-"+filepath.Base(to))
	args = append([]string{"--quiet", "--variant=minbase", "--include=" + packages, `--aptopt=APT::Install-Recommends "false"`}, args...)
	for try := 1; ; try++ {
		if err := os.RemoveAll(part); err != nil {
			return err
		}
		err := bootstrap(ctx, append(args, suite, part))
		if err == nil {
			return os.Rename(part, to)
		}
		if try == 3 || ctx.Err() != nil {
			return errors.Join(err, os.RemoveAll(part))
		}
		log(fmt.Sprintf("that failed; trying again: %v", err))
	}
}

func bootstrap(ctx context.Context, args []string) error {
	ctx, cancel := context.WithTimeout(ctx, 10*time.Minute)
	defer cancel()
	cmd := exec.CommandContext(ctx, "mmdebstrap", args...)
	cmd.WaitDelay = 10 * time.Second
	cmd.Cancel = func() error { return cmd.Process.Signal(syscall.SIGTERM) } // it unmounts what it mounted
	if out, err := cmd.CombinedOutput(); err != nil {
		return fmt.Errorf("install Debian: %w: %s", err, strings.TrimSpace(string(out[max(0, len(out)-2000):])))
	}
	return nil
}

// WaitLock takes a file's lock, which goes when the file is closed; another process may hold it for minutes.
func WaitLock(ctx context.Context, file string) (*os.File, error) {
	f, err := os.OpenFile(file, os.O_RDWR|os.O_CREATE|syscall.O_CLOEXEC, 0o600)
	if err != nil {
		return nil, err
	}
	for {
		if err := syscall.Flock(int(f.Fd()), syscall.LOCK_EX|syscall.LOCK_NB); err == nil {
			return f, nil
		}
		select {
		case <-ctx.Done():
			f.Close()
			return nil, ctx.Err()
		case <-time.After(100 * time.Millisecond):
		}
	}
}

// Missing tells what this machine lacks to run a lab, nil when it has all.
func Missing() error {
	var lacks []string
	if os.Geteuid() != 0 {
		lacks = append(lacks, "root")
	}
	for _, name := range []string{"systemd-nspawn", "mmdebstrap", "ssh", "ssh-keygen", "ip", "nsenter", "unshare", "tar"} {
		if _, err := exec.LookPath(name); err != nil {
			lacks = append(lacks, name)
		}
	}
	kinds, _ := os.ReadFile("/proc/filesystems")
	if !strings.Contains(string(kinds), "\toverlay\n") && exec.Command("modprobe", "overlay").Run() != nil {
		lacks = append(lacks, "overlayfs in the kernel")
	}
	if len(lacks) > 0 {
		return fmt.Errorf("open a lab: this machine lacks %s: run homelab-iac/test/setup.sh as root", strings.Join(lacks, ", "))
	}
	return nil
}
