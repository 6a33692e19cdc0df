// Package documents keeps what was put into the library and is no file: its text, and what is known of it.
package documents

import (
	"strconv"
	"strings"
	"time"

	"home.arpa/lab/llm-runner/internal/db"
	"home.arpa/lab/llm-runner/internal/extract"
)

// A Store keeps documents in a database, which several processes may share.
type Store struct{ DB *db.DB }

// Marks tell whether documents have changed: how many there are, and the last change.
type Marks struct{ Count, Rev int64 }

// A Document is a text that is not a file of the Source: an upload, a fetched page, a fact, a document of a collection to measure with.
type Document struct {
	Path    string // its name in its collection
	Title   string // "": that of the text
	Text    []byte // UTF-8; Markdown where it has structure
	Time    time.Time
	URL     string // where it came from
	Type    string // as of a frontmatter
	Tags    []string
	Format  extract.Format // of what Text was read from; "" Text itself
	Pages   []int          // bytes of Text at which pages begin; nil: it has none
	Remarks []string       // what could not be read
}

// Stored is a document as it is kept.
type Stored struct {
	Collection string    `json:"collection"`
	Path       string    `json:"path"`
	Title      string    `json:"title"`
	URL        string    `json:"url,omitempty"`
	Format     string    `json:"format,omitempty"`
	Day        string    `json:"day,omitempty"`
	Added      time.Time `json:"added"`
	Bytes      int       `json:"bytes"`           // of its text
	Pages      int       `json:"pages,omitempty"` // 0: it has none
	Remarks    []string  `json:"remarks,omitempty"`
	NeverSent  bool      `json:"never_sent"` // no cloud provider sees it
}

// JoinPages writes down where pages begin.
func JoinPages(pages []int) string {
	parts := make([]string, len(pages))
	for i, p := range pages {
		parts[i] = strconv.Itoa(p)
	}
	return strings.Join(parts, ",")
}

// SplitPages reads what JoinPages wrote.
func SplitPages(s string) []int {
	if s == "" {
		return nil
	}
	var all []int
	for part := range strings.SplitSeq(s, ",") {
		n, err := strconv.Atoi(part)
		if err != nil {
			return nil
		}
		all = append(all, n)
	}
	return all
}

// Lines are the lines of s; none of "".
func Lines(s string) []string {
	if s == "" {
		return nil
	}
	return strings.Split(s, "\n")
}
