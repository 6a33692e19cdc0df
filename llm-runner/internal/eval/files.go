package eval

import (
	"io/fs"
	"maps"
	"path"
	"slices"
	"strings"
	"time"
)

// Files are texts by path, as a file system to read.
type Files map[string]string

func (f Files) ReadFile(name string) ([]byte, error) {
	text, ok := f[name]
	if !ok {
		return nil, &fs.PathError{Op: "open", Path: name, Err: fs.ErrNotExist}
	}
	return []byte(text), nil
}

func (f Files) ReadDir(name string) ([]fs.DirEntry, error) {
	prefix := name + "/"
	if name == "." {
		prefix = ""
	}
	below := map[string]file{}
	for _, p := range slices.Sorted(maps.Keys(f)) {
		if rest, ok := strings.CutPrefix(p, prefix); ok {
			first, _, deeper := strings.Cut(rest, "/")
			below[first] = file{first, int64(len(f[p])), deeper}
		}
	}
	var all []fs.DirEntry
	for _, n := range slices.Sorted(maps.Keys(below)) {
		all = append(all, fs.FileInfoToDirEntry(below[n]))
	}
	return all, nil
}

func (f Files) Stat(name string) (fs.FileInfo, error) {
	if text, ok := f[name]; ok {
		return file{path.Base(name), int64(len(text)), false}, nil
	}
	if all, err := f.ReadDir(name); err != nil || len(all) == 0 && name != "." {
		return nil, &fs.PathError{Op: "stat", Path: name, Err: fs.ErrNotExist}
	}
	return file{path.Base(name), 0, true}, nil
}

// Open is there for fs.FS and opens nothing: the library lists, reads and asks by the methods above.
func (f Files) Open(name string) (fs.File, error) {
	return nil, &fs.PathError{Op: "open", Path: name, Err: fs.ErrInvalid}
}

type file struct {
	name string
	size int64
	dir  bool
}

func (f file) Name() string       { return f.name }
func (f file) Size() int64        { return f.size }
func (f file) ModTime() time.Time { return time.Time{} }
func (f file) IsDir() bool        { return f.dir }
func (f file) Sys() any           { return nil }
func (f file) Mode() fs.FileMode {
	if f.dir {
		return fs.ModeDir | 0o555
	}
	return 0o444
}
