//go:build prove

package sandbox

import (
	"cmp"
	"fmt"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"syscall"
	"testing"
	"time"
)

// escape runs a program that tries to get out. What it prints on a line "ESCAPED ..." is how it did. It must come to its end: what was never
// tried was not refused.
func escape(t *testing.T, s *Sandbox, name, code string) Outcome {
	t.Helper()
	out := run(t, s, `
import os, sys, errno
def attempt(what, f):
    try:
        got = f()
    except BaseException as e:
        print('refused', what, type(e).__name__, e)
        return
    print('ESCAPED', what, repr(got)[:200])
`+code+"\nprint('TRIED ALL')\n")
	if !strings.HasSuffix(out.Stdout, "TRIED ALL\n") {
		t.Errorf("%s: it did not come to its end: %+v", name, out)
	}
	if strings.Contains(out.Stdout, "ESCAPED") {
		t.Errorf("%s: %s", name, out.Stdout)
	}
	return out
}

// must returns a sandbox whose processes can be told from those of others.
func must(t *testing.T, c Config) *Sandbox {
	t.Helper()
	c.Disk = cmp.Or(c.Disk, 64<<20) + int64(os.Getpid()&0xfffff) // by which its processes are known
	return ready(t, c)
}

func TestNoFileOfThePersonCanBeSeen(t *testing.T) {
	s := must(t, Config{})
	secret := filepath.Join(t.TempDir(), "secret")
	if err := os.WriteFile(secret, []byte("secret"), 0o644); err != nil {
		t.Fatal(err)
	}
	t.Setenv("RUNNER_SECRET", "secret")
	out := escape(t, s, "files", fmt.Sprintf(`
for p in [%q, '/etc/passwd', '/etc/shadow', '/root', '/home/../root', '/var', '/run', '/sys', '/mnt', '/srv', '/opt', '/boot', '/work', '/proc/1/root/etc/passwd', '/proc/self/root/root',
          '/proc/1/cwd/x', '/dev/mem', '/dev/kmem', '/dev/sda', '/dev/vda', '/dev/kmsg', '/proc/kcore', '/proc/kmsg']:
    attempt('read '+p, lambda: os.listdir(p) if os.path.isdir(p) else open(p,'rb').read(20))
print('ROOT', sorted(os.listdir('/')))
print('ENV', [v for v in os.environ.values() if 'secret' in v])
print('INIT', open('/proc/1/environ','rb').read())
print('FDS', sorted(os.listdir('/proc/self/fd')))
`, secret))
	if !strings.Contains(out.Stdout, "ENV []") || !strings.Contains(out.Stdout, "INIT b''") || !strings.Contains(out.Stdout, "FDS ['0', '1', '2', '3']") {
		t.Errorf("got %s%s", out.Stdout, out.Stderr)
	}
}

func TestTheSystemCannotBeWritten(t *testing.T) {
	s := must(t, Config{})
	escape(t, s, "writes", `
for p in ['/usr/bin/x', '/usr/x', '/x', '/etc/x', '/etc/ld.so.preload', '/bin/x', '/lib/x', '/dev/x', '/proc/sys/kernel/core_pattern', '/proc/sys/vm/drop_caches', '/proc/sysrq-trigger',
          '/proc/sys/kernel/hostname', '/sys/x']:
    attempt('write '+p, lambda: open(p,'w').write('x'))
attempt('remount', lambda: os.system('mount -o remount,rw / 2>/dev/null') and 1/0)
attempt('rename', lambda: os.rename('/usr/bin/python3', '/usr/bin/python4'))
attempt('chmod', lambda: os.chmod('/usr/bin/python3', 0o777))
attempt('mknod', lambda: os.mknod('/tmp/sda', 0o660|0o060000, os.makedev(8,0)))
`)
}

