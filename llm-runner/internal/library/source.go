package library

import (
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path"
	"path/filepath"
	"slices"
	"strings"
	"time"
)

// A Source is a tree of Markdown files. Make one with Dir or Embedded.
type Source struct {
	// ID tells one tree from another: an index made of one is never used for the other.
	ID string
	// Name is what people call it: the folder's path, or "handbook".
	Name string

	fixed bool // cannot change while this program runs
	open  func() (tree, func() error, error)
}

// tree is what a Source opens: os.Root's file system and embed.FS both are one.
type tree interface {
	fs.ReadDirFS
	fs.ReadFileFS
}

// Dir returns the folder at dir as a Source, or why it cannot be opened now. It holds nothing open, so the folder may go and
// come back later (a network mount). Each reading opens it as an os.Root: neither a link nor ".." leads out of it.
func Dir(dir string) (Source, error) {
	abs, err := filepath.Abs(dir)
	if err != nil {
		return Source{}, fmt.Errorf("open notes %s: %w", dir, err)
	}
	s := Source{ID: "vault:" + abs, Name: abs, open: func() (tree, func() error, error) {
		root, err := os.OpenRoot(abs)
		if err != nil {
			return nil, nil, fmt.Errorf("open notes: %w", err)
		}
		return root.FS().(tree), root.Close, nil
	}}
	_, done, err := s.open()
	if err != nil {
		return Source{}, err
	}
	return s, done()
}

// Embedded returns files that are part of the program as a Source.
func Embedded(name string, fsys fs.FS) Source {
	return Source{ID: "embedded:" + name, Name: name, fixed: true, open: func() (tree, func() error, error) {
		t, ok := fsys.(tree)
		if !ok {
			return nil, nil, fmt.Errorf("open notes %s: a %T cannot be listed", name, fsys)
		}
		return t, func() error { return nil }, nil
	}}
}

const (
	maxNote = 5 << 20 // bytes: larger files are exports and logs, not notes
	// A file whose time stamp is this young may change again within the same tick of the clock, so its stamp is not
	// trusted yet (the "racy git" problem, git's Documentation/technical/racy-git.txt). FAT counts in steps of 2 s.
	racy = 2 * time.Second
)

// jobFolders are the folders at the top of a vault that belong to jobs, not to notes.
var jobFolders = []string{"_queue", "_active", "_completed", "_failed", "runner-outputs"}

// A Skip is a file that is not in the index, and why.
type Skip struct {
	Path   string `json:"path"`
	Reason string `json:"reason"`
}

// An entry is one Markdown file, as a walk sees it.
type entry struct {
	path   string
	size   int64
	mtime  int64  // unix nanoseconds; 0: not to be trusted
	reason string // why its content is not read; "" it is
}

// walk lists the Markdown files of t in lexical order, whatever is hidden or belongs to jobs left out. Folders that cannot
// be read are returned by path: what is known of their files stays.
func walk(t tree, now time.Time) (files []entry, unread []Skip, err error) {
	err = fs.WalkDir(t, ".", func(p string, d fs.DirEntry, err error) error {
		switch {
		case err != nil && p == ".":
			return err
		case err != nil:
			unread = append(unread, Skip{p, "cannot be read: " + cause(err)})
			if d != nil && d.IsDir() {
				return fs.SkipDir
			}
			return nil
		case p == ".":
			return nil
		case d.IsDir():
			if hidden(p) {
				return fs.SkipDir
			}
			return nil
		case hidden(p) || !isMarkdown(p):
			return nil
		}
		e, err := look(t, p, d, now)
		switch {
		case errors.Is(err, fs.ErrNotExist): // gone since the folder was listed
		case err != nil:
			unread = append(unread, Skip{p, "cannot be read: " + cause(err)})
		default:
			files = append(files, e)
		}
		return nil
	})
	return files, unread, err
}

func look(t tree, p string, d fs.DirEntry, now time.Time) (entry, error) {
	if d.Type()&fs.ModeSymlink != 0 {
		info, err := fs.Stat(t, p)
		if err != nil {
			return entry{path: p, reason: "is a link that leads out of the notes or to nothing"}, nil //nolint:nilerr // it is the note's state
		}
		if info.IsDir() {
			return entry{path: p, reason: "is a link to a folder; links to folders are not followed"}, nil
		}
		return newEntry(p, info, now), nil
	}
	info, err := d.Info()
	if err != nil {
		return entry{}, err
	}
	return newEntry(p, info, now), nil
}

func newEntry(p string, info fs.FileInfo, now time.Time) entry {
	e := entry{path: p, size: info.Size()}
	if m := info.ModTime(); !m.IsZero() && now.Sub(m) > racy {
		e.mtime = m.UnixNano()
	}
	switch {
	case !info.Mode().IsRegular():
		e.reason = "is not a regular file"
	case e.size > maxNote:
		e.reason = fmt.Sprintf("is larger than %d MB", maxNote>>20)
	}
	return e
}

// hidden says that a path belongs to a program and not to the writer: dot files and folders (.obsidian, .git, .trash) at
// any depth, the folders of jobs at the top.
func hidden(p string) bool {
	first, _, _ := strings.Cut(p, "/")
	if slices.Contains(jobFolders, first) {
		return true
	}
	for name := range strings.SplitSeq(p, "/") {
		if strings.HasPrefix(name, ".") {
			return true
		}
	}
	return false
}

func isMarkdown(p string) bool {
	ext := path.Ext(p)
	return strings.EqualFold(ext, ".md") || strings.EqualFold(ext, ".markdown")
}

// withoutExt returns p without the ending of a Markdown file.
func withoutExt(p string) string {
	if isMarkdown(p) {
		return strings.TrimSuffix(p, path.Ext(p))
	}
	return p
}

// read returns the bytes of one note. Only paths that walk would list are opened.
func read(t tree, p string) ([]byte, error) {
	if !fs.ValidPath(p) || hidden(p) || !isMarkdown(p) {
		return nil, &fs.PathError{Op: "open", Path: p, Err: fs.ErrNotExist}
	}
	info, err := fs.Stat(t, p) // before opening: a named pipe would block
	if err != nil {
		return nil, err
	}
	if e := newEntry(p, info, time.Time{}); e.reason != "" {
		return nil, &fs.PathError{Op: "open", Path: p, Err: errors.New(e.reason)}
	}
	return t.ReadFile(p)
}

// cause returns what went wrong without the path, which stands beside it.
func cause(err error) string {
	var pe *fs.PathError
	if errors.As(err, &pe) {
		return pe.Err.Error()
	}
	return err.Error()
}
