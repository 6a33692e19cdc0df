// Package docs is the handbook: the pages that people read, and the notes that the program answers from while nobody has
// named a folder of their own.
package docs

import "embed"

// FS holds the handbook's pages and the decisions behind it.
//
//go:embed *.md decisions/*.md
var FS embed.FS
