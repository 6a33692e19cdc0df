package sandbox

import (
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"runtime"
	"strconv"
	"strings"
	"syscall"
	"time"

	"golang.org/x/sys/unix"
)

// nobody is the user that runs the code where this program is root's: the kernel does not hold root to a number of processes.
const nobody = 65534

// absent says what is not installed.
func (s *Sandbox) absent() string {
	if _, err := exec.LookPath("bwrap"); err != nil {
		return "bubblewrap is not installed: apt-get install bubblewrap; the container image has none, and code needs an installation on the machine itself"
	}
	if !strings.HasPrefix(filepath.Clean(s.c.Python), "/usr/") {
		return fmt.Sprintf("tools.code.python is %s, and only a Python below /usr can be seen in the sandbox: apt-get install python3", s.c.Python)
	}
	if _, err := os.Stat(s.c.Python); err != nil {
		return fmt.Sprintf("%s is not there: apt-get install python3", s.c.Python)
	}
	return ""
}

// bootstrap bounds its own process and all that it starts, then becomes the program. Hard limits cannot be raised again.
const bootstrap = `import resource as r,sys,os
def l(what,n): r.setrlimit(what,(n,n))
l(r.RLIMIT_AS,%d);l(r.RLIMIT_NPROC,%d);l(r.RLIMIT_CPU,%d);l(r.RLIMIT_FSIZE,%d);l(r.RLIMIT_NOFILE,256);l(r.RLIMIT_CORE,0);l(r.RLIMIT_MEMLOCK,0);l(r.RLIMIT_MSGQUEUE,0)
os.closerange(3,1<<30) # what this program was itself handed without knowing
c=sys.stdin.buffer.read();n=os.open('/dev/null',os.O_RDONLY);os.dup2(n,0);os.close(n)
sys.argv=['program.py'];del l,n
exec(compile(c,'program.py','exec'),{'__name__':'__main__','__builtins__':__builtins__})
`

// shm is what can be written to /dev/shm, in bytes.
const shm = 16 << 20

// arguments of bubblewrap (man bwrap). The root is an empty tmpfs with the system's programs in it, read-only.
func (s *Sandbox) argv(seconds int) []string {
	size := strconv.FormatInt(s.c.Disk, 10)
	a := []string{
		"--unshare-user", "--disable-userns", "--unshare-pid", "--unshare-ipc", "--unshare-net", "--unshare-uts", "--unshare-cgroup-try",
		"--uid", strconv.Itoa(nobody), "--gid", strconv.Itoa(nobody), "--hostname", "sandbox",
		"--cap-drop", "ALL", "--new-session", "--die-with-parent", "--seccomp", "3",
		"--ro-bind", "/usr", "/usr",
	}
	for _, dir := range []string{"/bin", "/sbin", "/lib", "/lib32", "/lib64"} { // links into /usr, or folders of their own
		if to, err := os.Readlink(dir); err == nil {
			a = append(a, "--symlink", to, dir)
		} else {
			a = append(a, "--ro-bind-try", dir, dir)
		}
	}
	a = append(a, "--ro-bind-try", "/etc/alternatives", "/etc/alternatives", "--ro-bind-try", "/etc/ld.so.cache", "/etc/ld.so.cache",
		"--proc", "/proc", "--dev", "/dev", "--size", strconv.Itoa(shm), "--tmpfs", "/dev/shm", "--remount-ro", "/dev",
		"--size", size, "--tmpfs", "/tmp", "--size", size, "--tmpfs", "/home", "--remount-ro", "/", "--chdir", "/home", "--clearenv")
	for _, env := range []string{"PATH=/usr/bin:/bin", "HOME=/home", "LANG=C.UTF-8", "TMPDIR=/tmp", "PYTHONUNBUFFERED=1", "PYTHONDONTWRITEBYTECODE=1",
		"OPENBLAS_NUM_THREADS=1", "OMP_NUM_THREADS=1"} {
		key, value, _ := strings.Cut(env, "=")
		a = append(a, "--setenv", key, value)
	}
	return append(a, "--", s.c.Python, "-I", "-X", "utf8", "-c", fmt.Sprintf(bootstrap, s.c.Memory, s.c.Processes, seconds+1, s.c.Disk))
}

