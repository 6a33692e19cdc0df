package sandbox

import (
	"bytes"
	"encoding/binary"
	"fmt"
	"os"
	"runtime"

	"golang.org/x/sys/unix"
)

// forbidden are system calls that no program needs for computing: some have let out of sandboxes before, others take memory that belongs to no
// process, and so is counted for none. Everything else is bounded by the namespaces.
var forbidden = []uint32{
	unix.SYS_KEYCTL, unix.SYS_ADD_KEY, unix.SYS_REQUEST_KEY, unix.SYS_BPF, unix.SYS_PERF_EVENT_OPEN, unix.SYS_USERFAULTFD,
	unix.SYS_IO_URING_SETUP, unix.SYS_IO_URING_ENTER, unix.SYS_IO_URING_REGISTER, unix.SYS_PTRACE, unix.SYS_PROCESS_VM_READV, unix.SYS_PROCESS_VM_WRITEV,
	unix.SYS_MOUNT, unix.SYS_UMOUNT2, unix.SYS_PIVOT_ROOT, unix.SYS_CHROOT, unix.SYS_UNSHARE, unix.SYS_SETNS, unix.SYS_FSOPEN, unix.SYS_MOVE_MOUNT, unix.SYS_OPEN_TREE,
	unix.SYS_OPEN_BY_HANDLE_AT, unix.SYS_NAME_TO_HANDLE_AT, unix.SYS_KEXEC_LOAD, unix.SYS_INIT_MODULE, unix.SYS_FINIT_MODULE, unix.SYS_DELETE_MODULE,
	unix.SYS_REBOOT, unix.SYS_SWAPON, unix.SYS_SWAPOFF, unix.SYS_ACCT, unix.SYS_SYSLOG, unix.SYS_SETTIMEOFDAY, unix.SYS_CLOCK_SETTIME, unix.SYS_QUOTACTL,
	unix.SYS_MEMFD_CREATE, unix.SYS_SHMGET, unix.SYS_SHMAT, unix.SYS_MSGGET, unix.SYS_SEMGET, unix.SYS_MQ_OPEN,
	447, // memfd_secret, which has that number everywhere (syscall_64.tbl)
}

// arches are what the kernel calls the processors for which the numbers above hold.
var arches = map[string]uint32{"amd64": unix.AUDIT_ARCH_X86_64, "arm64": unix.AUDIT_ARCH_AARCH64, "riscv64": unix.AUDIT_ARCH_RISCV64}

// x32 marks the calls of the third way into an x86-64 kernel (syscall(2)), whose numbers differ.
const x32 = 0x40000000

// seccomp returns a file with a filter of system calls for bubblewrap (kernel.org/doc/html/latest/userspace-api/seccomp_filter.html).
func seccomp() (*os.File, error) {
	arch, ok := arches[runtime.GOARCH]
	if !ok {
		return nil, fmt.Errorf("there is no filter of system calls for %s: code_exec works on amd64, arm64 and riscv64", runtime.GOARCH)
	}
	const load, equal, atLeast, give = unix.BPF_LD | unix.BPF_W | unix.BPF_ABS, unix.BPF_JMP | unix.BPF_JEQ | unix.BPF_K, unix.BPF_JMP | unix.BPF_JGE | unix.BPF_K, unix.BPF_RET | unix.BPF_K
	const number, architecture = 0, 4 // offsets in seccomp_data
	refuse := uint32(unix.SECCOMP_RET_ERRNO | uint32(unix.EPERM))
	program := []unix.SockFilter{
		{Code: load, K: architecture},
		{Code: equal, K: arch, Jt: 1},
		{Code: give, K: unix.SECCOMP_RET_KILL_PROCESS},
		{Code: load, K: number},
		{Code: atLeast, K: x32, Jf: 1},
		{Code: give, K: unix.SECCOMP_RET_KILL_PROCESS},
	}
	// Sockets lead from process to process, and nowhere else: of the other families, some (that of the hypervisor) know no namespace.
	const family = 16 // offset of the low half of the first argument: all three are little-endian
	for _, call := range []uint32{unix.SYS_SOCKET, unix.SYS_SOCKETPAIR} {
		program = append(program, unix.SockFilter{Code: equal, K: call, Jf: 4}, unix.SockFilter{Code: load, K: family},
			unix.SockFilter{Code: equal, K: unix.AF_UNIX, Jt: 1}, unix.SockFilter{Code: give, K: refuse}, unix.SockFilter{Code: give, K: unix.SECCOMP_RET_ALLOW})
	}
	for _, call := range forbidden {
		program = append(program, unix.SockFilter{Code: equal, K: call, Jf: 1}, unix.SockFilter{Code: give, K: refuse})
	}
	program = append(program, unix.SockFilter{Code: give, K: unix.SECCOMP_RET_ALLOW})
	var b bytes.Buffer
	if err := binary.Write(&b, binary.NativeEndian, program); err != nil {
		return nil, fmt.Errorf("write the filter of system calls: %w", err)
	}
	r, w, err := os.Pipe() // it holds 64 KiB, and this is less than one
	if err != nil {
		return nil, fmt.Errorf("write the filter of system calls: %w", err)
	}
	_, err = w.Write(b.Bytes())
	if closed := w.Close(); err == nil {
		err = closed
	}
	if err != nil {
		r.Close()
		return nil, fmt.Errorf("write the filter of system calls: %w", err)
	}
	return r, nil
}
