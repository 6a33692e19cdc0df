package lab

import (
	"context"
	"errors"
	"fmt"
	"net"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"syscall"
	"time"
)

// A slot is the place of one lab on this machine: a number, from which all its names and addresses follow, a lock that its
// process holds, and a folder.
//
//	lock     DIR/N.lock, held with flock(2) as long as the process lives
//	folder   DIR/N
//	network  10.77.N.0/24; the host's end is the interface hlabN with the address .1, its other end is a port of the bridge
//	         in the namespace DIR/N/net/hub
type slot struct {
	n    int
	dir  string
	lock *os.File
}

func (s *slot) gateway() string          { return s.address(1) }
func (s *slot) address(last int) string  { return fmt.Sprintf("10.77.%d.%d", s.n, last) }
func (s *slot) link() string             { return fmt.Sprintf("hlab%d", s.n) }
func (s *slot) space(name string) string { return filepath.Join(s.dir, "net", name) }

// errTaken means that another process holds the slot.
var errTaken = errors.New("taken")

// lockSlot takes a slot's lock without waiting.
func lockSlot(dir string, n int) (*slot, error) {
	f, err := os.OpenFile(filepath.Join(dir, strconv.Itoa(n)+".lock"), os.O_RDWR|os.O_CREATE|syscall.O_CLOEXEC, 0o600)
	if err != nil {
		return nil, err
	}
	if err := syscall.Flock(int(f.Fd()), syscall.LOCK_EX|syscall.LOCK_NB); err != nil {
		f.Close()
		return nil, errTaken
	}
	return &slot{n: n, dir: filepath.Join(dir, strconv.Itoa(n)), lock: f}, nil
}

// takeSlot takes slot n, or the first free one where n is 0. The lock file then holds the process id. A sweep may hold a
// lock for a moment, so a slot that was asked for by number is tried again for some seconds.
func takeSlot(dir string, n int) (*slot, error) {
	var candidates []int
	for i := 1; i <= Slots; i++ {
		if n == 0 || n == i {
			candidates = append(candidates, i)
		}
	}
	until := time.Now().Add(5 * time.Second)
	for {
		for _, i := range candidates {
			s, err := lockSlot(dir, i)
			if errors.Is(err, errTaken) {
				continue
			}
			if err != nil {
				return nil, fmt.Errorf("take slot %d: %w", i, err)
			}
			if n == 0 && inUse(s.gateway()) {
				s.lock.Close()
				continue
			}
			if err = s.lock.Truncate(0); err == nil {
				_, err = fmt.Fprintf(s.lock, "%d\n", os.Getpid())
			}
			if err == nil {
				err = os.MkdirAll(filepath.Join(s.dir, "net"), 0o700)
			}
			if err != nil {
				s.lock.Close()
				return nil, fmt.Errorf("take slot %d: %w", i, err)
			}
			return s, nil
		}
		if time.Now().After(until) || len(candidates) == 0 {
			return nil, fmt.Errorf("take slot %d of %d (0 is any): taken: end the lab that has it, for example with make lab-down", n, Slots)
		}
		time.Sleep(50 * time.Millisecond)
	}
}

// inUse tells whether this machine already has a network that holds an address.
func inUse(address string) bool {
	addrs, _ := net.InterfaceAddrs()
	return slices.ContainsFunc(addrs, func(a net.Addr) bool {
		ipnet, ok := a.(*net.IPNet)
		return ok && ipnet.Contains(net.ParseIP(address))
	})
}

// release gives the slot back.
func (s *slot) release() error { return s.lock.Close() }

// Owner returns the process that holds a slot, and 0 when nobody does.
func Owner(dir string, n int) int {
	s, err := lockSlot(dir, n)
	if err == nil {
		s.lock.Close()
		return 0
	}
	text, _ := os.ReadFile(filepath.Join(dir, strconv.Itoa(n)+".lock"))
	pid, _ := strconv.Atoi(strings.TrimSpace(string(text)))
	return pid
}

// network makes the bridge and the host's way to it. The bridge stands in a namespace of its own, so the host's firewall
// and forwarding have no part in what machines say to each other, and the host gets one interface only.
func (s *slot) network(ctx context.Context) error {
	hub := s.space("hub")
	if err := newSpace(ctx, hub); err != nil {
		return err
	}
	if err := ipIn(ctx, hub, "link set lo up", "link add br0 type bridge", "link set br0 up"); err != nil {
		return err
	}
	if err := ipIn(ctx, "", fmt.Sprintf("link add %s type veth peer name uplink netns %s", s.link(), hub),
		fmt.Sprintf("addr add %s/24 dev %s", s.gateway(), s.link()), fmt.Sprintf("link set %s up", s.link())); err != nil {
		return err
	}
	return ipIn(ctx, hub, "link set uplink master br0", "link set uplink up")
}

