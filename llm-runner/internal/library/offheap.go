package library

import (
	"runtime"
	"syscall"
)

// large is the size in bytes from which postings are kept outside the heap.
const large = 64 << 10

// offHeap returns a copy of b for owner, outside the heap where it is large: the garbage collector lets the heap grow to twice what is in
// it, and postings are most of what this program keeps. The copy is given back with its owner and must not outlive it.
func offHeap(owner *postings, b []byte) []byte {
	if len(b) < large {
		return append([]byte(nil), b...)
	}
	m, err := syscall.Mmap(-1, 0, len(b), syscall.PROT_READ|syscall.PROT_WRITE, syscall.MAP_ANON|syscall.MAP_PRIVATE)
	if err != nil {
		return append([]byte(nil), b...)
	}
	copy(m, b)
	runtime.AddCleanup(owner, func(m []byte) { syscall.Munmap(m) }, m) //nolint:errcheck // what cannot be given back is kept
	return m
}