func TestThereIsNoNetwork(t *testing.T) {
	s := must(t, Config{})
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer l.Close()
	abstract, err := net.Listen("unix", "@llm-runner-escape-test")
	if err != nil {
		t.Fatal(err)
	}
	defer abstract.Close()
	out := escape(t, s, "network", fmt.Sprintf(`
import socket
attempt('the host by its loopback', lambda: socket.create_connection(('127.0.0.1', %d), 2))
attempt('another machine', lambda: socket.create_connection(('192.0.2.1', 80), 2))
attempt('another machine, IPv6', lambda: socket.create_connection(('2001:db8::1', 80), 2))
attempt('a name', lambda: socket.getaddrinfo('example.org', 80))
def unix():
    c = socket.socket(socket.AF_UNIX); c.connect('\0llm-runner-escape-test'); return c
attempt('an abstract socket', unix)
attempt('raw packets', lambda: socket.socket(socket.AF_INET, socket.SOCK_RAW, 1))
attempt('packets', lambda: socket.socket(socket.AF_PACKET, socket.SOCK_RAW, 3))
for family in range(2, 47): # of these, some are not of the network namespace: 40 is the hypervisor's (vsock)
    for kind in (1, 2, 3, 5): attempt(f'family {family} {kind}', lambda: socket.socket(family, kind, 0))
a, b = socket.socketpair(); a.send(b'x'); print('PAIR', b.recv(1))
print('LINKS', [l.split(':')[0].strip() for l in open('/proc/net/dev') if ':' in l])
`, l.Addr().(*net.TCPAddr).Port))
	if !strings.Contains(out.Stdout, "LINKS ['lo']") || !strings.Contains(out.Stdout, "PAIR b'x'") {
		t.Errorf("got %s%s", out.Stdout, out.Stderr)
	}
}

func TestOtherProcessesCannotBeSeenOrSignalled(t *testing.T) {
	s := must(t, Config{})
	victim := exec.Command("sleep", "60")
	if err := victim.Start(); err != nil {
		t.Fatal(err)
	}
	defer func() {
		victim.Process.Kill() //nolint:errcheck // it has ended then
		victim.Wait()         //nolint:errcheck // it was killed
	}()
	out := escape(t, s, "signals", fmt.Sprintf(`
import signal, ctypes
attempt('a signal to the host', lambda: os.kill(%d, 9))
attempt('ptrace', lambda: 1/0 if ctypes.CDLL(None).ptrace(16, 1, 0, 0) != 0 else 'attached')
pids = sorted(int(p) for p in os.listdir('/proc') if p.isdigit())
print('PIDS', len(pids), max(pids) < 20)
try: os.kill(-1, 9)
except OSError as e: print(e)
print('STILL HERE')
`, victim.Process.Pid))
	if !strings.Contains(out.Stdout, "PIDS ") || strings.Contains(out.Stdout, "False") {
		t.Errorf("got %s%s", out.Stdout, out.Stderr)
	}
	if err := victim.Process.Signal(syscall.Signal(0)); err != nil {
		t.Errorf("the other process is gone: %v", err)
	}
}

