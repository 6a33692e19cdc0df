package db

import "embed"

// migrations is the whole schema: files numbered in order, each naming on its first line the package that owns its
// tables. Those of SQLite have a twin of the same name for PostgreSQL. A file that has been released is never edited.
//
//go:embed migrations/*.sql migrations/postgres/*.sql
var migrations embed.FS

// Where the migrations of each dialect are.
const (
	sqliteDir   = "migrations"
	postgresDir = "migrations/postgres"
)
