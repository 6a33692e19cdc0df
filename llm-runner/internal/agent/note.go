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
	"home.arpa/lab/llm-runner/internal/whole"
)

// owned is how the frontmatter of a note begins that belongs to a run; the library leaves such notes out (generated: true).
func owned(agent string, run int64) string {
	return fmt.Sprintf("generated: true\nagent: %s\nrun: %d\n", agent, run)
}

// writeNote writes a note of a run, under a name with a number where that is taken, unless it is there already.
func (s *Service) writeNote(d *Delivery) (string, error) {
	root, err := os.OpenRoot(s.config.Vault)
	if err != nil {
		return "", fmt.Errorf("open the vault: %w", err)
	}
	defer root.Close()
	p := path.Join(s.config.Notes, d.Name)
	text := []byte(llm.Still(d.Text))
	front, _, _ := bytes.Cut(text, []byte("\n---\n")) // agent, run and title: two notes of a run may come to one name
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
			err = whole.Create(root, at, text, s.prepared)
			if errors.Is(err, fs.ErrExist) { // somebody was faster
				continue
			}
			if err != nil {
				return "", fmt.Errorf("write note %s: %w", at, err)
			}
			return at, nil
		case err != nil:
			return "", fmt.Errorf("write note %s: %w", at, err)
		case bytes.HasPrefix(have, front): // it is there since before this process, and the person may have added to it
			return at, nil
		}
	}
	return "", fmt.Errorf("write note %s: a thousand names are taken", p)
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
	for range 20 { // several agents may write into it at once
		before, err := root.Lstat(p)
		if errors.Is(err, fs.ErrNotExist) {
			if err = whole.Create(root, p, section(nil, r.Agent, llm.Still(d.Text)), s.prepared); errors.Is(err, fs.ErrExist) {
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
		if err := whole.Replace(root, p, made, before, s.prepared); errors.Is(err, whole.ErrChanged) {
			continue // somebody has written meanwhile
		} else if err != nil {
			return fault(err)
		}
		return p, nil
	}
	return fault(errors.New("somebody keeps changing it"))
}

// prepared is a point at which tests have the process die.
func (s *Service) prepared() { s.reached("prepared") }
