package lab

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"runtime"
	"strconv"
	"strings"
	"sync"
	"syscall"
	"time"
)

// processes starts the lab's long-running children so that they die with this process, whatever ends it: the kernel kills
// them when the thread that started them ends (prctl(2), PR_SET_PDEATHSIG), so one thread is kept for that. Each is also
// written down with its start time, for the next lab to look after.
type processes struct {
	file  string // "PID STARTTIME NAME" by line
	start chan *exec.Cmd
	done  chan error
	mu    sync.Mutex
}

func newProcesses(file string) *processes {
	p := &processes{file: file, start: make(chan *exec.Cmd), done: make(chan error)}
	go func() {
		runtime.LockOSThread() // never unlocked: the thread ends with this goroutine
		for cmd := range p.start {
			p.done <- cmd.Start()
		}
	}()
	return p
}

// spawn starts a command as a child that dies with this process, in a process group of its own.
func (p *processes) spawn(cmd *exec.Cmd) error {
	p.mu.Lock()
	defer p.mu.Unlock()
	if p.start == nil {
		return fmt.Errorf("start %s: the lab is closed", filepath.Base(cmd.Path))
	}
	cmd.SysProcAttr = &syscall.SysProcAttr{Pdeathsig: syscall.SIGKILL, Setpgid: true}
	cmd.Dir = "/"
	p.start <- cmd
	if err := <-p.done; err != nil {
		return fmt.Errorf("start %s: %w", filepath.Base(cmd.Path), err)
	}
	f, err := os.OpenFile(p.file, os.O_APPEND|os.O_CREATE|os.O_WRONLY, 0o600)
	if err == nil {
		_, err = fmt.Fprintf(f, "%d %s %s\n", cmd.Process.Pid, started(cmd.Process.Pid), filepath.Base(cmd.Path))
		f.Close()
	}
	if err != nil {
		return errors.Join(fmt.Errorf("write down process %d: %w", cmd.Process.Pid, err), cmd.Process.Kill(), cmd.Wait())
	}
	return nil
}

func (p *processes) close() {
	p.mu.Lock()
	defer p.mu.Unlock()
	if p.start != nil {
		close(p.start)
		p.start = nil
	}
}

// started returns when a process began, in clock ticks after boot (the 22nd field of proc_pid_stat(5)), "" when it is gone
// or only a zombie. With it a process is known again although its number may have been given to another.
func started(pid int) string {
	b, _ := os.ReadFile(fmt.Sprintf("/proc/%d/stat", pid))
	_, rest, _ := bytes.Cut(b, []byte(") ")) // the name before it may hold anything but is ours
	fields := strings.Fields(string(rest))
	if len(fields) < 20 || fields[0] == "Z" {
		return ""
	}
	return fields[19]
}

// endRecorded kills the processes that are written down in a file and still the same ones.
func endRecorded(file string) {
	text, _ := os.ReadFile(file)
	for line := range strings.Lines(string(text)) {
		var pid int
		var when, name string
		if n, _ := fmt.Sscan(line, &pid, &when, &name); n == 3 && pid > 1 && when != "" && started(pid) == when {
			syscall.Kill(pid, syscall.SIGKILL) //nolint:errcheck // it may have ended this moment
			gone(pid, when)
		}
	}
}

// endInside kills every process whose network namespace is the one that a file names. Only a lab's machines are in there.
func endInside(space string) {
	inside, err := os.Stat(space)
	if err != nil {
		return
	}
	own, err := os.Stat("/proc/self/ns/net")
	if err != nil || os.SameFile(inside, own) {
		return
	}
	entries, _ := filepath.Glob("/proc/[0-9]*/ns/net")
	for _, e := range entries {
		if at, err := os.Stat(e); err != nil || !os.SameFile(at, inside) {
			continue
		}
		pid, _ := strconv.Atoi(strings.Split(e, "/")[2])
		if when := started(pid); pid > 1 && when != "" {
			syscall.Kill(pid, syscall.SIGKILL) //nolint:errcheck // it may have ended this moment
			gone(pid, when)
		}
	}
}

// gone waits until a killed process is no more, at most two seconds.
func gone(pid int, when string) {
	for range 200 {
		if started(pid) != when {
			return
		}
		time.Sleep(10 * time.Millisecond)
	}
}

// run runs a command to its end and returns its standard output. The error holds what it wrote to the other.
func run(ctx context.Context, name string, args ...string) (string, error) {
	ctx, cancel := context.WithTimeout(ctx, patience)
	defer cancel()
	cmd := exec.CommandContext(ctx, name, args...)
	cmd.WaitDelay = 5 * time.Second
	var out, said bytes.Buffer
	cmd.Stdout, cmd.Stderr = &out, &said
	if err := cmd.Run(); err != nil {
		if ctx.Err() != nil {
			err = context.Cause(ctx)
		}
		return out.String(), fmt.Errorf("run %s: %w: %s", strings.Join(cmd.Args, " "), err, strings.TrimSpace(said.String()))
	}
	return out.String(), nil
}

// writeFile writes a file in one step: nobody reads half of it.
func writeFile(file string, b []byte, mode os.FileMode) error {
	part := file + ".part"
	if err := os.WriteFile(part, b, mode); err != nil {
		return err
	}
	return os.Rename(part, file)
}
