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

	"home.arpa/lab/llm-runner/internal/extract"
)

// A Source is a tree of notes: Markdown, plain text, and documents whose text is read out of them. Make one with Dir or Embedded.
type Source struct {
	// ID tells one tree from another: an index made of one is never used for the other.
	ID string
	// Name is what people call it: the folder's path, or "handbook".
	Name string

	fixed bool     // cannot change while this program runs
	dir   string   // "" where it is no folder
	leave []string // folders that are not notes

	excluded *exclusions // by the owner; set by Open
	open     func() (tree, func() error, error)
}

// tree is what a Source opens: os.Root's file system and embed.FS both are one.
type tree interface {
	fs.ReadDirFS
	fs.ReadFileFS
}

// Dir returns the folder at dir as a Source, or why it cannot be opened now. The folders below it that leave names are not
// looked into: they belong to jobs, not to notes. It holds nothing open, so the folder may go and
// come back later (a network mount). Each reading opens it as an os.Root: neither a link nor ".." leads out of it.
func Dir(dir string, leave ...string) (Source, error) {
	abs, err := filepath.Abs(dir)
	if err != nil {
		return Source{}, fmt.Errorf("open notes %s: %w", dir, err)
	}
	s := Source{ID: "vault:" + abs, Name: abs, dir: abs, leave: leave, open: func() (tree, func() error, error) {
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
	maxNote = 5 << 20 // bytes: larger text files are exports and logs, not notes
	// A file whose time stamp is this young may change again within the same tick of the clock, so its stamp is not
	// trusted yet (the "racy git" problem, git's Documentation/technical/racy-git.txt). FAT counts in steps of 2 s.
	racy = 2 * time.Second
)

// A Skip is a file that is not in the index, and why.
type Skip struct {
	Path   string `json:"path"`
	Reason string `json:"reason"`
}

// An entry is one file that is a note, as a walk sees it.
type entry struct {
	path   string
	size   int64
	mtime  int64  // unix nanoseconds; 0: not to be trusted
	reason string // why its content is not read; "" it is

	modified time.Time
}

// walk lists the notes of t in lexical order, whatever is hidden left out. Folders that cannot
// be read are returned by path: what is known of their files stays.
func (s *Source) walk(t tree, now time.Time) (files []entry, unread []Skip, err error) {
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
			if s.hidden(p) {
				return fs.SkipDir
			}
			return nil
		case s.hidden(p):
			return nil
		case !isNote(p):
			if d.Type()&fs.ModeSymlink != 0 {
				if info, err := fs.Stat(t, p); err == nil && info.IsDir() {
					files = append(files, entry{path: p, reason: linkedFolder})
				}
			}
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

const linkedFolder = "is a link to a folder; links to folders are not followed, for they may lead in circles"

func look(t tree, p string, d fs.DirEntry, now time.Time) (entry, error) {
	if d.Type()&fs.ModeSymlink != 0 {
		info, err := fs.Stat(t, p)
		if err != nil {
			return entry{path: p, reason: "is a link that leads out of the notes or to nothing"}, nil //nolint:nilerr // it is the note's state
		}
		if info.IsDir() {
			return entry{path: p, reason: linkedFolder}, nil
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
	e := entry{path: p, size: info.Size(), modified: info.ModTime()}
	if m := info.ModTime(); !m.IsZero() && now.Sub(m) > racy {
		e.mtime = m.UnixNano()
	}
	switch {
	case !info.Mode().IsRegular():
		e.reason = "is not a regular file"
	case isDocument(p) && e.size > extract.MaxFile:
		e.reason = fmt.Sprintf("is larger than %d MB", extract.MaxFile>>20)
	case !isDocument(p) && e.size > maxNote:
		e.reason = fmt.Sprintf("is larger than %d MB, the most for a text file", maxNote>>20)
	}
	return e
}

// hidden says that a path belongs to a program and not to the writer: dot files and folders (.obsidian, .git, .trash) at
// any depth, and the folders of jobs.
func (s *Source) hidden(p string) bool {
	if slices.ContainsFunc(s.leave, func(folder string) bool { return p == folder || strings.HasPrefix(p, folder+"/") }) {
		return true
	}
	for name := range strings.SplitSeq(p, "/") {
		if strings.HasPrefix(name, ".") {
			return true
		}
	}
	return s.excluded != nil && s.excluded.hides(p)
}

// isNote says that a file's ending is one that is read.
func isNote(p string) bool { return extract.ByName(p) != "" }

// isDocument says that a note's text is read out of it: what is quoted of it is not its bytes.
func isDocument(p string) bool {
	switch extract.ByName(p) {
	case "", extract.Markdown, extract.Plain:
		return false
	}
	return true
}

// withoutExt returns p without the ending of a note.
func withoutExt(p string) string {
	if isNote(p) {
		return strings.TrimSuffix(p, path.Ext(p))
	}
	return p
}

// target returns where a note that is a link leads, below the folder of the notes; "" leads elsewhere.
func (s *Source) target(p string) (to string, linked bool) {
	name := filepath.Join(s.dir, filepath.FromSlash(p))
	if info, err := os.Lstat(name); err != nil || info.Mode()&fs.ModeSymlink == 0 {
		return "", false
	}
	root, err1 := filepath.EvalSymlinks(s.dir)
	name, err2 := filepath.EvalSymlinks(name)
	if err1 != nil || err2 != nil {
		return "", true
	}
	rel, err := filepath.Rel(root, name)
	if err != nil || strings.HasPrefix(rel, "..") {
		return "", true
	}
	return filepath.ToSlash(rel), true
}

// read returns the bytes of one note. Only paths that walk would list are opened.
func (s *Source) read(t tree, p string) ([]byte, error) {
	if !fs.ValidPath(p) || s.hidden(p) || !isNote(p) {
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
