package jobs

import (
	"bytes"
	"cmp"
	"errors"
	"fmt"
	"path"
	"regexp"
	"slices"
	"strings"
	"unicode/utf8"

	"home.arpa/lab/internal/strict"
)

// A front is the frontmatter of a file that is a job. Job and Result are what this program wrote there when it was done
// before, so that the file may be dropped into the queue once more as it is.
type front struct {
	Type          string   `yaml:"type"`
	Title         string   `yaml:"title"`
	Model         string   `yaml:"model"`
	Requires      string   `yaml:"requires"`
	RequiresDavas bool     `yaml:"requires_davas"` // the old name of "requires: davas"
	Project       bool     `yaml:"project"`
	Priority      int      `yaml:"priority"`
	Deadline      string   `yaml:"deadline"`
	MaxAttempts   int      `yaml:"max_attempts"`
	Tools         []string `yaml:"tools"`
	Plan          string   `yaml:"plan"`
	Notify        string   `yaml:"notify"`
	Output        string   `yaml:"output"`
	Job           int64    `yaml:"job"`
	Result        string   `yaml:"result"`
}

// maxFile bounds a file: the longest prompt, and room for frontmatter. Bytes.
const maxFile = maxPrompt + 64<<10

var byteOrderMark = []byte("\uFEFF")

// cutFront splits a file at its frontmatter: a line of three dashes at the very top, up to the next line of three dashes or
// dots. inner stands between the two, body after the second; there is none where start is 0, and open says that it has no end.
// text[start:end] is inner.
func cutFront(text []byte) (start, end int, body []byte, open bool) {
	at := 0
	if bytes.HasPrefix(text, byteOrderMark) {
		at = len(byteOrderMark)
	}
	line, next := firstLine(text, at)
	if line != "---" {
		return 0, 0, text[at:], false
	}
	start = next
	for at = next; at < len(text); at = next {
		line, next = firstLine(text, at)
		if line == "---" || line == "..." {
			return start, at, text[next:], false
		}
	}
	return start, len(text), nil, true
}

// firstLine returns the line that begins at a place, without what ends it, and where the next one begins.
func firstLine(text []byte, at int) (line string, next int) {
	rest := text[at:]
	if i := bytes.IndexByte(rest, '\n'); i >= 0 {
		rest, next = rest[:i], at+i+1
	} else {
		next = len(text)
	}
	return strings.TrimRight(string(rest), " \t\r"), next
}

// readPrompt reads a file that was dropped into the queue: frontmatter, and the prompt below it. A file without frontmatter is a
// prompt. All faults are reported at once, with their lines in the file.
func readPrompt(name string, text []byte, folders *Folders) (Job, strict.Faults) {
	if fault, bad := notText(text); bad {
		return Job{}, strict.Faults{fault}
	}
	start, end, body, open := cutFront(text)
	if open {
		return Job{}, strict.Faults{{Line: 1, Text: "the frontmatter that begins here has no end: write a line of three dashes (---) after its last key"}}
	}
	var f front
	// One line before it, for the dashes, and the decoder counts lines as the file does.
	lines, faults := strict.Decode(append([]byte("\n"), text[start:end]...), &f)
	fault := func(key, format string, args ...any) {
		faults = append(faults, strict.Fault{Line: lines[key], Key: key, Text: fmt.Sprintf(format, args...)})
	}
	if f.RequiresDavas {
		if f.Requires != "" && f.Requires != "davas" {
			fault("requires_davas", "contradicts requires: %q; keep requires and remove this line", f.Requires)
		}
		f.Requires = "davas"
	}
	if f.Result != "" && !ownResult.MatchString(f.Result) {
		fault("result", "%q is not what this program writes there when a job is done: remove the line; output says where the answer goes", f.Result)
	}
	switch f.Notify {
	case "true":
		f.Notify = string(NotifyAlways)
	case "false":
		f.Notify = string(NotifyNever)
	}
	if f.Title == "" {
		f.Title = strings.TrimSuffix(name, path.Ext(name))
	}
	j, err := Spec{Type: Type(f.Type), Title: f.Title, Prompt: string(body), Model: f.Model, Requires: f.Requires, Project: f.Project, Priority: f.Priority,
		Deadline: f.Deadline, MaxAttempts: f.MaxAttempts, Tools: f.Tools, Plan: f.Plan, Notify: Notify(f.Notify), Output: f.Output}.job(folders)
	var wrong SpecError
	errors.As(err, &wrong) // a Spec's error is nothing else
	for _, w := range wrong {
		fault(w.Field, "%s", w.Text)
	}
	slices.SortStableFunc(faults, func(a, b strict.Fault) int { return cmp.Compare(a.Line, b.Line) })
	return j, faults
}

func notText(text []byte) (strict.Fault, bool) {
	switch {
	case bytes.HasPrefix(text, []byte("\xff\xfe")), bytes.HasPrefix(text, []byte("\xfe\xff")):
		return strict.Fault{Line: 1, Text: "the file is UTF-16 text: save it as UTF-8"}, true
	case !utf8.Valid(text):
		at := 0
		for at < len(text) {
			r, size := utf8.DecodeRune(text[at:])
			if r == utf8.RuneError && size == 1 {
				break
			}
			at += size
		}
		return strict.Fault{Line: 1 + bytes.Count(text[:at], []byte("\n")), Text: fmt.Sprintf("the byte 0x%02x is not UTF-8 text: save the file as UTF-8", text[at])}, true
	case bytes.IndexByte(text, 0) >= 0:
		return strict.Fault{Line: 1 + bytes.Count(text[:bytes.IndexByte(text, 0)], []byte("\n")), Text: "a zero byte stands in the text: this is not a note; write the prompt as text"}, true
	}
	return strict.Fault{}, false
}

// ownResult is the value that stamp writes.
var ownResult = regexp.MustCompile(`^\[\[.+\]\]$|^\[.*\]\(.+\)$`)

// ownLine is a line of frontmatter that stamp writes.
var ownLine = regexp.MustCompile(`^(job|result):`)

// stamp puts a job's number and the link to its answer into the frontmatter of its file, in place of what an earlier job
// left there. Every other byte stays; a file without frontmatter gets one. Stamping twice is stamping once.
func stamp(text []byte, job int64, note string) []byte {
	start, end, _, open := cutFront(text)
	if open {
		return text // it is not a job; nobody asks for this
	}
	eol := "\n"
	if line, _, ok := bytes.Cut(text, []byte("\n")); ok && bytes.HasSuffix(line, []byte("\r")) {
		eol = "\r\n"
	}
	own := fmt.Sprintf("job: %d%sresult: %s%s", job, eol, quote(link(note, "")), eol)
	if start == 0 {
		if bytes.HasPrefix(text, byteOrderMark) {
			start = len(byteOrderMark)
		}
		return bytes.Join([][]byte{text[:start], []byte("---" + eol + own + "---" + eol), text[start:]}, nil)
	}
	out := bytes.Clone(text[:start])
	for line := range bytes.Lines(text[start:end]) {
		if !ownLine.Match(line) {
			out = append(out, line...)
		}
	}
	return append(append(out, own...), text[end:]...)
}
