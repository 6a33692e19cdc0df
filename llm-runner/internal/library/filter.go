package library

import (
	"regexp"
	"strings"
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