func TestNobodyBecomesRoot(t *testing.T) {
	s := must(t, Config{})
	out := escape(t, s, "users", `
import ctypes, subprocess
libc = ctypes.CDLL(None, use_errno=True)
attempt('setuid', lambda: os.setuid(0))
attempt('setgid', lambda: os.setgid(0))
attempt('chroot', lambda: os.chroot('/tmp'))
def call(name, *a):
    if getattr(libc, name)(*a) != 0: raise OSError(ctypes.get_errno(), os.strerror(ctypes.get_errno()))
attempt('unshare user', lambda: call('unshare', 0x10000000))
attempt('unshare mount', lambda: call('unshare', 0x00020000))
attempt('mount', lambda: call('mount', b'tmpfs', b'/tmp', b'tmpfs', 0, None))
attempt('umount', lambda: call('umount2', b'/usr', 2))
attempt('sethostname', lambda: call('sethostname', b'x', 1))
def newuser(): # clone(2) with CLONE_NEWUSER, past the filter of unshare
    pid = libc.syscall(56, 0x10000000|17, 0, 0, 0, 0)
    if pid < 0: raise OSError(ctypes.get_errno(), os.strerror(ctypes.get_errno()))
    if pid == 0: os._exit(0)
    return pid
if os.uname().machine == 'x86_64': attempt('clone user', newuser)
for tool in ['su', 'sudo', 'mount', 'passwd', 'newuidmap', 'bwrap']:
    r = subprocess.run(['/bin/sh','-c', tool+' -c id 2>&1'], capture_output=True, text=True)
    if 'uid=0' in r.stdout: print('ESCAPED', tool, r.stdout)
print('STATUS', [l.strip() for l in open('/proc/self/status') if l.startswith(('CapEff','CapBnd','NoNewPrivs','Seccomp:'))], os.getuid())
`)
	for _, want := range []string{`CapEff:\t0000000000000000`, `CapBnd:\t0000000000000000`, `NoNewPrivs:\t1`, `Seccomp:\t2`, "65534"} {
		if !strings.Contains(out.Stdout, want) {
			t.Errorf("%s is missing: %s%s", want, out.Stdout, out.Stderr)
		}
	}
}

func TestLinksLeadNowhere(t *testing.T) {
	s := must(t, Config{})
	escape(t, s, "links", `
os.symlink('/etc/shadow', 'a'); os.symlink('../../../../../../root', 'b'); os.symlink('/proc/1/root', 'c')
attempt('a link to a file', lambda: open('a').read())
attempt('a link to a folder', lambda: os.listdir('b'))
attempt('a link through proc', lambda: open('c/etc/passwd').read())
attempt('a hard link', lambda: os.link('/usr/bin/python3', 'd'))
attempt('up by descriptors', lambda: os.listdir(os.open('../root', os.O_RDONLY, dir_fd=os.open('/home', os.O_RDONLY))))
`)
}

func TestAForkBombEnds(t *testing.T) {
	s := must(t, Config{Timeout: 5 * time.Second})
	out := run(t, s, `
import os
print('BEGUN', flush=True)
while True:
    try: os.fork()
    except OSError: pass
`)
	if !strings.HasPrefix(out.Stdout, "BEGUN\n") || !strings.Contains(out.Killed, "longer than 5s") && !strings.Contains(out.Killed, "memory") {
		t.Errorf("got %+v", out)
	}
	nothingLeft(t)
	out = run(t, s, `
import os, time
n = 0
try:
    for i in range(1000):
        if os.fork() == 0: time.sleep(30)
        n += 1
except OSError as e: print('STOPPED AT', n, e)
`)
	if !strings.Contains(out.Stdout, "STOPPED AT") {
		t.Errorf("got %+v", out)
	}
	nothingLeft(t)
}

// nothingLeft waits until no process of a sandbox is there any more; they are killed by the kernel, which takes a moment.
func nothingLeft(t *testing.T) { t.Helper(); noneOf(t, os.Getpid()) }

func noneOf(t *testing.T, pid int) {
	t.Helper()
	deadline := time.Now().Add(time.Minute)
	for {
		left := sandboxed(pid)
		if len(left) == 0 {
			return
		}
		if time.Now().After(deadline) {
			t.Fatalf("still running: %v", left)
		}
		time.Sleep(20 * time.Millisecond)
	}
}

// sandboxed are the processes of sandboxes that must made, here or in a process with that number: those of others on this machine do not count.
func sandboxed(pid int) (all []string) {
	files, _ := filepath.Glob("/proc/[0-9]*/cmdline")
	for _, f := range files {
		text, err := os.ReadFile(f)
		for _, disk := range []int{8 << 20, 64 << 20} {
			if err == nil && strings.Contains(string(text), fmt.Sprintf("RLIMIT_FSIZE,%d)", disk+pid&0xfffff)) {
				all = append(all, filepath.Dir(f))
			}
		}
	}
	return all
}

