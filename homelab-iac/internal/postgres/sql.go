package postgres

import (
	"fmt"
	"regexp"
	"strings"
)

// settings make the text of a row the same on every server of one major version.
const settings = `SET timezone = 'UTC'; SET datestyle = 'ISO'; SET intervalstyle = 'iso_8601'; SET bytea_output = 'hex'; SET extra_float_digits = 1; SET search_path = 'pg_catalog';`

const begin = settings + ` BEGIN ISOLATION LEVEL REPEATABLE READ, READ ONLY;`

const exportSnapshot = `SELECT pg_export_snapshot();`

const listDatabases = `SELECT datname FROM pg_database WHERE datallowconn AND NOT datistemplate AND datname <> 'postgres' ORDER BY 1;`

const serverVersion = `SHOW server_version_num;`

const describeDatabase = `SELECT pg_encoding_to_char(encoding) || E'\t' || datcollate || E'\t' || datctype || E'\t' || pg_get_userbyid(datdba) FROM pg_database WHERE datname = current_database();`

const listExtensions = `SELECT extname || ' ' || extversion FROM pg_extension ORDER BY 1;`

// listTables leaves out what pg_dump leaves out: the system's own tables, those that extensions made, other servers'. Parts of
// a partitioned table are counted, the whole is not.
const listTables = `SELECT quote_ident(n.nspname) || '.' || quote_ident(c.relname) FROM pg_class c JOIN pg_namespace n ON n.oid = c.relnamespace
WHERE c.relkind IN ('r', 'm') AND c.relispopulated AND c.relpersistence <> 't' AND n.nspname !~ '^pg_' AND n.nspname <> 'information_schema'
AND NOT EXISTS (SELECT 1 FROM pg_depend d WHERE d.classid = 'pg_class'::regclass AND d.objid = c.oid AND d.deptype = 'e')
ORDER BY 1;`

const listSequences = `SELECT quote_ident(schemaname) || '.' || quote_ident(sequencename) || E'\t' || COALESCE(last_value, 0) FROM pg_sequences WHERE increment_by > 0 ORDER BY 1;`

const countLargeObjects = `SELECT count(*) FROM pg_largeobject_metadata;`

// rowsInOrder prints every row as text, one a line, in an order that does not depend on where they lie.
func rowsInOrder(table string) string {
	return fmt.Sprintf(`COPY (SELECT homelab_row::text FROM ONLY %s homelab_row ORDER BY homelab_row::text COLLATE "C") TO STDOUT;`, table)
}

var createRole = regexp.MustCompile(`(?m)^CREATE ROLE (.+);$`)

// repeatable makes the output of pg_dumpall --globals-only loadable where some of the roles are there already, with
// ON_ERROR_STOP set.
func repeatable(globals []byte) []byte {
	return createRole.ReplaceAll(globals, []byte("DO $$homelab$$ BEGIN CREATE ROLE $1; EXCEPTION WHEN duplicate_object THEN NULL; END $$homelab$$;"))
}

// renameDatabase renames a database where it is there, in one statement.
func renameDatabase(from, to string) string {
	return fmt.Sprintf(`DO $homelab$ BEGIN IF EXISTS (SELECT 1 FROM pg_database WHERE datname = %s) THEN ALTER DATABASE %s RENAME TO %s; END IF; END $homelab$`,
		literal(from), identifier(from), identifier(to))
}

func literal(s string) string    { return "'" + strings.ReplaceAll(s, "'", "''") + "'" }
func identifier(s string) string { return `"` + strings.ReplaceAll(s, `"`, `""`) + `"` }
