package db

import "embed"

// migrations is the whole schema: files numbered in order, each naming on its first line the package that owns its
// tables. A file that has been released is never edited.
//
//go:embed migrations/*.sql
var migrations embed.FS