func TestTheDiskCannotBeFilled(t *testing.T) {
	s := must(t, Config{Disk: 8 << 20, Timeout: 20 * time.Second})
	out := escape(t, s, "disk", `
for d in ['/home', '/tmp', '/dev/shm']:
    total = 0
    try:
        for i in range(100):
            with open(f'{d}/{i}', 'wb') as f: total += f.write(b'x' * 1000000)
    except OSError as e: print('FULL', d, total, e.strerror)
    if total > 20000000: print('ESCAPED', d, total)
try: open('/home/big','wb').truncate(1<<40)
except OSError as e: print('TOO BIG', e)
`)
	if strings.Count(out.Stdout, "FULL") != 3 {
		t.Errorf("got %s%s (%s)", out.Stdout, out.Stderr, out.Killed)
	}
}

func TestMemoryIsBoundedForOneAndForAll(t *testing.T) {
	s := must(t, Config{Memory: 128 << 20, Timeout: 20 * time.Second})
	if out := run(t, s, "x = bytearray(1<<30)"); !strings.Contains(out.Stderr, "MemoryError") {
		t.Errorf("got %+v", out)
	}
	out := run(t, s, `
import os, time
for i in range(8):
    if os.fork() == 0:
        x = bytearray(os.urandom(1<<20)) * 40
        time.sleep(15); os._exit(0)
time.sleep(15)
`)
	if !strings.Contains(out.Killed, "128 MiB") {
		t.Errorf("got %+v", out)
	}
	nothingLeft(t)
}

func TestNoMemoryIsWhereNobodyCountsIt(t *testing.T) {
	s := must(t, Config{Memory: 128 << 20, Timeout: time.Minute})
	escape(t, s, "memory of nobody", `
import ctypes
libc = ctypes.CDLL(None, use_errno=True)
def call(name, *a):
    got = getattr(libc, name)(*a)
    if got < 0: raise OSError(ctypes.get_errno(), os.strerror(ctypes.get_errno()))
    return got
attempt('a file in memory', lambda: os.memfd_create('x'))
if os.uname().machine == 'x86_64': attempt('a secret file in memory', lambda: call('syscall', 447, 0))
attempt('a shared segment', lambda: call('shmget', 0, 1<<20, 0o1600))
attempt('a queue of messages', lambda: call('msgget', 0, 0o1600))
attempt('semaphores', lambda: call('semget', 0, 100, 0o1600))
attempt('a queue with a name', lambda: call('mq_open', b'/x', os.O_CREAT|os.O_RDWR, 0o600, None))
`)
	for name, code := range map[string]string{
		"shared and let go": `
import mmap, os, time
for i in range(8):
    if os.fork() == 0:
        m = mmap.mmap(-1, 40<<20)
        for at in range(0, 40<<20, 4096): m[at] = 1
        m.madvise(mmap.MADV_DONTNEED)
        time.sleep(60); os._exit(0)
time.sleep(60)`,
		"empty files": `
import os
n = 0
while True:
    for d in ('/home', '/tmp', '/dev/shm'): os.close(os.open(f'{d}/{n}', os.O_CREAT|os.O_WRONLY))
    n += 1`,
		"full sockets": `
import os, socket, time
for i in range(30):
    if os.fork() == 0:
        all = []
        try:
            while True:
                a, b = socket.socketpair(); all += [a, b]
                for s in (a, b):
                    s.setblocking(False)
                    try:
                        while True: s.send(b'x'*65536)
                    except BlockingIOError: pass
        except OSError: pass
        time.sleep(60); os._exit(0)
time.sleep(60)`,
		"many mappings": `
import mmap, time
m = [mmap.mmap(-1, 4096, mmap.MAP_PRIVATE|mmap.MAP_ANONYMOUS, mmap.PROT_READ if i % 2 else mmap.PROT_READ|mmap.PROT_WRITE) for i in range(20000)]
time.sleep(60)`,
	} {
		if out := run(t, s, code); !strings.Contains(out.Killed, "128 MiB") {
			t.Errorf("%s: %+v", name, out)
		}
		nothingLeft(t)
	}
	// What shares much, and keeps some files, is no attack.
	if out := run(t, must(t, Config{Timeout: time.Minute}), `
import mmap, os, socket
m, pairs = mmap.mmap(-1, 64<<20), [socket.socketpair() for _ in range(50)]
for at in range(0, 64<<20, 4096): m[at] = 1
for i in range(1000): open(f'/tmp/{i}', 'w').close()
pids = []
for i in range(20):
    if (pid := os.fork()) == 0:
        import time; sum(m[at] for at in range(0, 64<<20, 4096)); time.sleep(1); os._exit(0)
    pids.append(pid)
print([os.waitpid(p, 0)[1] for p in pids] == [0]*20)
`); out.Stdout != "True\n" {
		t.Errorf("got %+v", out)
	}
}