// plug gives a machine its namespace with the interface host0, and no default route.
func (s *slot) plug(ctx context.Context, name, address string) error {
	space := s.space("m-" + name)
	if err := newSpace(ctx, space); err != nil {
		return err
	}
	port := "p-" + name
	if err := ipIn(ctx, s.space("hub"), fmt.Sprintf("link add %s type veth peer name host0 netns %s", port, space),
		fmt.Sprintf("link set %s master br0", port), fmt.Sprintf("link set %s up", port)); err != nil {
		return err
	}
	return ipIn(ctx, space, "link set lo up", fmt.Sprintf("addr add %s/24 dev host0", address), "link set host0 up")
}

// newSpace makes a network namespace that lives as long as the file that names it is mounted.
func newSpace(ctx context.Context, file string) error {
	if err := os.WriteFile(file, nil, 0o600); err != nil {
		return err
	}
	_, err := run(ctx, "unshare", "--net="+file, "true")
	return err
}

// ipIn runs commands of ip(8) in a namespace; "" is the host's own.
func ipIn(ctx context.Context, space string, commands ...string) error {
	for _, c := range commands {
		argv := append([]string{"ip"}, strings.Fields(c)...)
		if space != "" {
			argv = append([]string{"nsenter", "--net=" + space}, argv...)
		}
		if _, err := run(ctx, argv[0], argv[1:]...); err != nil {
			return err
		}
	}
	return nil
}

// remove ends everything that is in the slot and takes its folder away: what a lab does at its end, and what the next one
// does for one that was killed. What is already gone is no error.
func (s *slot) remove() error {
	endRecorded(filepath.Join(s.dir, "processes"))
	spaces, _ := filepath.Glob(s.space("*"))
	for _, f := range spaces {
		endInside(f)
	}
	s.removeGroup("*")
	var errs []error
	for _, at := range mountsBelow(s.dir) { // the deepest first
		errs = append(errs, unmount(at))
	}
	if _, err := net.InterfaceByName(s.link()); err == nil {
		ctx, cancel := context.WithTimeout(context.Background(), patience)
		defer cancel()
		if err := ipIn(ctx, "", "link del "+s.link()); err != nil {
			if _, still := net.InterfaceByName(s.link()); still == nil {
				errs = append(errs, err)
			}
		}
	}
	if err := errors.Join(errs...); err != nil {
		return err // with something mounted, nothing may be deleted
	}
	return os.RemoveAll(s.dir)
}

// Sweep removes what labs left whose process is gone, and returns the slots that it emptied.
func Sweep(dir string) (emptied []int, err error) {
	if err := os.MkdirAll(dir, 0o700); err != nil {
		return nil, err
	}
	var errs []error
	for n := 1; n <= Slots; n++ {
		if _, err := os.Lstat(filepath.Join(dir, strconv.Itoa(n))); err != nil {
			continue
		}
		s, err := lockSlot(dir, n)
		if err != nil {
			continue // it lives
		}
		if err := s.remove(); err != nil {
			errs = append(errs, fmt.Errorf("remove what the lab in slot %d left: %w", n, err))
		} else {
			emptied = append(emptied, n)
		}
		s.lock.Close()
	}
	return emptied, errors.Join(errs...)
}

// mountsBelow lists what is mounted below a folder, the deepest first.
func mountsBelow(dir string) []string {
	table, _ := os.ReadFile("/proc/self/mountinfo") // proc_pid_mountinfo(5): the fifth field is the mount point, \040 a space
	var found []string
	for line := range strings.Lines(string(table)) {
		fields := strings.Fields(line)
		if len(fields) < 5 {
			continue
		}
		at := strings.NewReplacer(`\040`, " ", `\011`, "\t", `\012`, "\n", `\134`, `\`).Replace(fields[4])
		if strings.HasPrefix(at, dir+"/") {
			found = append(found, at)
		}
	}
	slices.Sort(found)
	slices.Reverse(found)
	return found
}

// unmount waits a moment for the last user to leave.
func unmount(at string) error {
	var err error
	for range 100 {
		if err = syscall.Unmount(at, 0); err == nil || errors.Is(err, syscall.EINVAL) {
			return nil
		}
		time.Sleep(20 * time.Millisecond)
	}
	return fmt.Errorf("unmount %s: %w: fuser -vm shows who uses it", at, err)
}
