package main

import (
	"encoding/json"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"syscall"
)

// An owner is the one process that works on a data directory. It holds a lock on the file "owner" there, which the
// kernel drops when the process dies, however it dies; the file says how other commands reach it.
type owner struct {
	file *os.File
	path string
}

// ownedError says that another process works on the data directory.
type ownedError struct {
	dir string
	doorbell
}

func (e *ownedError) Error() string {
	s := fmt.Sprintf("the data directory %s is in use by process %d", e.dir, e.PID)
	if e.URL != "" {
		s += ", which serves " + e.URL
	}
	return s + ": stop that process, or name another directory with --data"
}

// unwritable is what to look at where a data directory takes no writes.
const unwritable = "is it this user's, on a disk with room that is mounted for writing? Another one is named with --data"

// own makes the directory where it is missing and takes it. A *ownedError says who has it already.
func own(dir string) (*owner, error) {
	if err := os.MkdirAll(dir, 0o700); err != nil {
		return nil, fmt.Errorf("make data directory: %w: %s", err, unwritable)
	}
	path := filepath.Join(dir, "owner")
	f, err := os.OpenFile(path, os.O_RDWR|os.O_CREATE, 0o600)
	if err != nil {
		return nil, fmt.Errorf("lock data directory: %w: %s", err, unwritable)
	}
	if err := syscall.Flock(int(f.Fd()), syscall.LOCK_EX|syscall.LOCK_NB); err != nil {
		defer f.Close()
		if !errors.Is(err, syscall.EWOULDBLOCK) {
			return nil, fmt.Errorf("lock data directory %s: %w", dir, err)
		}
		held := &ownedError{dir: dir}
		json.NewDecoder(f).Decode(&held.doorbell) //nolint:errcheck // half-written while the owner starts: the PID is missing then
		return nil, held
	}
	o := &owner{f, path}
	return o, o.announce(doorbell{})
}

// announce tells other commands how to reach this process.
func (o *owner) announce(d doorbell) error {
	d.PID = os.Getpid()
	b, err := json.Marshal(d)
	if err != nil {
		return err
	}
	if err := o.file.Truncate(0); err != nil {
		return fmt.Errorf("lock data directory: %w: %s", err, unwritable)
	}
	if _, err := o.file.WriteAt(b, 0); err != nil {
		return fmt.Errorf("lock data directory: %w: %s", err, unwritable)
	}
	return nil
}

func (o *owner) release() {
	o.file.Truncate(0) //nolint:errcheck // the lock is what counts
	o.file.Close()
}
