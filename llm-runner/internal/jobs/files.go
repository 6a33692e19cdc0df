package jobs

import (
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path"
	"path/filepath"
	"strings"
	"syscall"
)

// What stands here works on files of a vault through an os.Root: nothing leads out of it. Files become visible under their
// names whole, and never take the place of another one; names are slash-separated.

// scratch is the one file in a folder that is not whole. It is hidden, so neither editors nor the library look at it, and
// each folder has one writer; what a killed process left is written over.
const scratch = ".llm-runner.tmp"

// there says whether a name is taken, by a link too.
func there(root *os.Root, p string) (bool, error) {
	_, err := root.Lstat(p)
	if errors.Is(err, fs.ErrNotExist) {
		return false, nil
	}
	return err == nil, err
}

// isMount says that the folder that root was opened on is a disk of its own.
func isMount(root *os.Root, dir string) (bool, error) {
	here, err := root.Stat(".")
	if err != nil {
		return false, err
	}
	dir, err = filepath.Abs(dir)
	if err != nil {
		return false, err
	}
	above, err := os.Stat(filepath.Dir(dir))
	if err != nil {
		return false, err
	}
	a, ok := here.Sys().(*syscall.Stat_t)
	b, also := above.Sys().(*syscall.Stat_t)
	return ok && also && a.Dev != b.Dev, nil
}

// folder makes a folder where it is missing, and those above it. None of them may be a link.
func folder(root *os.Root, p string) error {
	at := ""
	for part := range strings.SplitSeq(p, "/") {
		at = path.Join(at, part)
		info, err := root.Lstat(at)
		if errors.Is(err, fs.ErrNotExist) {
			if err = root.Mkdir(at, 0o755); err == nil {
				continue
			}
		}
		if err != nil {
			return err
		}
		if !info.IsDir() {
			return fmt.Errorf("%s is a file or a link, not a folder: make it one", at)
		}
	}
	return nil
}

// errOdd is met at a name that is not a plain file of a bearable size.
type errOdd string

func (e errOdd) Error() string { return string(e) }

// readWhole reads a plain file of at most limit bytes. An errOdd says that it is none.
func readWhole(root *os.Root, p string, limit int64) ([]byte, error) {
	before, err := root.Lstat(p)
	if err != nil {
		return nil, err
	}
	switch {
	case before.Mode()&fs.ModeSymlink != 0:
		return nil, errOdd("is a link: put the file itself here")
	case !before.Mode().IsRegular():
		return nil, errOdd("is not a plain file: put a text file here")
	case before.Size() > limit:
		return nil, errOdd(fmt.Sprintf("has %d bytes, more than %d: shorten it", before.Size(), limit))
	}
	f, err := root.Open(p)
	if errors.Is(err, fs.ErrPermission) {
		return nil, errOdd("cannot be read by the user that this program runs as: allow it to")
	}
	if err != nil {
		return nil, err
	}
	defer f.Close()
	if now, err := f.Stat(); err != nil || !os.SameFile(before, now) {
		return nil, errors.Join(err, fmt.Errorf("read %s: it was replaced meanwhile", p))
	}
	text, err := io.ReadAll(io.LimitReader(f, limit+1))
	if err == nil && int64(len(text)) > limit {
		return nil, errOdd(fmt.Sprintf("has more than %d bytes: shorten it", limit))
	}
	return text, err
}

// prepare writes a file under its folder's scratch name, to the disk.
func prepare(root *os.Root, dir string, text []byte, mode fs.FileMode) (name string, err error) {
	name = path.Join(dir, scratch)
	if err := root.Remove(name); err != nil && !errors.Is(err, fs.ErrNotExist) {
		return "", err
	}
	f, err := root.OpenFile(name, os.O_WRONLY|os.O_CREATE|os.O_EXCL, mode)
	if err != nil {
		return "", err
	}
	_, err = f.Write(text)
	if err == nil {
		err = f.Sync()
	}
	if err = errors.Join(err, f.Close()); err != nil {
		root.Remove(name) //nolint:errcheck // what is left is written over
		return "", err
	}
	return name, nil
}

// create writes a new file. fs.ErrExist says that the name is taken.
func create(root *os.Root, p string, text []byte) error {
	name, err := prepare(root, path.Dir(p), text, 0o644)
	if err != nil {
		return err
	}
	if err = rename(root, name, p); err != nil {
		root.Remove(name) //nolint:errcheck // what is left is written over
	}
	return err
}

// rewrite gives a file another content.
func rewrite(root *os.Root, p string, text []byte) error {
	info, err := root.Lstat(p)
	if err != nil {
		return err
	}
	name, err := prepare(root, path.Dir(p), text, info.Mode().Perm())
	if err != nil {
		return err
	}
	if err := root.Rename(name, p); err != nil {
		return err
	}
	return flush(root, path.Dir(p))
}

// rename gives a file another name, both on the disk when it returns. fs.ErrExist says that the name is taken,
// fs.ErrNotExist that the file is gone.
func rename(root *os.Root, from, to string) error {
	if err := renameNew(root, from, to); err != nil {
		return err
	}
	if path.Dir(from) != path.Dir(to) {
		if err := flush(root, path.Dir(from)); err != nil {
			return err
		}
	}
	return flush(root, path.Dir(to))
}

// carefully is rename where the file system cannot refuse to replace a file by itself.
func carefully(root *os.Root, from, to string) error {
	taken, err := there(root, to)
	if err != nil {
		return err
	}
	if taken {
		return &os.LinkError{Op: "rename", Old: from, New: to, Err: fs.ErrExist}
	}
	return root.Rename(from, to)
}

// flush has a folder's names on the disk. Some file systems have no such thing, and that is well.
func flush(root *os.Root, dir string) error {
	d, err := root.Open(dir)
	if err != nil {
		return err
	}
	defer d.Close()
	if err := d.Sync(); err != nil && !errors.Is(err, syscall.EINVAL) && !errors.Is(err, syscall.ENOTSUP) {
		return err
	}
	return nil
}
