package agent

import (
	"bytes"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path"
	"strings"
	"time"

	"home.arpa/lab/llm-runner/internal/llm"
)

// What stands here works on files of the vault through an os.Root: nothing leads out of it. A note becomes visible whole, and nothing of the
// person's is written over.

// owned is how the frontmatter of a note begins that belongs to a run; the library leaves such notes out (generated: true).
func owned(agent string, run int64) string {
	return fmt.Sprintf("generated: true\nagent: %s\nrun: %d\n", agent, run)
}

// writeNote writes a note of a run, under a name with a number where that is taken, unless it is there already.
func (s *Service) writeNote(r *Run, d *Delivery) (string, error) {
	root, err := os.OpenRoot(s.config.Vault)
	if err != nil {
		return "", fmt.Errorf("open the vault: %w", err)
	}
	defer root.Close()
	p := path.Join(s.config.Notes, d.Name)
	if err := root.MkdirAll(path.Dir(p), 0o755); err != nil {
		return "", fmt.Errorf("write note %s: %w", p, err)
	}
	for n := 1; n < 1000; n++ {
		at := p + ".md"
		if n > 1 {
			at = fmt.Sprintf("%s-%d.md", p, n)
		}
		have, err := root.ReadFile(at)
		switch {
		case errors.Is(err, fs.ErrNotExist):
			err = s.create(root, at, []byte(llm.Still(d.Text)))
			if errors.Is(err, fs.ErrExist) { // somebody was faster
				continue
			}
			if err != nil {
				return "", fmt.Errorf("write note %s: %w", at, err)
			}
			return at, nil
		case err != nil:
			return "", fmt.Errorf("write note %s: %w", at, err)
		case bytes.HasPrefix(have, []byte("---\n"+owned(r.Agent, r.ID))):
			return at, nil
		}
	}
	return "", fmt.Errorf("write note %s: a thousand names are taken", p)
}

// create writes a new file, whole or not at all; fs.ErrExist says that the name is taken.
func (s *Service) create(root *os.Root, p string, text []byte) error {
	beside, err := s.prepare(root, p, text, 0o644)
	if err != nil {
		return err
	}
	s.reached("prepared")
	err = root.Link(beside, p) // which, other than a rename, never replaces anything
	if err != nil && !errors.Is(err, fs.ErrExist) {
		if _, serr := root.Lstat(p); serr == nil { // a file system without links
			err = fs.ErrExist
		} else if err = root.Rename(beside, p); err == nil {
			return flush(root, path.Dir(p))
		}
	}
	if err == nil {
		err = flush(root, path.Dir(p))
	}
	return errors.Join(err, root.Remove(beside))
}

// prepare writes a file beside another one, to the disk; a dot hides it from editors and the library.
func (s *Service) prepare(root *os.Root, p string, text []byte, mode fs.FileMode) (string, error) {
	beside := path.Join(path.Dir(p), ".llm-runner-"+path.Base(p))
	f, err := root.OpenFile(beside, os.O_WRONLY|os.O_CREATE|os.O_TRUNC, mode)
	if err != nil {
		return "", err
	}
	_, err = f.Write(text)
	if err == nil {
		err = f.Sync()
	}
	if err = errors.Join(err, f.Close()); err != nil {
		return "", errors.Join(err, root.Remove(beside))
	}
	return beside, nil
}

// flush has a folder's names on the disk. Some file systems have no such thing, and that is well.
func flush(root *os.Root, dir string) error {
	d, err := root.Open(dir)
	if err != nil {
		return err
	}
	defer d.Close()
	d.Sync() //nolint:errcheck // see above
	return nil
}

// dailyPath is the daily note of a day: YYYY, MM and DD in the pattern stand for it.
func dailyPath(pattern string, day time.Time) string {
	return strings.NewReplacer("YYYY", day.Format("2006"), "MM", day.Format("01"), "DD", day.Format("02")).Replace(pattern)
}

// The marks of a section that a program writes into a person's note. The library leaves out what stands between them.
func sectionMarks(name string) (begin, end string) {
	return "<!-- generated: " + name + " -->", "<!-- end of generated: " + name + " -->"
}

