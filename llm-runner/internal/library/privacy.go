package library

import (
	"fmt"
	"path"
	"slices"
	"strings"

	"golang.org/x/text/unicode/norm"
)

// A Privacy is which documents no cloud provider may see: patterns as for Exclude, of notes, or of another collection with its name and
// a colon before them ("uploads:tax*", "memory:" for all of it). Upper and lower case, and how a file system writes down accents, do
// not count, so that no note slips through by its spelling.
type Privacy []string

// NewPrivacy checks patterns. All faults are told at once.
func NewPrivacy(patterns []string) (p Privacy, faults []error) {
	for _, given := range patterns {
		pattern := strings.TrimSuffix(strings.TrimSuffix(strings.TrimSpace(given), "**"), "/")
		_, glob := collectionOf(pattern)
		if _, err := path.Match(glob, "x"); err != nil || pattern == "" || strings.HasPrefix(glob, "/") || strings.Contains(glob, "..") {
			faults = append(faults, fmt.Errorf("%q is no pattern of names below the notes' folder: write for example private, *.secret.md, people/doctor or uploads:tax*", given))
			continue
		}
		p = append(p, folded(pattern))
	}
	slices.Sort(p)
	return slices.Compact(p), faults
}

// collectionOf takes the collection off a pattern.
func collectionOf(pattern string) (collection, glob string) {
	if c, rest, ok := strings.Cut(pattern, ":"); ok && !strings.ContainsAny(c, "/*?[") {
		return c, rest
	}
	return Notes, pattern
}

func folded(s string) string { return strings.ToLower(norm.NFC.String(s)) }

// Hides says that no cloud provider may see a document.
func (p Privacy) Hides(collection, name string) bool {
	if len(p) == 0 {
		return false
	}
	name = folded(name)
	return slices.ContainsFunc(p, func(pattern string) bool {
		c, glob := collectionOf(pattern)
		return c == collection && (glob == "" || matches(glob, name))
	})
}

// NeverSent says that no cloud provider may see a document of the library: a pattern hides it, or what it is a link to.
func (l *Library) NeverSent(collection, name string) bool {
	if l.private.Hides(collection, name) || collection == Memory && strings.HasPrefix(name, PrivateFacts) {
		return true
	}
	if len(l.private) == 0 || collection != Notes || l.source.dir == "" {
		return false
	}
	to, linked := l.source.target(name)
	return linked && (to == "" || l.private.Hides(Notes, to))
}

// PrivateFacts begins the names of documents of Memory that are never sent, whatever the patterns say: they come from conversations about what is.
const PrivateFacts = "private/"

// A NeverSend is a pattern of Privacy and how many documents it hides.
type NeverSend struct {
	Pattern   string `json:"pattern"`
	Documents int    `json:"documents"` // of all collections; 0: is the pattern spelled right?
}

// count says how many of the paths of each collection a pattern hides.
func (p Privacy) count(paths map[string][]string) []NeverSend {
	all := make([]NeverSend, len(p))
	for i, pattern := range p {
		all[i].Pattern = pattern
	}
	if len(p) == 0 {
		return all
	}
	for collection, names := range paths {
		for _, name := range names {
			name = folded(name)
			for i, pattern := range p {
				if c, glob := collectionOf(pattern); c == collection && (glob == "" || matches(glob, name)) {
					all[i].Documents++
				}
			}
		}
	}
	return all
}
