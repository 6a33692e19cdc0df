package main

import (
	"os"
	"slices"
	"testing"
)

func TestOnlyCleanPagesOfTheProgramAreUnmapped(t *testing.T) {
	const smaps = `00400000-00a00000 r-xp 00000000 fe:00 12 /bin/llm-runner
Size:               6144 kB
Rss:                4000 kB
Anonymous:             0 kB
VmFlags: rd ex mr mw me
00a00000-00c00000 r--p 00600000 fe:00 12 /bin/llm-runner
Anonymous:             4 kB
00c00000-00d00000 rw-p 00800000 fe:00 12 /bin/llm-runner
Anonymous:             0 kB
00d00000-00e00000 r--p 00800000 fe:00 12 /bin/llm-runner
Anonymous:             0 kB
c000000000-c000400000 rw-p 00000000 00:00 0
Anonymous:             0 kB
7f0000000000-7f0000100000 r--p 00000000 fe:00 9 /usr/lib/locale
Anonymous:             0 kB
7ffd00000000-7ffd00021000 rw-p 00000000 00:00 0 [stack]
Anonymous:             0 kB
`
	want := []mapping{{0x400000, 0xa00000}, {0xd00000, 0xe00000}}
	if got := clean([]byte(smaps), "/bin/llm-runner"); !slices.Equal(got, want) {
		t.Errorf("%#x, want %#x", got, want)
	}
}

func TestTheProgramGoesOnWithoutItsPages(t *testing.T) {
	program, err := os.Readlink("/proc/self/exe")
	if err != nil {
		t.Skip("there is no /proc here")
	}
	before, err := os.ReadFile("/proc/self/smaps")
	if err != nil || len(clean(before, program)) == 0 {
		t.Fatalf("nothing of %s is found: %v", program, err)
	}
	for range 3 {
		unmap()
		if got := clean([]byte("garbage\n1-2\nz-y r-xp 0 0 0 x\nAnonymous:\n"), "x"); got != nil {
			t.Error(got)
		}
	}
}
