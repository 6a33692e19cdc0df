package library

import (
	"path"
	"strings"
	"time"
)

// stems returns the stems of a text's words, in order.
func stems(text string, l language) []string {
	words := tokens(text, l)
	all := make([]string, len(words))
	for i, t := range words {
		all[i] = t.stem
	}
	return all
}

// fields returns the words around the bodies of a note's passages, but their headings.
func (d Doc) fields(path string) map[uint8][]string {
	return map[uint8][]string{
		inTitle: stems(d.Title, d.language),
		inAlias: stems(strings.Join(d.Aliases, "\n"), d.language),
		inPath:  stems(withoutExt(path), d.language),
		inTags:  stems(strings.Join(d.Tags, "\n"), d.language),
	}
}

// foldTags writes tags down so that each can be found: folded, each between line feeds.
func foldTags(tags []string) string {
	var b strings.Builder
	for _, t := range tags {
		b.WriteString("\n" + folded(t) + "\n")
	}
	return b.String()
}

// day returns the day that a note is of: of its frontmatter, its file name or its last change, YYYY-MM-DD.
func (c *change) day() string {
	if c.doc.Day != "" {
		return c.doc.Day
	}
	if m := dayPattern.FindString(path.Base(c.path)); m != "" {
		return m
	}
	if c.modified.IsZero() {
		return ""
	}
	return c.modified.Format(time.DateOnly)
}
