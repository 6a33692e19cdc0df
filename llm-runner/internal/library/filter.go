package library

import (
	"maps"
	"regexp"
	"slices"
	"strings"
	"time"

	"home.arpa/lab/llm-runner/internal/vector"
)

// A Filter leaves notes out of a search. All that is set must hold; the zero value leaves none out. In a query it is written as
// tag:x path:x type:x collection:x after:2026-01-31 before:2026-02, a value with spaces in quotation marks.
type Filter struct {
	Tags          []string // each of them, or one below it: tag:project also finds project/garden
	Path          []string // parts of the path
	Type          string   // of the frontmatter
	Collection    string
	After, Before string // YYYY, YYYY-MM or YYYY-MM-DD: on that day or later; on an earlier day
}

func (f Filter) empty() bool {
	return len(f.Tags) == 0 && len(f.Path) == 0 && f.Type == "" && f.Collection == "" && f.After == "" && f.Before == ""
}

var (
	filterPattern = regexp.MustCompile(`(?i)(^|\s)(tag|path|type|collection|after|before):("[^"]*"|\S+)`)
	datePattern   = regexp.MustCompile(`^\d{4}(-\d\d(-\d\d)?)?$`)
)

// filters takes the filters out of a query. What does not read as one stays.
func filters(query string, f Filter) (rest string, _ Filter) {
	rest = filterPattern.ReplaceAllStringFunc(query, func(m string) string {
		name, value, _ := strings.Cut(strings.TrimSpace(m), ":")
		value = folded(strings.Trim(value, `"`))
		name = strings.ToLower(name)
		if value == "" || (name == "after" || name == "before") && !datePattern.MatchString(value) {
			return m
		}
		switch name {
		case "tag":
			f.Tags = append(f.Tags, strings.TrimPrefix(value, "#"))
		case "path":
			f.Path = append(f.Path, value)
		case "type":
			f.Type = value
		case "collection":
			f.Collection = value
		case "after":
			f.After = value
		case "before":
			f.Before = value
		}
		return " "
	})
	return rest, f
}

// A keeping is the notes that a filter keeps, and how a store of vectors can be told of them.
type keeping struct {
	Filter
	notes map[uint32]bool

	parts   []string          // of the path, folded
	folders map[string]bool   // below which the parts of the path let everything through
	names   map[string]bool   // of notes that are below none of those
	tags    []map[string]bool // for each tag of the filter the tags that stand for it, as stores have them
}

func newKeeping(f Filter) *keeping {
	k := &keeping{Filter: f, notes: map[uint32]bool{}, folders: map[string]bool{}, names: map[string]bool{}}
	for _, part := range f.Path {
		k.parts = append(k.parts, folded(part))
	}
	for range f.Tags {
		k.tags = append(k.tags, map[string]bool{})
	}
	return k
}

// collection is the only one in question; "" all are.
func (k *keeping) collection() string {
	if k == nil {
		return ""
	}
	return k.Collection
}

// add keeps a note that the database let through, if the parts of its path do too. tags are as foldTags wrote them.
func (k *keeping) add(note uint32, path, tags string) {
	if len(k.parts) > 0 && !k.holds(path) { // SQLite knows of no letters but A to Z
		return
	}
	k.notes[note] = true
	if len(k.parts) > 0 {
		k.place(path)
	}
	for i, want := range k.Tags {
		for t := range strings.SplitSeq(tags, "\n") {
			if t == want || strings.HasPrefix(t, want+"/") {
				k.tags[i][t] = true
				// Collections that were filled by earlier versions have its words as tags.
				if words := strings.Fields(t); len(words) > 1 {
					k.tags[i][words[0]] = true
				}
			}
		}
	}
}

// holds says that a text has all parts of the path in it.
func (k *keeping) holds(text string) bool {
	text = folded(text)
	return !slices.ContainsFunc(k.parts, func(part string) bool { return !strings.Contains(text, part) })
}

// place notes down the first folder of a path that has all its parts, or the path, where it takes its last name to have them.
func (k *keeping) place(path string) {
	for i, r := range path {
		if r != '/' || i == 0 || path[i-1] == '/' {
			continue
		}
		if k.folders[path[:i]] {
			return
		}
		if k.holds(path[:i+1]) {
			k.folders[path[:i]] = true
			return
		}
	}
	k.names[path] = true
}

// mostTold is how many names, folders or tags a store is told at most. Beyond that it is told less, and what it finds too much is cut.
const mostTold = 2000

// stored is the filter for stores of vectors, and whether that is all of it.
func (k *keeping) stored() (s vector.Filter, whole bool) {
	whole = true
	if k.Type != "" {
		s.Types = []string{k.Type}
	}
	s.After, s.Before = dayOf(k.After), dayOf(k.Before)
	for _, tags := range k.tags {
		if whole = whole && len(tags) <= mostTold; len(tags) <= mostTold {
			s.Tags = append(s.Tags, slices.Sorted(maps.Keys(tags)))
		}
	}
	if n := len(k.folders) + len(k.names); n > mostTold {
		whole = false
	} else if n > 0 {
		s.Folders, s.Names = slices.Sorted(maps.Keys(k.folders)), slices.Sorted(maps.Keys(k.names))
	}
	return s, whole
}

// dayOf returns the first day of YYYY, YYYY-MM or YYYY-MM-DD; the zero time where that is none.
func dayOf(date string) time.Time {
	for _, layout := range []string{"2006", "2006-01", time.DateOnly} {
		if t, err := time.Parse(layout, date); err == nil {
			return t
		}
	}
	return time.Time{}
}
