package engine

import (
	"time"

	"golang.org/x/sys/unix"
)

// steady is the time since the machine began, the time that it slept included.
func steady() time.Duration {
	var t unix.Timespec
	if err := unix.ClockGettime(unix.CLOCK_BOOTTIME, &t); err != nil {
		return time.Since(begun)
	}
	return time.Duration(t.Nano())
}

var begun = time.Now()