// section puts text into the section of a name, and leaves everything else of the note as it is. A section that is not there is put at the
// end; so is one whose end somebody has taken away, as nobody knows what of the rest is the person's.
func section(note []byte, name, text string) []byte {
	begin, end := sectionMarks(name)
	made := begin + "\n" + strings.TrimSpace(text) + "\n" + end
	if from := lineOf(note, begin, 0); from >= 0 {
		if to := lineOf(note, end, from); to >= 0 {
			return append(append(append([]byte{}, note[:from]...), made...), note[to+len(end):]...)
		}
		note = append(append([]byte{}, note[:from]...), bytes.TrimPrefix(note[from+len(begin):], []byte("\n"))...)
	}
	out := append([]byte{}, note...)
	switch {
	case len(out) == 0:
	case !bytes.HasSuffix(out, []byte("\n")):
		out = append(out, "\n\n"...)
	case !bytes.HasSuffix(out, []byte("\n\n")):
		out = append(out, '\n')
	}
	return append(out, made+"\n"...)
}

// Generated says that a note holds sections that programs wrote, and nothing else.
func Generated(note []byte) bool {
	_, note, _ = cutFront(note)
	const mark = "<!-- generated: "
	found := false
	for {
		i := bytes.Index(note, []byte(mark))
		if i < 0 {
			return found && len(bytes.TrimSpace(note)) == 0
		}
		name, _, ok := strings.Cut(string(note[i+len(mark):]), " -->")
		begin, end := sectionMarks(name)
		to := lineOf(note, end, i)
		if !ok || lineOf(note, begin, i) != i || to < 0 {
			return false
		}
		note, found = append(append([]byte{}, note[:i]...), note[to+len(end):]...), true
	}
}

// lineOf returns the byte at which a line begins that is mark, at or after from; -1 where none does.
func lineOf(note []byte, mark string, from int) int {
	for i := from; i < len(note); {
		j := bytes.Index(note[i:], []byte(mark))
		if j < 0 {
			return -1
		}
		at := i + j
		after := at + len(mark)
		if (at == 0 || note[at-1] == '\n') && (after == len(note) || note[after] == '\n' || note[after] == '\r') {
			return at
		}
		i = after
	}
	return -1
}

// mostNote bounds a daily note in bytes.
const mostNote = 8 << 20

// writeDaily puts a run's text into its section of the daily note. The person may be writing there: what changed meanwhile is read again.
func (s *Service) writeDaily(r *Run, d *Delivery) (string, error) {
	root, err := os.OpenRoot(s.config.Vault)
	if err != nil {
		return "", fmt.Errorf("open the vault: %w", err)
	}
	defer root.Close()
	a, err := s.Find(r.Agent)
	where := s.config.Zone
	if err == nil {
		where = a.Schedule.zone
	}
	p := dailyPath(s.config.Daily, r.Due.In(where))
	fault := func(err error) (string, error) { return "", fmt.Errorf("write %s: %w", p, err) }
	if err := root.MkdirAll(path.Dir(p), 0o755); err != nil {
		return fault(err)
	}
	for range 5 {
		before, err := root.Lstat(p)
		if errors.Is(err, fs.ErrNotExist) {
			if err = s.create(root, p, section(nil, r.Agent, llm.Still(d.Text))); errors.Is(err, fs.ErrExist) {
				continue
			}
			if err != nil {
				return fault(err)
			}
			return p, nil
		}
		switch {
		case err != nil:
			return fault(err)
		case !before.Mode().IsRegular():
			return fault(errors.New("it is a link or a folder: make it a note"))
		case before.Size() > mostNote:
			return fault(fmt.Errorf("it has %d bytes, more than %d", before.Size(), mostNote))
		}
		text, err := root.ReadFile(p)
		if err != nil {
			return fault(err)
		}
		made := section(text, r.Agent, llm.Still(d.Text))
		if bytes.Equal(made, text) {
			return p, nil
		}
		beside, err := s.prepare(root, p, made, before.Mode().Perm())
		if err != nil {
			return fault(err)
		}
		s.reached("prepared")
		now, err := root.Lstat(p)
		if err == nil && (!now.ModTime().Equal(before.ModTime()) || now.Size() != before.Size()) {
			if err := root.Remove(beside); err != nil {
				return fault(err)
			}
			continue // somebody has written meanwhile
		}
		if err == nil {
			err = errors.Join(keepOwner(root, beside, before), root.Rename(beside, p))
		}
		if err != nil {
			return fault(errors.Join(err, root.Remove(beside)))
		}
		return p, flush(root, path.Dir(p))
	}
	return fault(errors.New("somebody keeps changing it"))
}
