// Package docs is the handbook: the pages that people read, and the notes that the program answers from while nobody has
// named a folder of their own.
package docs

import "embed"

// FS holds the handbook's pages and the decisions behind it. Homelab names those that are not among them.
//
//go:embed [^bcrs]*.md bench.md books.md chat.md commands.md configuration.md connect-a-model.md research.md routing.md security.md states.md decisions/*.md
var FS embed.FS

// Homelab are the pages that are the homelab's: they are made of commands, and "how do I restore a snapshot" would find nothing else. The
// folder runbooks is not in FS either: an alert leads there.
var Homelab = []string{"break-glass.md", "ci.md", "resilience.md", "restore.md", "services.md"}