func TestTimeAndOutputAreBounded(t *testing.T) {
	s := must(t, Config{Timeout: 2 * time.Second, Output: 1000})
	for name, code := range map[string]string{"asleep": "import time; time.sleep(60)", "busy": "while True: pass", "deaf": "import signal,time\nfor n in range(1,65):\n  try: signal.signal(n, signal.SIG_IGN)\n  except (OSError, ValueError): pass\ntime.sleep(60)"} {
		began := time.Now()
		if out := run(t, s, code); !strings.Contains(out.Killed, "longer than 2s") {
			t.Errorf("%s: %+v", name, out)
		}
		if took := time.Since(began); took > 20*time.Second {
			t.Errorf("%s: it took %s", name, took)
		}
	}
	s = must(t, Config{Timeout: 15 * time.Second, Output: 1000}) // Python takes its time to start on a machine that has other things to do
	out := run(t, s, "import sys\nwhile True: sys.stdout.write('x'*100000)")
	if len(out.Stdout) != 1000 || out.Lost < 100000 || out.Killed == "" {
		t.Errorf("kept %d, lost %d, %s", len(out.Stdout), out.Lost, out.Killed)
	}
	nothingLeft(t)
}

func TestADaemonDiesWithItsProgram(t *testing.T) {
	s := must(t, Config{})
	out := run(t, s, `
import os, time
if os.fork() == 0:
    os.setsid()
    if os.fork() == 0:
        os.close(0); os.close(1); os.close(2)
        time.sleep(300)
    os._exit(0)
os.wait(); print('left a daemon')
`)
	if out.Stdout != "left a daemon\n" || out.Took > 10*time.Second {
		t.Errorf("got %+v", out)
	}
	nothingLeft(t)
}

func TestTheSandboxDiesWithTheProgramThatMadeIt(t *testing.T) {
	if os.Getenv("SANDBOX_CHILD") != "" {
		must(t, Config{}).Run(t.Context(), "import time; time.sleep(300)", time.Hour) //nolint:errcheck // it is killed
		return
	}
	child := exec.Command(os.Args[0], "-test.run", "^"+t.Name()+"$")
	child.Env = append(os.Environ(), "SANDBOX_CHILD=1")
	if err := child.Start(); err != nil {
		t.Fatal(err)
	}
	for deadline := time.Now().Add(time.Minute); len(sandboxed(child.Process.Pid)) == 0; time.Sleep(20 * time.Millisecond) {
		if time.Now().After(deadline) {
			t.Fatal("it did not start")
		}
	}
	if err := child.Process.Kill(); err != nil {
		t.Fatal(err)
	}
	child.Wait() //nolint:errcheck // it was killed
	noneOf(t, child.Process.Pid)
}
