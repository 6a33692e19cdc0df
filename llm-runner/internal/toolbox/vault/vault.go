// Package vault has the tools that read and write the owner's notes. They never leave the folder of the notes, not by "..", not
// over symbolic links, also not where one is put there between a look and a write (os.Root).
package vault

import (
	"crypto/sha256"
	"encoding/hex"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path"
	"slices"
	"strings"
	"sync"
	"time"
	"unicode"
	"unicode/utf8"

	"home.arpa/lab/llm-runner/internal/whole"
)

const (
	mostBytes = 1 << 20 // of a note
	mostKept  = 20      // versions of each note
)

// Config says where the notes are. Path is required.
type Config struct {
	Path string // of the folder
	// Versions is the folder in which what a note said before is kept; it is made where it is missing. "" is required not to be.
	Versions string
	// Closed are folders, relative to Path, in which nothing is written: those in which files are jobs.
	Closed []string
	// Hidden says that no model is to see a note: who reads a tool's result is not known, and it is kept. nil: all may be seen.
	Hidden func(path string) bool
}

func (c Config) hides(p string) bool { return c.Hidden != nil && c.Hidden(p) }

// A Vault is a folder of notes. It is safe for concurrent use.
type Vault struct {
	c  Config
	mu sync.Mutex // held by whoever writes
}

// New returns the vault in a folder, which need not be there yet.
func New(c Config) *Vault { return &Vault{c: c} }

// missing says what there is to do before the tools work.
func (v *Vault) missing() string {
	if st, err := os.Stat(v.c.Path); err != nil || !st.IsDir() {
		return fmt.Sprintf("the vault %s is not there: is its disk mounted?", v.c.Path)
	}
	return ""
}

func (v *Vault) open() (*os.Root, error) {
	root, err := os.OpenRoot(v.c.Path)
	if err != nil {
		return nil, fmt.Errorf("open the vault: %w", err)
	}
	return root, nil
}

