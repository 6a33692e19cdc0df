// Package tree measures a folder and compares two measurements: what is in each file, and everything about it that a restore
// must bring back.
package tree

import (
	"crypto/sha256"
	"encoding/hex"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"maps"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"syscall"

	"golang.org/x/sys/unix"
)

// An Entry is one file, folder or link. Hard links are recognised by being the same file.
type Entry struct {
	Path   string            `json:"path"` // relative to the root, "." the root itself; quoted like a Go string where it is not plain
	Type   string            `json:"type"` // file, dir, link, pipe, other
	Mode   string            `json:"mode"` // octal, with setuid, setgid and sticky
	UID    uint32            `json:"uid"`
	GID    uint32            `json:"gid"`
	Size   int64             `json:"size,omitempty"` // of files
	MTime  int64             `json:"mtime"`          // nanoseconds since 1970
	SHA256 string            `json:"sha256,omitempty"`
	Target string            `json:"target,omitempty"` // of links
	Xattrs map[string]string `json:"xattrs,omitempty"` // hexadecimal
	Same   string            `json:"same,omitempty"`   // the first path under which this file was met, if it has several
}

// Measure reads everything below root, in order of path. skip names paths below root, relative, that are left out with all
// that is in them; it may be nil.
func Measure(root string, skip func(rel string) bool) ([]Entry, error) {
	var out []Entry
	first := map[[2]uint64]string{}
	err := filepath.WalkDir(root, func(p string, d fs.DirEntry, err error) error {
		if err != nil {
			return err
		}
		rel, err := filepath.Rel(root, p)
		if err != nil {
			return err
		}
		if skip != nil && rel != "." && skip(rel) {
			if d.IsDir() {
				return filepath.SkipDir
			}
			return nil
		}
		e, err := measure(p, rel, first)
		out = append(out, e)
		return err
	})
	if err != nil {
		return nil, fmt.Errorf("measure %s: %w", root, err)
	}
	return out, nil
}

func measure(p, rel string, first map[[2]uint64]string) (Entry, error) {
	e := Entry{Path: plain(rel)}
	var st unix.Stat_t
	if err := unix.Lstat(p, &st); err != nil {
		return e, &fs.PathError{Op: "lstat", Path: p, Err: err}
	}
	e.UID, e.GID, e.MTime = st.Uid, st.Gid, st.Mtim.Nano()
	e.Mode = fmt.Sprintf("%04o", st.Mode&0o7777)
	var err error
	switch st.Mode & syscall.S_IFMT {
	case syscall.S_IFREG:
		e.Type, e.Size = "file", st.Size
		if st.Nlink > 1 {
			id := [2]uint64{st.Dev, st.Ino}
			if e.Same = first[id]; e.Same == "" {
				first[id] = e.Path
			}
		}
		e.SHA256, err = hash(p)
	case syscall.S_IFDIR:
		e.Type = "dir"
	case syscall.S_IFLNK:
		e.Type, e.Mode = "link", "" // the mode of a link means nothing
		var target string
		target, err = os.Readlink(p)
		e.Target = plain(target)
	case syscall.S_IFIFO:
		e.Type = "pipe"
	default:
		e.Type = "other"
	}
	if err != nil {
		return e, err
	}
	e.Xattrs, err = xattrs(p)
	return e, err
}

// plain keeps a path readable in JSON whatever bytes it has.
func plain(p string) string {
	if q := strconv.Quote(p); q != `"`+p+`"` {
		return q
	}
	return p
}

func hash(p string) (string, error) {
	f, err := os.Open(p)
	if err != nil {
		return "", err
	}
	defer f.Close()
	sum := sha256.New()
	if _, err := io.Copy(sum, f); err != nil {
		return "", err
	}
	return hex.EncodeToString(sum.Sum(nil)), nil
}

func xattrs(p string) (map[string]string, error) {
	size, err := unix.Llistxattr(p, nil)
	if errors.Is(err, unix.ENOTSUP) || err == nil && size == 0 {
		return nil, nil
	}
	if err != nil {
		return nil, &fs.PathError{Op: "list xattrs", Path: p, Err: err}
	}
	names := make([]byte, size)
	if size, err = unix.Llistxattr(p, names); err != nil {
		return nil, &fs.PathError{Op: "list xattrs", Path: p, Err: err}
	}
	if size == 0 { // overlayfs counts its own, and then does not name them
		return nil, nil
	}
	out := map[string]string{}
	for name := range strings.SplitSeq(strings.TrimSuffix(string(names[:size]), "\x00"), "\x00") {
		n, err := unix.Lgetxattr(p, name, nil)
		if err != nil {
			return nil, &fs.PathError{Op: "read xattr " + name, Path: p, Err: err}
		}
		value := make([]byte, n)
		if n > 0 {
			if n, err = unix.Lgetxattr(p, name, value); err != nil {
				return nil, &fs.PathError{Op: "read xattr " + name, Path: p, Err: err}
			}
		}
		out[name] = hex.EncodeToString(value[:n])
	}
	return out, nil
}

// A Difference between two measurements.
type Difference struct {
	Path string `json:"path"`
	What string `json:"what"` // missing, added, or the property with both values
}

// Diff says in what is differs from was, in order of path. Nothing means that they are the same.
func Diff(was, is []Entry) []Difference {
	there := make(map[string]Entry, len(is))
	for _, e := range is {
		there[e.Path] = e
	}
	var out []Difference
	for _, a := range was {
		b, ok := there[a.Path]
		delete(there, a.Path)
		if !ok {
			out = append(out, Difference{a.Path, "missing"})
			continue
		}
		for _, c := range []struct {
			what string
			a, b any
		}{
			{"type", a.Type, b.Type}, {"mode", a.Mode, b.Mode}, {"uid", a.UID, b.UID}, {"gid", a.GID, b.GID}, {"size", a.Size, b.Size},
			{"mtime", a.MTime, b.MTime}, {"sha256", a.SHA256, b.SHA256}, {"target", a.Target, b.Target}, {"hard link", a.Same, b.Same},
		} {
			if c.a != c.b {
				out = append(out, Difference{a.Path, fmt.Sprintf("%s: was %v, is %v", c.what, c.a, c.b)})
			}
		}
		if !maps.Equal(a.Xattrs, b.Xattrs) {
			out = append(out, Difference{a.Path, fmt.Sprintf("xattrs: were %v, are %v", a.Xattrs, b.Xattrs)})
		}
	}
	for _, p := range slices.Sorted(maps.Keys(there)) {
		out = append(out, Difference{p, "added"})
	}
	return out
}
