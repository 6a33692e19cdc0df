package main

import (
	"bytes"
	"os"
	"strconv"
	"strings"

	"golang.org/x/sys/unix"
)

// unmap takes out of this process's memory the pages of its own program: what the start needed once is half of them, and whoever is
// needed again is mapped again from the file, 64 kB at a time, in microseconds. Only pages that nobody can write and nobody has written are taken
// (madvise(2): MADV_DONTNEED would bring those back as they are in the file). It does its best and tells of no error.
func unmap() {
	program, err := os.Readlink("/proc/self/exe")
	if err != nil {
		return
	}
	smaps, err := os.ReadFile("/proc/self/smaps")
	if err != nil {
		return
	}
	for _, m := range clean(smaps, program) {
		_, _, _ = unix.Syscall(unix.SYS_MADVISE, m.from, m.to-m.from, unix.MADV_DONTNEED)
	}
}

// mapping is the addresses [from, to) of a part of a file.
type mapping struct{ from, to uintptr }

// clean returns the mappings of a file that cannot be written and of which no page is the process's own, from the text of proc(5)'s smaps.
func clean(smaps []byte, file string) (all []mapping) {
	var now mapping
	for line := range bytes.Lines(smaps) {
		fields := strings.Fields(string(line))
		if len(fields) == 0 {
			continue
		}
		if from, to, ok := strings.Cut(fields[0], "-"); ok && !strings.HasSuffix(fields[0], ":") {
			now = mapping{}
			a, err1 := strconv.ParseUint(from, 16, 64)
			b, err2 := strconv.ParseUint(to, 16, 64)
			if err1 == nil && err2 == nil && len(fields) == 6 && fields[5] == file && strings.HasPrefix(fields[1], "r-") {
				now = mapping{uintptr(a), uintptr(b)}
			}
			continue
		}
		if fields[0] == "Anonymous:" && len(fields) > 1 && fields[1] == "0" && now.to > now.from {
			all = append(all, now)
			now = mapping{}
		}
	}
	return all
}
