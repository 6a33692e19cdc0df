package jobs

import (
	"errors"
	"os"
	"path"

	"golang.org/x/sys/unix"
)

// renameNew renames a file in one step that fails where the new name is taken (renameat2(2), RENAME_NOREPLACE).
func renameNew(root *os.Root, from, to string) error {
	a, err := root.Open(path.Dir(from))
	if err != nil {
		return err
	}
	defer a.Close()
	b, err := root.Open(path.Dir(to))
	if err != nil {
		return err
	}
	defer b.Close()
	err = unix.Renameat2(int(a.Fd()), path.Base(from), int(b.Fd()), path.Base(to), unix.RENAME_NOREPLACE)
	if errors.Is(err, unix.EINVAL) || errors.Is(err, unix.ENOSYS) { // the file system does not know how: NFS, some of FUSE
		return carefully(root, from, to)
	}
	if err != nil {
		return &os.LinkError{Op: "rename", Old: from, New: to, Err: err}
	}
	return nil
}
