// Package whole writes files into folders that people and other programs write into too: a file is there whole or not at all, nobody's change
// is written over unseen, and what is written is on the disk. Everything goes through an os.Root, so no path leads out of the folder.
package whole

import (
	"crypto/rand"
	"errors"
	"io/fs"
	"os"
	"path"
	"sync"
	"time"
)

// ErrChanged says that a file is another one than was read.
var ErrChanged = errors.New("it was changed by somebody else at this moment: try again")

// Hook, if not nil, is told once a new text is on the disk and not under its name yet. For tests.
type Hook func()

// swapping keeps the writers of this process from passing each other between a look at a file and the rename over it.
var swapping sync.Mutex

// Create writes a new file; fs.ErrExist says that the name is taken.
func Create(root *os.Root, p string, text []byte, prepared Hook) error {
	beside, err := prepare(root, p, text, 0o644, nil)
	if err != nil {
		return err
	}
	prepared.call()
	err = root.Link(beside, p) // which, other than a rename, never replaces anything
	if err != nil && !errors.Is(err, fs.ErrExist) {
		return swap(root, beside, p, func() error { // a file system without links
			_, err := root.Lstat(p)
			if err == nil {
				return fs.ErrExist
			}
			return nil
		})
	}
	if err == nil {
		flush(root, path.Dir(p))
	}
	return errors.Join(err, root.Remove(beside))
}

// Replace gives a file another text, and leaves its mode and owner. before is the file as root.Lstat had it before it was read: where another
// one stands there by now, nothing is done, and the error is ErrChanged.
func Replace(root *os.Root, p string, text []byte, before fs.FileInfo, prepared Hook) error {
	beside, err := prepare(root, p, text, before.Mode().Perm(), before)
	if err != nil {
		return err
	}
	prepared.call()
	return swap(root, beside, p, func() error {
		now, err := root.Lstat(p)
		if err == nil && (!os.SameFile(now, before) || !now.ModTime().Equal(before.ModTime()) || now.Size() != before.Size()) {
			err = ErrChanged
		}
		return err
	})
}

// swap renames a file over another one if allowed says so at that moment; else it removes the first.
func swap(root *os.Root, beside, p string, allowed func() error) error {
	swapping.Lock()
	defer swapping.Unlock()
	err := allowed()
	if err == nil {
		err = root.Rename(beside, p)
	}
	if err != nil {
		return errors.Join(err, root.Remove(beside))
	}
	flush(root, path.Dir(p))
	return nil
}

// stale is how old a file must be that a dead process left.
const stale = time.Minute

// prepare writes a file beside another one, to the disk, under a name that nobody else takes; its dot hides it from editors and the library.
func prepare(root *os.Root, p string, text []byte, mode fs.FileMode, owner fs.FileInfo) (string, error) {
	dir, base := path.Dir(p), ".llm-runner-"+path.Base(p)+"-"
	sweep(root, dir, base)
	beside := path.Join(dir, base+rand.Text()[:12])
	f, err := root.OpenFile(beside, os.O_WRONLY|os.O_CREATE|os.O_EXCL, mode)
	if err != nil {
		return "", err
	}
	_, err = f.Write(text)
	if err == nil && owner != nil {
		err = errors.Join(f.Chmod(mode), own(f, owner))
	}
	if err == nil {
		err = f.Sync()
	}
	if err = errors.Join(err, f.Close()); err != nil {
		return "", errors.Join(err, root.Remove(beside))
	}
	return beside, nil
}

// sweep removes what processes that died have left beside a file.
func sweep(root *os.Root, dir, base string) {
	d, err := root.Open(dir)
	if err != nil {
		return
	}
	defer d.Close()
	names, _ := d.Readdirnames(-1)
	for _, name := range names {
		if len(name) != len(base)+12 || name[:len(base)] != base {
			continue
		}
		if st, err := root.Lstat(path.Join(dir, name)); err == nil && time.Since(st.ModTime()) > stale {
			root.Remove(path.Join(dir, name)) //nolint:errcheck // the next one tries again
		}
	}
}

// flush has a folder's names on the disk. Some file systems have no such thing, and that is well.
func flush(root *os.Root, dir string) {
	if d, err := root.Open(dir); err == nil {
		d.Sync() //nolint:errcheck // see above
		d.Close()
	}
}

func (h Hook) call() {
	if h != nil {
		h()
	}
}