// Run runs a program for at most limit. The error says that it could not be started, or that ctx ended.
func (s *Sandbox) Run(ctx context.Context, code string, limit time.Duration) (Outcome, error) {
	if why := s.absent(); why != "" {
		return Outcome{}, errors.New(why)
	}
	filter, err := seccomp()
	if err != nil {
		return Outcome{}, err
	}
	defer filter.Close()
	limited, cancel := context.WithTimeoutCause(ctx, limit, fmt.Errorf("it ran longer than %s", limit))
	defer cancel()
	limited, kill := context.WithCancelCause(limited)
	defer kill(nil)

	var stdout, stderr capped
	stdout.room, stderr.room = s.c.Output, s.c.Output
	cmd := exec.CommandContext(limited, "bwrap", s.argv(int(limit/time.Second))...) //nolint:gosec // that is the purpose
	cmd.Dir, cmd.Env, cmd.ExtraFiles = "/", []string{}, []*os.File{filter}          // process 1 of the sandbox shows its environment
	cmd.Stdin, cmd.Stdout, cmd.Stderr = strings.NewReader(code), &stdout, &stderr
	cmd.WaitDelay = 2 * time.Second
	cmd.SysProcAttr = &syscall.SysProcAttr{Pdeathsig: syscall.SIGKILL}
	if os.Geteuid() == 0 {
		cmd.SysProcAttr.Credential = &syscall.Credential{Uid: nobody, Gid: nobody}
	}
	done, started := make(chan ended, 1), make(chan error, 1)
	began := time.Now()
	go func() {
		// The signal of a parent's death is that of the thread which started the process (prctl(2)): that one is kept until it ends.
		runtime.LockOSThread()
		defer runtime.UnlockOSThread()
		err := cmd.Start()
		started <- err
		if err == nil {
			err = cmd.Wait()
			done <- ended{err, time.Since(began)}
		}
	}()
	if err := <-started; err != nil {
		return Outcome{}, fmt.Errorf("start the sandbox: %w", err)
	}
	end := s.watch(cmd.Process.Pid, kill, done)
	out := Outcome{Stdout: text(stdout.text), Stderr: text(stderr.text), Lost: stdout.lost + stderr.lost, Code: cmd.ProcessState.ExitCode(), Took: end.took}
	if ctx.Err() != nil {
		return out, context.Cause(ctx)
	}
	if limited.Err() != nil {
		out.Killed, out.Code = context.Cause(limited).Error(), -1
	}
	var status *exec.ExitError
	if end.err != nil && !errors.As(end.err, &status) && out.Killed == "" && !errors.Is(end.err, exec.ErrWaitDelay) && !errors.Is(end.err, syscall.EPIPE) {
		return out, fmt.Errorf("run the sandbox: %w", end.err)
	}
	return out, nil
}

func text(b []byte) string { return strings.ToValidUTF8(string(b), "\uFFFD") }

// ended is how bubblewrap ended.
type ended struct {
	err  error
	took time.Duration
}

// lookEvery is how often the memory of all processes together is looked at. Each of them has a limit of its own beside that.
const lookEvery = 50 * time.Millisecond

// watch waits for the end, and kills what takes too much memory.
func (s *Sandbox) watch(pid int, kill context.CancelCauseFunc, done <-chan ended) ended {
	look := time.NewTicker(lookEvery)
	defer look.Stop()
	for {
		select {
		case end := <-done:
			return end
		case <-look.C:
			if used := s.memory(pid); used > s.c.Memory {
				kill(fmt.Errorf("it took more than %d MiB of memory", s.c.Memory>>20))
			}
		}
	}
}

// What the kernel keeps for a process beside its pages, in bytes.
const (
	perFile   = 1 << 10   // an inode and a name of tmpfs, empty or not
	perSocket = 208 << 10 // what waits in it to be read (net.core.wmem_default)
	mostMaps  = 512 << 10 // of a list of mappings: a program with all of Python's libraries for numbers has some 100 KiB of it
)

