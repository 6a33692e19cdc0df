//go:build unix

package extract

import (
	"runtime/debug"

	"golang.org/x/sys/unix"
)

// confine bounds this process: memory, depth of the stack, processor time, and files, of which it may write none.
func confine() {
	debug.SetMaxStack(64 << 20)
	for what, most := range map[int]uint64{unix.RLIMIT_DATA: memory, unix.RLIMIT_FSIZE: 0, unix.RLIMIT_CORE: 0} {
		unix.Setrlimit(what, &unix.Rlimit{Cur: most, Max: most}) //nolint:errcheck // a bound that the system lacks is one less
	}
	seconds := uint64(work.Seconds())
	unix.Setrlimit(unix.RLIMIT_CPU, &unix.Rlimit{Cur: seconds, Max: seconds + 5}) //nolint:errcheck // the same; told first, killed then
}
