package postgres

// The commands that bring a dump back, as data: the restore guide prints them and the restore runs them.

// LoadGlobals reads globals.sql from its standard input.
func (s Server) LoadGlobals() []string {
	return s.Argv("psql", "--no-psqlrc", "--quiet", "--set=ON_ERROR_STOP=1", "--dbname=postgres")
}

// Create makes an empty database like the one that was dumped, from template0: what was added to template1 would be there twice.
func (s Server) Create(like Database, name string) []string {
	return s.Argv("createdb", "--template=template0", "--encoding="+like.Encoding, "--lc-collate="+like.Collate, "--lc-ctype="+like.CType, "--owner="+like.Owner, name)
}

// Drop removes a database that an earlier attempt left.
func (s Server) Drop(name string) []string {
	return s.Argv("dropdb", "--if-exists", "--force", name)
}

// Load reads a database's dump from its standard input into an empty database.
func (s Server) Load(name string) []string {
	return s.Argv("pg_restore", "--exit-on-error", "--no-password", "--dbname="+name)
}

// Analyze makes the statistics that the planner needs, which no dump carries.
func (s Server) Analyze(name string) []string {
	return s.Argv("vacuumdb", "--analyze-only", "--quiet", "--dbname="+name)
}

// Rename gives a database another name; nothing happens where it is not there. Nobody may be connected to it.
func (s Server) Rename(from, to string) []string {
	return s.Argv("psql", "--no-psqlrc", "--quiet", "--set=ON_ERROR_STOP=1", "--dbname=postgres", "--command="+renameDatabase(from, to))
}
