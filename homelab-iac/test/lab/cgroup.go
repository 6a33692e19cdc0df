package lab

import (
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"slices"
	"syscall"
	"time"
)

// hierarchies are the roots of the control group trees that systemd-nspawn puts a machine into: version 2, wherever it is
// mounted, and the named one of version 1 where a host has both.
func hierarchies() []string {
	var found []string
	for _, dir := range []string{"/sys/fs/cgroup", "/sys/fs/cgroup/unified", "/sys/fs/cgroup/systemd"} {
		var st syscall.Statfs_t
		err := syscall.Statfs(dir, &st)
		if err == nil && (st.Type == 0x63677270 || st.Type == 0x27e0eb) { // statfs(2): CGROUP2_SUPER_MAGIC, CGROUP_SUPER_MAGIC
			found = append(found, dir)
		}
	}
	return found
}

// onSystemd tells whether systemd runs this host: then it gives each machine a scope, and these groups are not needed.
func onSystemd() bool {
	_, err := os.Stat("/run/systemd/system")
	return err == nil
}

// group is the control group of one machine. Two machines in one would be two systemds that end each other's services.
func (s *slot) group(name string) string { return fmt.Sprintf("%s-%s", s.link(), name) }

// makeGroup makes a machine's groups and returns the files that a process writes its number to in order to join.
func (s *slot) makeGroup(name string) (join []string, err error) {
	if onSystemd() {
		return nil, nil
	}
	for _, h := range hierarchies() {
		dir := filepath.Join(h, s.group(name))
		if err := os.Mkdir(dir, 0o755); err != nil && !os.IsExist(err) {
			return nil, fmt.Errorf("make control group: %w", err)
		}
		join = append(join, filepath.Join(dir, "cgroup.procs"))
	}
	return join, nil
}

// removeGroup removes a machine's groups once they are empty. "*" stands for all machines of the slot. What stays is an
// empty name, which the next machine of that name takes over.
func (s *slot) removeGroup(name string) {
	for _, h := range hierarchies() {
		tops, _ := filepath.Glob(filepath.Join(h, s.group(name)))
		for _, top := range tops {
			var dirs []string
			_ = filepath.WalkDir(top, func(p string, d fs.DirEntry, err error) error {
				if err == nil && d.IsDir() {
					dirs = append(dirs, p)
				}
				return nil
			})
			slices.Reverse(dirs) // the deepest first
			for _, d := range dirs {
				for range 50 { // a process that was just killed leaves a moment later
					if err := syscall.Rmdir(d); err != syscall.EBUSY {
						break
					}
					time.Sleep(10 * time.Millisecond)
				}
			}
		}
	}
}