// memory is what a process and all below it take, in bytes: their own pages, in memory or swapped out, what they share with each other, and
// what the kernel keeps for their sockets and for their files' names. Files' contents are not in it: they are bounded by Disk.
func (s *Sandbox) memory(pid int) int64 {
	entries, err := os.ReadDir("/proc")
	if err != nil {
		return 0
	}
	children, own := map[int][]int{}, map[int]int64{}
	for _, e := range entries {
		id, err := strconv.Atoi(e.Name())
		if err != nil {
			continue
		}
		status, err := os.ReadFile("/proc/" + e.Name() + "/status")
		if err != nil {
			continue // it has ended
		}
		for line := range strings.Lines(string(status)) {
			key, value, _ := strings.Cut(line, ":")
			n, _ := strconv.ParseInt(strings.TrimSuffix(strings.TrimSpace(value), " kB"), 10, 64)
			switch key {
			case "PPid":
				children[int(n)] = append(children[int(n)], id)
			case "RssAnon", "VmSwap":
				own[id] += n << 10
			}
		}
	}
	var sum int64
	shared, files := map[string]int64{}, int64(0)
	for waiting := []int{pid}; len(waiting) > 0; {
		id := waiting[0]
		waiting = append(waiting[1:], children[id]...)
		sum += own[id]
		if id == pid { // that is bubblewrap, in our own namespaces
			continue
		}
		proc := "/proc/" + strconv.Itoa(id)
		if !mappings(proc, shared) {
			return s.c.Memory + 1
		}
		sockets(proc, shared)
		files = max(files, s.files(proc+"/root"))
	}
	for _, size := range shared {
		sum += size
	}
	return sum + files*perFile
}

// mappings adds the memory that a process shares with others, by what it is: all of it, for pages that a process has let go of are there as long
// as one of them might look. false says that there are more mappings than a program has.
func mappings(proc string, shared map[string]int64) bool {
	f, err := os.Open(proc + "/maps")
	if err != nil {
		return true // it has ended
	}
	defer f.Close()
	text, err := io.ReadAll(io.LimitReader(f, mostMaps+1))
	if err != nil {
		return true
	}
	for line := range strings.Lines(string(text)) { // proc_pid_maps(5)
		field := strings.Fields(line)
		if len(field) < 6 || !strings.HasSuffix(field[1], "s") || field[5] != "/dev/zero" {
			continue
		}
		from, to, _ := strings.Cut(field[0], "-")
		begin, _ := strconv.ParseUint(from, 16, 64)
		end, _ := strconv.ParseUint(to, 16, 64)
		offset, _ := strconv.ParseUint(field[2], 16, 64)
		shared[field[4]] = max(shared[field[4]], int64(offset+end-begin)) //nolint:gosec // a size
	}
	return len(text) <= mostMaps
}

// sockets adds the sockets that a process holds.
func sockets(proc string, shared map[string]int64) {
	held, _ := os.ReadDir(proc + "/fd")
	for _, e := range held {
		if to, err := os.Readlink(proc + "/fd/" + e.Name()); err == nil && strings.HasPrefix(to, "socket:") {
			shared[to] = perSocket
		}
	}
}

// files is how many files there are in the folders that can be written to, below the root of a process.
func (s *Sandbox) files(root string) (n int64) {
	for dir, size := range map[string]int64{"/tmp": s.c.Disk, "/home": s.c.Disk, "/dev/shm": shm} {
		var st unix.Statfs_t
		if err := unix.Statfs(root+dir, &st); err != nil || st.Type != unix.TMPFS_MAGIC {
			continue
		}
		if at := int64(st.Blocks) * st.Bsize; at < size || at > size+1<<20 { //nolint:gosec // a size
			continue // the sandbox is not made yet, and this is the system's
		}
		n += int64(st.Files - st.Ffree) //nolint:gosec // a number of files
	}
	return n
}