// name checks the path of a note, for reading.
func name(p string) (string, error) {
	given := p
	p = strings.TrimSpace(p)
	switch {
	case p == "":
		return "", errors.New("path: it is empty: write one such as projects/garden.md")
	case !utf8.ValidString(p) || strings.ContainsFunc(p, unicode.IsControl) || strings.Contains(p, `\`):
		return "", fmt.Errorf("path: %q holds characters that a note's name cannot have", given)
	case !fs.ValidPath(p): // absolute, "..", ".", empty elements
		return "", fmt.Errorf("path: %q does not stay in the vault: write it relative to the vault, without .. and without / at its ends", given)
	case len(p) > 240:
		return "", fmt.Errorf("path: it has %d bytes, and 240 is the most", len(p))
	}
	for part := range strings.SplitSeq(p, "/") {
		if strings.HasPrefix(part, ".") {
			return "", fmt.Errorf("path: %q is hidden, and hidden files are not notes", given)
		}
	}
	if ext := strings.ToLower(path.Ext(p)); ext != ".md" && ext != ".txt" {
		return "", fmt.Errorf("path: %q is not a note: its name must end in .md", given)
	}
	return p, nil
}

// target checks the path of a note that is to be written.
func (v *Vault) target(root *os.Root, p string) (string, error) {
	p, err := name(p)
	if err != nil {
		return "", err
	}
	if !strings.EqualFold(path.Ext(p), ".md") {
		return "", fmt.Errorf("path: %q cannot be written: notes end in .md", p)
	}
	for _, closed := range v.c.Closed {
		if closed = strings.Trim(closed, "/"); closed != "" && (strings.HasPrefix(strings.ToLower(p), strings.ToLower(closed)+"/")) {
			return "", fmt.Errorf("path: files in %s are jobs, so no tool writes there", closed)
		}
	}
	if st, err := root.Lstat(p); err == nil && !st.Mode().IsRegular() {
		return "", fmt.Errorf("path: %q is not an ordinary file, so it is not written over", p)
	}
	return p, nil
}

// Read returns what a note says.
func (v *Vault) Read(p string) (string, error) {
	p, err := name(p)
	if err != nil {
		return "", err
	}
	root, err := v.open()
	if err != nil {
		return "", err
	}
	defer root.Close()
	text, err := read(root, p)
	if errors.Is(err, fs.ErrNotExist) {
		return "", fmt.Errorf("there is no note %q: find its path with vault_search", p)
	}
	return text, err
}

func read(root *os.Root, p string) (string, error) {
	f, err := root.Open(p)
	if err != nil {
		return "", fmt.Errorf("read note %s: %w", p, err)
	}
	defer f.Close()
	st, err := f.Stat()
	if err != nil {
		return "", fmt.Errorf("read note %s: %w", p, err)
	}
	if !st.Mode().IsRegular() {
		return "", fmt.Errorf("read note %s: it is not a file", p)
	}
	b, err := io.ReadAll(io.LimitReader(f, mostBytes+1))
	if err != nil {
		return "", fmt.Errorf("read note %s: %w", p, err)
	}
	if len(b) > mostBytes {
		return "", fmt.Errorf("read note %s: it has more than %d bytes", p, mostBytes)
	}
	if !utf8.Valid(b) {
		return "", fmt.Errorf("read note %s: it is not UTF-8 text", p)
	}
	return string(b), nil
}

// seal is the mark of what a note says; of one that is not there it is "new".
func seal(text string, there bool) string {
	if !there {
		return "new"
	}
	sum := sha256.Sum256([]byte(text))
	return hex.EncodeToString(sum[:])
}

// errChanged says that a note says something else by now.
var errChanged = errors.New("the note was changed after this was proposed: read it again and propose the change anew")

// A change makes the new text of a note of the old one, "" where it is not there.
type change func(old string, there bool) (string, error)

// propose says what a change would do, without doing it.
func (v *Vault) propose(p string, f change) (old, text, mark string, err error) {
	root, err := v.open()
	if err != nil {
		return "", "", "", err
	}
	defer root.Close()
	if p, err = v.target(root, p); err != nil {
		return "", "", "", err
	}
	old, there, err := current(root, p)
	if err != nil {
		return "", "", "", err
	}
	text, err = f(old, there)
	if err == nil && len(text) > mostBytes {
		err = fmt.Errorf("the note would have %d bytes, and %d is the most", len(text), mostBytes)
	}
	if err == nil && there && text == old {
		err = errors.New("the note says exactly that already")
	}
	return old, text, seal(old, there), err
}

func current(root *os.Root, p string) (text string, there bool, err error) {
	text, err = read(root, p)
	if errors.Is(err, fs.ErrNotExist) {
		return "", false, nil
	}
	return text, err == nil, err
}

// Write changes a note: what it said is kept, and then the new text is there, whole, or the old one still. mark, if not "", is
// what propose told: if the note says something else by now, nothing is done.
func (v *Vault) Write(p, mark string, f change) error {
	v.mu.Lock()
	defer v.mu.Unlock()
	root, err := v.open()
	if err != nil {
		return err
	}
	defer root.Close()
	at, err := v.target(root, p)
	if err != nil {
		return err
	}
	before, _ := root.Lstat(at) // nil: not there
	old, text, now, err := v.propose(p, f)
	if err != nil {
		return err
	}
	if mark != "" && mark != now {
		return errChanged
	}
	if now != "new" {
		if err := v.keep(at, old); err != nil {
			return err
		}
	}
	return write(root, at, text, before)
}

// write puts a text into a file, at once, unless that is another one than before.
func write(root *os.Root, p, text string, before fs.FileInfo) error {
	err := root.MkdirAll(path.Dir(p), 0o755)
	switch {
	case err != nil:
	case before == nil:
		err = whole.Create(root, p, []byte(text), nil)
	default:
		err = whole.Replace(root, p, []byte(text), before, nil)
	}
	if errors.Is(err, whole.ErrChanged) || errors.Is(err, fs.ErrExist) {
		return errChanged
	}
	if err != nil {
		return fmt.Errorf("write note %s: %w", p, err)
	}
	return nil
}

// keep puts what a note said into the folder of versions, under the time.
func (v *Vault) keep(p, old string) error {
	if err := os.MkdirAll(v.c.Versions, 0o700); err != nil {
		return fmt.Errorf("keep what %s said: %w", p, err)
	}
	root, err := os.OpenRoot(v.c.Versions)
	if err != nil {
		return fmt.Errorf("keep what %s said: %w", p, err)
	}
	defer root.Close()
	if err := write(root, path.Join(p, time.Now().UTC().Format("20060102T150405.000000000Z")+".md"), old, nil); err != nil {
		return fmt.Errorf("keep what it said: %w", err)
	}
	all, err := fs.Glob(root.FS(), escape(p)+"/*.md")
	if err != nil {
		return nil //nolint:nilerr // the pattern is ours; too many versions do no harm
	}
	slices.Sort(all)
	for _, oldest := range all[:max(0, len(all)-mostKept)] {
		root.Remove(oldest) //nolint:errcheck // the next one tries again
	}
	return nil
}

// escape has a path stand for itself in a pattern.
func escape(p string) string {
	return strings.NewReplacer(`\`, `\\`, `*`, `\*`, `?`, `\?`, `[`, `\[`).Replace(p)
}
