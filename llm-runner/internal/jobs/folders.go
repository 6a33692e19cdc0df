package jobs

import (
	"fmt"
	"path"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"unicode"
	"unicode/utf8"
)

// Folders are where jobs come and go as files among the owner's notes. All but Vault are paths below it, with slashes.
type Folders struct {
	Vault     string // the folder of notes
	Queue     string // files are dropped here
	Active    string // taken, and not ended
	Completed string // done
	Failed    string // failed, cancelled, or not a job: the reason is beside the file
	Outputs   string // the answers
}

// DefaultFolders are the folders below a vault where the configuration names no others.
var DefaultFolders = Folders{Queue: "_queue", Active: "_active", Completed: "_completed", Failed: "_failed", Outputs: "runner-outputs"}

// names returns the folders below the vault by what the configuration calls them.
func (f *Folders) names() []struct{ key, path string } {
	return []struct{ key, path string }{{"queue", f.Queue}, {"active", f.Active}, {"completed", f.Completed}, {"failed", f.Failed}, {"outputs", f.Outputs}}
}

// Below returns the folders below the vault.
func (f *Folders) Below() []string {
	return []string{f.Queue, f.Active, f.Completed, f.Failed, f.Outputs}
}

// Faults says what is wrong with the folders below the vault, by the names that the configuration has for them.
func (f *Folders) Faults() (all []FieldError) {
	names := f.names()
	for i, n := range names {
		switch why := inside(n.path); {
		case why != "":
			all = append(all, FieldError{n.key, fmt.Sprintf("%q %s: name a folder below vault.path, such as %s", n.path, why, DefaultFolders.Below()[i])})
			continue
		}
		for _, other := range names[:i] {
			if under(n.path, other.path) || under(other.path, n.path) {
				all = append(all, FieldError{n.key, fmt.Sprintf("%q is, or is within, or holds vault.%s: name a folder of its own", n.path, other.key)})
			}
		}
	}
	return all
}

// inside says why a path is not one of a file or folder below the vault that people see; "" it is.
func inside(p string) string {
	switch {
	case p == "":
		return "is empty"
	case !filepath.IsLocal(p) || strings.Contains(p, `\`):
		return "leads out of the vault"
	case path.Clean(p) != p || p == ".":
		return "is not written plainly"
	case !utf8.ValidString(p) || strings.ContainsFunc(p, unicode.IsControl):
		return "has characters that no name should have"
	case len(p) > longestPath:
		return "is too long"
	}
	for part := range strings.SplitSeq(p, "/") {
		if strings.HasPrefix(part, ".") {
			return "is hidden (a dot begins a name)"
		}
		if len(part) > longestName {
			return "is too long"
		}
	}
	return ""
}

const (
	longestName = 255  // bytes: NAME_MAX of Linux's file systems
	longestPath = 1024 // bytes: far below PATH_MAX, which counts the vault's own path too
)

// under says that p is the folder, or within it.
func under(p, folder string) bool { return p == folder || strings.HasPrefix(p, folder+"/") }

// outputFault says what is wrong with where a job wants its answer; "" nothing is.
func (f *Folders) outputFault(p string) string {
	const cure = ": write a path below the vault, such as notes/answer.md"
	if f == nil {
		return "there are no vault folders to write it into: set vault.path (and not vault.jobs: false), or leave it out"
	}
	if why := inside(p); why != "" {
		return fmt.Sprintf("%q %s%s", p, why, cure)
	}
	if !strings.EqualFold(path.Ext(p), ".md") {
		return fmt.Sprintf("%q does not end in .md%s", p, cure)
	}
	for _, folder := range []string{f.Queue, f.Active, f.Completed, f.Failed} {
		if under(p, folder) {
			return fmt.Sprintf("%q is in %s, which belongs to the job files%s", p, folder, cure)
		}
	}
	return ""
}

// ignored says that a file in the queue is not one that a person dropped there: hidden files, what editors and Syncthing
// write before they rename it (.syncthing.*.tmp, ~syncthing~*.tmp), and the reasons that this program writes.
func ignored(name string) bool {
	return !strings.EqualFold(path.Ext(name), ".md") || strings.HasPrefix(name, ".") || strings.HasPrefix(name, "~") ||
		strings.HasPrefix(name, "#") || strings.HasSuffix(name, reasonEnd)
}

// conflictName is what Syncthing calls the copy that lost when two machines changed one file
// (docs.syncthing.net/users/faq.html, "What if there is a conflict?").
var conflictName = regexp.MustCompile(`^(.+)\.sync-conflict-\d{8}-\d{6}(?:-[A-Z0-9]+)?(\.[^.]+)$`)

// conflictOf returns the name of the file that a conflict copy is one of; "" where it is none.
func conflictOf(name string) string {
	if m := conflictName.FindStringSubmatch(name); m != nil {
		return m[1] + m[2]
	}
	return ""
}

// numbered returns p for n = 1, and else p with a number before its ending: plan 2.md.
func numbered(p string, n int) string {
	if n == 1 {
		return p
	}
	return ending(p, fmt.Sprintf(" %d%s", n, path.Ext(p)))
}

// ending replaces the ending of p's name, .md, and cuts the name where the whole would be too long for a file system.
func ending(p, end string) string {
	dir, name := path.Split(p)
	return dir + cut(strings.TrimSuffix(name, path.Ext(name)), longestName-len(end)) + end
}

// cut returns the longest beginning of s that has at most n bytes and whole characters.
func cut(s string, n int) string {
	if len(s) <= n {
		return s
	}
	for n > 0 && !utf8.RuneStart(s[n]) {
		n--
	}
	return s[:n]
}

// reasonEnd ends the name of the note that says why a file is in the failed folder.
const reasonEnd = ".reason.md"

// reasonOf is the note beside a file in the failed folder.
func reasonOf(p string) string { return ending(p, reasonEnd) }

// plain makes a text into a file's name that every system takes, and that a wikilink can hold: at most 80 characters.
func plain(text string) string {
	const most = 80
	text = strings.Map(func(r rune) rune {
		if unicode.IsControl(r) || strings.ContainsRune("/\\:*?\"<>|#^[]", r) {
			return ' '
		}
		return r
	}, strings.ToValidUTF8(text, ""))
	if all := []rune(text); len(all) > most {
		text = string(all[:most])
	}
	text = strings.Trim(strings.Join(strings.Fields(text), " "), " .~\u2026")
	if text == "" || slices.Contains([]string{"con", "nul", "aux", "prn"}, strings.ToLower(text)) {
		return "job"
	}
	return text
}
